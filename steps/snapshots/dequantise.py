"""Child process: ``python -m steps.snapshots.dequantise <file.gguf> <folder>`` writes a GGUF file
as a float32 safetensors checkpoint.
"""

import sys
from pathlib import Path


def dequantise(gguf: Path, target: Path) -> None:
    """Weights, config, tokenizer and chat template of a GGUF file, as `save_pretrained` lays them
    out.

    `GgufConfig(dequantize=True)` is what makes the result an ordinary model: without it
    `save_pretrained` refuses.
    """
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    quantisation = GgufConfig(dequantize=True, gguf_file=gguf.name)
    # fmt: off
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=quantisation, dtype=torch.float32
    )
    # fmt: on
    model.save_pretrained(target)
    save_tokenizer(gguf, target, model.config.max_position_embeddings)


def save_tokenizer(gguf: Path, target: Path, context: int) -> None:
    """Tokenizer and chat template of a GGUF file.

    Args:
        gguf: the file.
        target: where to save.
        context: longest sequence in tokens; GGUF's tokenizer section does not carry it.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = context
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
