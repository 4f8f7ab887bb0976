"""Child process: ``python -m steps.snapshots.onnx_smoke <folder>`` loads an ONNX Runtime GenAI folder and decodes two tokens.

Some builds are written without a complaint and fail only here, such as one with a quantisation that no CPU kernel knows.
"""

import os
import sys
from pathlib import Path


def smoke(folder: Path) -> None:
    """Load and decode; the runtime's own error comes through."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the package is imported
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)
    prompt = tokenizer.encode("The")
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=len(prompt) + 2, do_sample=False)
    generator = og.Generator(model, parameters)
    generator.append_tokens(prompt)
    while not generator.is_done():
        generator.generate_next_token()
    del generator  # before its model: the other order aborts at exit


if __name__ == "__main__":
    smoke(Path(sys.argv[1]))
