"""Register the judged models as versions and move the aliases to the ones that passed.

Reads: ``report_uri`` (``runs:/<run>/report.json``); the config nodes ``model`` and ``promotion``.
Writes: versions, tags and aliases in the Model Registry; ``promotion.json`` on its run.

    mlflow run . -e register --env-manager local -P model=smollm2_135m
"""
