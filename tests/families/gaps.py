"""Tries architectures beyond the table with tiny random weights, beside transformers.

``python -m tests.families.gaps`` prints the table of known gaps alone.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from steps.pipeline.compose import compose_config
from steps.snapshots import child, fetch, onnx_build
from steps.snapshots.errors import SnapshotError
from steps.snapshots.store import Store
from tests.families.subject import FP32
from tests.families.table import Family, families
from tests.families.vocabularies import Vocabularies
from tests.families.warm import WarmChildren
from tests.families.weights import described, write_model, write_tokenizer

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SMALL |= {
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
# what it is called here: model_type, and what its config says beside SMALL
TRIED: dict[str, tuple[str, dict[str, Any]]] = {
    "Command-R": ("cohere", {}),
    "Ernie-4.5": ("ernie4_5", {"head_dim": 16}),
    "EXAONE-4": ("exaone4", {}),
    "Falcon-3 (a Llama)": ("llama", {"head_dim": 16}),
    "Gemma": ("gemma", {"head_dim": 16}),
    "GLM-4": ("glm", {"head_dim": 16, "partial_rotary_factor": 0.5}),
    "Hunyuan dense": ("hunyuan_v1_dense", {"head_dim": 16}),
    "InternLM-3 (a Llama) with dynamic rope": (
        "llama",
        {"rope_scaling": {"type": "dynamic", "factor": 6.0}},
    ),
    "LFM2": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "Llama with linear rope": ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "Nemotron, half of each head rotated": (
        "nemotron",
        {"head_dim": 64, "partial_rotary_factor": 0.5},
    ),
    "OLMo": ("olmo", {}),
    "OLMo-2": ("olmo2", {}),
    "Phi-2, half of each head rotated": (
        "phi",
        {"hidden_size": 128, "num_attention_heads": 2, "partial_rotary_factor": 0.5},
    ),
    "Qwen-2.5 with YaRN": (
        "qwen2",
        {
            "rope_scaling": {
                "type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 1024,
            },
            "use_sliding_window": False,
        },
    ),
    "Qwen-3 MoE": (
        "qwen3_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "head_dim": 16},
    ),
    "StableLM": ("stablelm", {"partial_rotary_factor": 0.25}),
    "StarCoder-2": ("starcoder2", {"sliding_window": None}),
}
# of the text whose logits are compared: past the original context of the row with YaRN
TOKENS = 1200
PREFILL_CHUNK = 256  # tokens computed at once, as the served class does
CLOSE = 0.01  # of the largest logit; builds that are right differ by a ten-thousandth


@dataclass(frozen=True)
class Trial:
    """What came of one architecture.

    Attributes:
        name: of the row.
        architecture: as config.json names it.
        fetched: whether `fetch_model` takes it, or why not.
        built: whether it builds, or why not.
        difference: largest difference of logits, and the largest logit; None where nothing was
            built.
        way_out: what a user can do.
    """

    name: str
    architecture: str
    fetched: str
    built: str = "-"
    difference: tuple[float, float] | None = None
    way_out: str = "-"

    @property
    def line(self) -> str:
        """The row of the table."""
        shown = (
            "-"
            if self.difference is None
            else f"{self.difference[0]:.2g} of {self.difference[1]:.2g}"
        )
        return (
            f"| {self.name} | `{self.architecture}` | {self.fetched} | {self.built} | {shown} |"
            f" {self.way_out} |"
        )


def attempt(name: str, folder: Path, store: Store, vocabularies: Vocabularies) -> Trial:
    """Make a checkpoint, and take it as far as it goes."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    model_type, words = TRIED[name]
    architecture = str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])
    config = {**CONFIG_MAPPING[model_type](**{**SMALL, **words}).to_dict(), **SMALL, **words}
    config |= {"architectures": [architecture], "model_type": model_type}
    folder.mkdir()
    write_tokenizer(folder, *described(_smollm2(), vocabularies))
    write_model(config, folder, seed=0)
    try:
        snapshot = fetch.fetch(
            compose_config(["model=local", f"model.path='{folder}'"]).model, store
        )
    except SnapshotError as error:
        return Trial(
            name,
            architecture,
            f"refused: {_plain(error.problem, folder)}",
            way_out=_plain(error.cure, folder),
        )
    try:
        built = onnx_build.build(store.checkpoint(snapshot), FP32, store, snapshot.digest)
    except SnapshotError as error:
        return Trial(
            name,
            architecture,
            "yes",
            f"fails: {_plain(error.problem, folder)}",
            way_out=_plain(error.cure, folder),
        )
    difference = _difference(folder, built)
    right = difference[0] < CLOSE * difference[1]
    way_out = (
        "none is needed"
        if right
        else "take another model: the gate `fidelity` of an evaluation holds it"
    )
    return Trial(
        name,
        architecture,
        "yes",
        "yes" if right else "yes, and answers wrongly",
        difference,
        way_out,
    )


def _smollm2() -> Family:
    return next(family for family in families() if family.name == "smollm2")


def _plain(text: object, folder: Path) -> str:
    return str(text).replace(str(folder), "the folder").replace("|", "\\|")


def _difference(checkpoint: Path, built: Path) -> tuple[float, float]:
    """Largest difference of logits over a text of random tokens, and the largest logit."""
    import onnxruntime_genai as og
    import torch
    from transformers import AutoModelForCausalLM

    ids = [
        int(token) for token in np.random.default_rng(0).integers(5, SMALL["vocab_size"], TOKENS)
    ]
    with torch.inference_mode():
        right = (
            AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
            .eval()(torch.tensor([ids]))
            .logits[0]
            .numpy()
        )
    model = og.Model(str(built))
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=TOKENS + 1, do_sample=False)
    generator, logits = og.Generator(model, parameters), []
    for start in range(0, TOKENS, PREFILL_CHUNK):
        generator.append_tokens(ids[start : start + PREFILL_CHUNK])
        logits.append(generator.get_output("logits")[0])
    del generator  # before its model: the other order aborts at exit
    return float(np.abs(np.concatenate(logits) - right).max()), float(np.abs(right).max())


def table() -> Iterator[str]:
    """Lines of the table."""
    yield "## Known gaps\n"
    versions = (
        f"onnxruntime-genai {version('onnxruntime-genai')} and transformers"
        f" {version('transformers')}"
    )
    yield (
        "Architectures beyond the table, each a tiny checkpoint with random weights: whether"
        " `fetch_model` takes it, whether it builds in"
    )
    yield (
        f"float32, and the largest difference between its logits and transformers' on {TOKENS:,}"
        " random tokens, beside the largest logit."
    )
    yield (
        f"Written by the same command (alone: `python -m tests.families.gaps`), with {versions}.\n"
    )
    yield "| model | architecture | fetch | build | logits differ by | way out |"
    yield "| --- | --- | --- | --- | --- | --- |"
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        warm, before = WarmChildren(work), child.run
        child.run = warm.run
        try:
            store, vocabularies = Store(work / "store"), Vocabularies(work / "npm")
            for number, name in enumerate(TRIED):
                yield attempt(name, work / f"tried-{number}", store, vocabularies).line
        finally:
            child.run = before
            warm.close()


def main() -> None:
    """Print the table."""
    for line in table():
        print(line, flush=True)


if __name__ == "__main__":
    main()
