"""Whether a checkpoint can become both variants, told from its small files before its weights are
fetched or copied.
"""

import logging
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steps.config.model import REPOSITORY
from steps.snapshots import architectures, tokenizer
from steps.snapshots.card import base_models
from steps.snapshots.errors import one_line
from steps.snapshots.selection import Place, read_object
from steps.snapshots.store import Store

# transformers, compressed-tensors before it, MLX
QUANTISED = ("quantization_config", "compression_config", "quantization")
# AutoGPTQ, AutoAWQ, ModelOpt
QUANTISED_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
SENSES = re.compile(
    r"(mm_)?(vision|audio|image|img|speech|video)\w*_(config|tower|processor|embd_layer)|embd_layer"
)
# sentence-transformers'
EMBEDS = ("config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling/config.json")
CONDITIONAL = "ForConditionalGeneration"
OWN_CODE = (
    "code that comes with a checkpoint is not run: take a checkpoint that transformers loads by"
    " itself"
)


def require(folder: Path, names: Collection[str], place: Place, *, prebuilt: bool) -> None:
    """Refuse what cannot be logged, converted or served.

    Args:
        folder: the small files that are taken.
        names: every file of the source.
        place: for messages.
        prebuilt: whether an ONNX folder comes with the model, so that none is built.

    Raises:
        SnapshotError: of the first thing that is in the way.
    """
    config = read_object(folder / "config.json", place)
    read_object(folder / "generation_config.json", place, needed=False)
    _require_plain_weights(config, folder, names, place)
    _require_text_only(config, names, place)
    _require_architecture(config, place, prebuilt=prebuilt)
    with quiet():
        loaded = _load(folder, config, place)
        tokenizer.require(folder, place, config, int(loaded.vocab_size))


