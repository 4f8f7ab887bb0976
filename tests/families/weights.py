"""Writes a family's checkpoint: config and tokenizer as published, small random weights."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.families.table import Family
from tests.families.trimming import renumbered, trimmed
from tests.families.vocabularies import Files, Vocabularies

TEMPLATES = Path(__file__).with_name("templates")
# weights are drawn from -0.5 to 0.5: logits then lie far enough apart that rounding does not choose
# between them
SPREAD = 0.5
# factor on the output row of the token that ends a turn: about one step in ten then ends an answer
PREFERENCE, GEMMAS = 3.0, 5.0


def write_checkpoint(family: Family, folder: Path, vocabularies: Vocabularies) -> Family:
    """Write config.json, generation_config.json, the tokenizer's files and model.safetensors, with
    a vocabulary that was cut down.

    Returns:
        The family with the token ids that it has there.
    """
    folder.mkdir(parents=True)
    tokenizer, settings = described(family, vocabularies)
    smaller, renumber = trimmed(tokenizer)
    write_tokenizer(folder, smaller, settings)
    end = next(int(one["id"]) for one in smaller["added_tokens"] if one["content"] == family.end)
    write_model(renumbered(family.whole_config, renumber), folder, seed=0, end=end)
    generation = renumbered(family.generation, renumber)
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2), "utf-8")
    return replace(family, generation=generation, ends=tuple(sorted(map(renumber, family.ends))))


def write_model(config: dict[str, Any], folder: Path, *, seed: int, end: int | None = None) -> None:
    """Write config.json as it is given, and random weights that fit it.

    Args:
        config: content of config.json.
        folder: where to; it exists.
        seed: of the weights.
        end: token that the weights prefer.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    (folder / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).float()
    # Gemma adds 1 to the weights of its norms
    dice, centred = np.random.default_rng(seed), "gemma" in config["model_type"]
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)  # it is the embedding by another name
    for name, tensor in sorted(state.items()):
        values = (dice.random(tuple(tensor.shape), dtype=np.float32) * 2 - 1) * np.float32(SPREAD)
        if "embed_tokens" in name and (centred or "embedding_multiplier" in config):
            # the model multiplies them by about ten: they would drown what attention adds
            values *= np.float32(0.1)
        if tensor.ndim == 1 and not name.endswith("bias"):
            values = values * np.float32(0.4) + np.float32(0 if centred else 1)
        state[name] = torch.from_numpy(values)
    loaded = model.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys and set(loaded.missing_keys) <= {"lm_head.weight"}, loaded
    model.tie_weights()
    if end is not None:
        with torch.no_grad():
            model.get_output_embeddings().weight[end] *= GEMMAS if centred else PREFERENCE
    model.save_pretrained(folder)
    # transformers 5 has written its own form
    (folder / "config.json").write_text(json.dumps(config, indent=2), "utf-8")


def described(family: Family, vocabularies: Vocabularies) -> Files:
    """A family's whole tokenizer.json and tokenizer_config.json."""
    tokenizer, settings = vocabularies.read(family.vocabulary)
    if family.renamed:
        tokenizer = {
            **tokenizer,
            "added_tokens": _renamed(tokenizer["added_tokens"], family.renamed),
        }
    if family.template is not None:
        settings = {**settings, "chat_template": (TEMPLATES / family.template).read_text("utf-8")}
    return tokenizer, {**settings, **family.settings}


def write_tokenizer(folder: Path, tokenizer: dict[str, Any], settings: dict[str, Any]) -> None:
    """Write tokenizer.json, and tokenizer_config.json with the added tokens that the first has."""
    added = {
        str(one["id"]): {key: value for key, value in one.items() if key != "id"}
        for one in tokenizer["added_tokens"]
    }
    settings = {**settings, "added_tokens_decoder": added}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings, ensure_ascii=False, indent=1), "utf-8"
    )


def _renamed(
    added: list[dict[str, Any]], names: dict[int, tuple[str, bool]]
) -> list[dict[str, Any]]:
    """Added tokens with other texts: those named take their ids, and others that had such a text
    get one that models do not write.
    """
    texts = {text for text, _ in names.values()}
    kept = [
        one if one["content"] not in texts else {**one, "content": f"<|unused_{one['id']}|>"}
        for one in added
        if one["id"] not in names
    ]
    form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    new = [
        {"id": token, "content": text, "special": special, **form}
        for token, (text, special) in names.items()
    ]
    return sorted([*kept, *new], key=lambda one: int(one["id"]))
