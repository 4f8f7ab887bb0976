"""Child process: ``python -m steps.snapshots.onnx_smoke <folder>`` loads an ONNX Runtime GenAI
folder and decodes two tokens.

Some builds are written without a complaint and fail only here, such as one with a quantisation that
no CPU kernel knows.
"""

import json
import os
import sys
from pathlib import Path

PROMPT = [1, 2, 3]  # ids that every vocabulary has


def smoke(folder: Path) -> None:
    """Load and decode; the runtime's own error comes through."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the package is imported
    import onnxruntime_genai as og

    settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
    # a bounded cache is never smaller than its window
    ring = settings["decoder"].get("sliding_window", {})
    window = (
        min(int(ring["window_size"]), int(settings["context_length"])) if ring.get("layers") else 0
    )
    model = og.Model(str(folder))
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=max(len(PROMPT) + 2, window), do_sample=False)
    generator = og.Generator(model, parameters)
    generator.append_tokens(PROMPT)
    for _ in range(2):
        if not generator.is_done():
            generator.generate_next_token()
    del generator  # before its model: the other order aborts at exit


if __name__ == "__main__":
    smoke(Path(sys.argv[1]))
