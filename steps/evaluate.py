"""Judge both variants, and the incumbent champion if there is one, side by side.

Reads: ``transformers_uri`` and ``onnx_uri`` (``models:/…``), or any ``evaluate.candidates``; the nodes ``evaluate`` and ``promotion``.
Writes: ``report.json`` and ``report.html`` on its run; metrics on the run and on every logged model.

    mlflow run . -e evaluate --env-manager local -P model=smollm2_135m -P evaluate=smoke
"""