@contextmanager
def laid_out(files: Mapping[str, Path], store: Store) -> Iterator[Path]:
    """A folder of one's own with copies of small files under these names, gone afterwards."""
    with store.scratch() as scratch:
        folder = scratch / "small"
        for name, source in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
        folder.mkdir(exist_ok=True)
        yield folder


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from talking about what is judged here."""
    from transformers.utils import logging as their_logging

    before = their_logging.get_verbosity()
    their_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        their_logging.set_verbosity(before)


def _require_plain_weights(
    config: Mapping[str, Any], folder: Path, names: Collection[str], place: Place
) -> None:
    key = next((key for key in QUANTISED if config.get(key)), None)
    file = next((file for file in QUANTISED_FILES if file in names), None)
    if key is None and file is None:
        return
    reason = f"config.json has {key} ({_method(config[key], key)})" if key else f"holds {file}"
    own = config.get("_name_or_path")
    likely = (
        [own]
        if isinstance(own, str) and "/" in own and REPOSITORY.fullmatch(own) and own != place.value
        else []
    )
    base = next(iter((*base_models(folder), *likely)), None)
    raise place.refusal(
        f"{reason}: its weights are quantised already, and would be quantised a second time",
        "take the checkpoint before"
        f" quantisation{f', {base}' if base else ' (the model card names it)'}",
    )


def _method(settings: object, key: str) -> str:
    """What a quantisation is called: ``bitsandbytes``, ``gptq``, ``awq`` …"""
    if not isinstance(settings, dict):
        return str(settings)
    if any(str(name).startswith(("load_in_", "bnb_", "_load_in_")) for name in settings):
        return str(settings.get("quant_method") or "bitsandbytes")
    method = settings.get("quant_method") or settings.get("quant_algo") or settings.get("format")
    return (
        str(method)
        if method
        else (
            "MLX"
            if key == "quantization"
            else f"method not named, {settings.get('bits', '?')} bits"
        )
    )


def _require_text_only(config: Mapping[str, Any], names: Collection[str], place: Place) -> None:
    model_type, architecture = config.get("model_type"), _architecture(config) or ""
    if embeds := next((name for name in EMBEDS if name in names), None):
        raise place.refusal(
            f"holds an embedding model ({embeds}), which gives vectors, not text",
            "take a chat model",
        )
    if config.get("is_encoder_decoder") is True or (
        CONDITIONAL in architecture and architectures.encodes_and_decodes(str(model_type))
    ):
        raise place.refusal(
            f"config.json describes an encoder-decoder (model_type={model_type!r},"
            f" architectures[0]={architecture!r})",
            "take a decoder-only chat model, a …ForCausalLM",
        )
    sense = next((key for key, value in config.items() if SENSES.fullmatch(key) and value), None)
    if sense or CONDITIONAL in architecture:
        reason = f"{sense} stands in config.json" if sense else f"architectures[0]={architecture!r}"
        raise place.refusal(
            f"holds a multimodal model ({reason}), of which only the text could be served",
            "take the text-only checkpoint of the family, a …ForCausalLM",
        )


def _require_architecture(config: Mapping[str, Any], place: Place, *, prebuilt: bool) -> None:
    model_type, architecture, own = (
        config.get("model_type"),
        _architecture(config),
        bool(config.get("auto_map")),
    )
    if not isinstance(model_type, str) or not model_type:
        raise place.refusal(
            f"config.json has model_type={model_type!r}",
            "take a checkpoint that names it, as save_pretrained writes it",
        )
    if not architectures.known_type(model_type):
        known = f"{architectures.transformers()} does not know model_type={model_type!r}"
        if own:
            raise place.refusal(
                f"config.json has auto_map: the model is code of its own, and {known}", OWN_CODE
            )
        raise place.refusal(
            f"{known} of config.json",
            "take a model that it knows, or move the version (CONTRIBUTING.md)",
        )
    generator = architectures.text_generator(model_type)
    if generator is None:
        raise place.refusal(
            f"model_type={model_type!r} of config.json generates no text in"
            f" {architectures.transformers()}",
            "take a decoder-only chat model, a …ForCausalLM",
        )
    if architecture is None and not prebuilt:
        raise place.refusal(
            f"config.json has architectures={config.get('architectures')!r}, by which the model"
            " builder chooses",
            f'if its weights are of a text generator, add "architectures": ["{generator}"]',
        )
    if architecture is not None and architecture.lower() != generator.lower():
        if own:
            raise place.refusal(
                f"config.json has auto_map and architectures[0]={architecture!r}, which is code of"
                " its own",
                OWN_CODE,
            )
        raise place.refusal(
            f"architectures[0]={architecture!r} of config.json is not {generator}, which generates"
            f" text for model_type={model_type!r}: it has another head, or none",
            f"take the chat model of the family, whose config.json names {generator}",
        )
    buildable = architectures.buildable()
    if not prebuilt and buildable is not None and architecture not in buildable:
        raise place.refusal(
            f"the model builder of {architectures.builder()} does not know"
            f" architectures[0]={architecture!r} of config.json",
            "take a model of another architecture, or name an ONNX folder that somebody built"
            " (model.onnx.repo, model.onnx.folder)",
        )


def _architecture(config: Mapping[str, Any]) -> str | None:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named and named[0] else None


def _load(folder: Path, config: Mapping[str, Any], place: Place) -> Any:
    """The config as transformers reads it, which knows the longest sequence.

    Raises:
        SnapshotError: transformers refuses it, or it does not say how long a sequence may be.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    try:
        loaded = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever a field of the wrong kind makes a config class raise
        raise place.refusal(
            f"{architectures.transformers()} refuses config.json: {one_line(error)}",
            "mend the field, or save the checkpoint again",
        ) from error
    # transformers fills in a default of the family, which may not be this checkpoint's: only what
    # the file says counts
    named = CONFIG_MAPPING[config["model_type"]].attribute_map.get(
        "max_position_embeddings", "max_position_embeddings"
    )
    length = config.get("max_position_embeddings", config.get(named))
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise place.refusal(
            f"config.json has {named}={length!r}: nothing says how long a prompt may be",
            f'add "{named}" with the longest sequence in tokens that it was trained for',
        )
    return loaded
