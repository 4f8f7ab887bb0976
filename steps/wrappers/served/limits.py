"""What a checkpoint says of its own ends: which tokens end an answer, how long a text may be, and
where its rotary embeddings change.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DATA_LOSS

from .checkpoint_files import added_tokens, read_json

# what was found of the checkpoint when an ONNX folder was prepared
CAPABILITIES = "capabilities.json"
GENAI_CONFIG = "genai_config.json"
# names of one field, newest first
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
# rope types with one set of factors up to the original context and another past it
LONGROPE = ("longrope", "su")


@dataclass(frozen=True)
class Limits:
    """Ends of a model, the same for both variants unless an engine cannot go as far.

    Attributes:
        eos_token_ids: tokens that end an answer: the union of what config.json,
            generation_config.json and the tokenizer name.
        context_length: tokens that a prompt and its answer may have together.
        rope_border: tokens past which every key of a text has to be computed anew with other
            factors (LongRoPE's original context); None where positions are rotated alike at any
            length.
        windows: distinct sliding windows of its layers, in tokens; empty where every layer sees
            everything.
        vocabulary: token ids that the model has an embedding for are below it; None where nothing
            says.
        capped: why ``context_length`` is less than the checkpoint's own, in one clause; None where
            it is not.
    """

    eos_token_ids: tuple[int, ...]
    context_length: int
    rope_border: int | None = None
    windows: tuple[int, ...] = ()
    vocabulary: int | None = None
    capped: str | None = None

    @property
    def borders(self) -> tuple[int, ...]:
        """Lengths, in tokens and rising, past which a wrong implementation shows."""
        candidates = {*self.windows, *([self.rope_border] if self.rope_border else [])}
        return tuple(sorted(border for border in candidates if border < self.context_length))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            "eos_token_ids": list(self.eos_token_ids),
            "windows": list(self.windows),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Limits":
        """Read what ``to_json`` gave."""
        return cls(
            **{
                **values,
                "eos_token_ids": tuple(values["eos_token_ids"]),
                "windows": tuple(values["windows"]),
            }
        )


def limits_of_checkpoint(folder: Path) -> Limits:
    """Read a checkpoint folder's limits from its JSON files; nothing is loaded.

    Raises:
        ValueError: no end token, or a value that is not an id under its key, or no context length.
    """
    config = read_json(folder / "config.json")
    return Limits(
        eos_token_ids=_eos_token_ids(folder, config),
        context_length=context_length_of(config),
        rope_border=_rope_border(config),
        windows=_windows(config),
        vocabulary=int(config["vocab_size"]) if config.get("vocab_size") else None,
    )


def genai_settings(folder: Path) -> dict[str, Any]:
    """Read an ONNX folder's genai_config.json.

    Raises:
        MlflowException: it is missing or garbled.
    """
    try:
        settings = json.loads((folder / GENAI_CONFIG).read_text("utf-8"))
        model = dict(settings["model"])
        model["context_length"] = int(model["context_length"])
        return {**settings, "model": model}
    except (OSError, ValueError, TypeError, KeyError) as error:
        problem = f"it cannot be read ({type(error).__name__}: {error})"
        raise damaged(problem, GENAI_CONFIG) from error


def limits_of_onnx(folder: Path) -> Limits:
    """Read an ONNX folder's limits from capabilities.json, else from genai_config.json."""
    model = genai_settings(folder)["model"]
    try:
        known = read_json(folder / CAPABILITIES)
        limits = Limits.from_json(known["limits"]) if "limits" in known else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(f"it cannot be read ({type(error).__name__}: {error})") from error
    if limits is not None:
        ends, context = limits.eos_token_ids, limits.context_length
        if not ends or not all(isinstance(token, int) for token in ends):
            raise damaged(
                f"eos_token_ids={list(ends)!r}: expected the ids of the tokens that end answers"
            )
        most = int(model["context_length"])
        if not isinstance(context, int) or not 1 <= context <= most:
            raise damaged(
                f"context_length={context!r}: expected tokens from 1 to the graph's {most}"
            )
        return limits
    named = model["eos_token_id"]
    return Limits(
        tuple(named) if isinstance(named, list) else (int(named),), int(model["context_length"])
    )


def damaged(problem: str, file: str = CAPABILITIES) -> MlflowException:
    """Build the error of a file that does not hold what was written."""
    return MlflowException(
        f"damaged model: {file}: {problem}; log it again or fetch the artifacts anew",
        error_code=DATA_LOSS,
    )


def context_length_of(config: Mapping[str, Any]) -> int:
    """Positions that a config says the model has.

    Raises:
        ValueError: it says nothing.
    """
    for key in CONTEXT_KEYS:
        if isinstance(config.get(key), int) and config[key] > 0:
            return int(config[key])
    raise ValueError(
        f"config.json: max_position_embeddings={config.get('max_position_embeddings')!r}: expected"
        " the context in tokens"
    )


def _eos_token_ids(folder: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    ids: set[int] = set()
    for source in (config, read_json(folder / "generation_config.json")):
        named = source.get("eos_token_id")
        given = named if isinstance(named, list) else [] if named is None else [named]
        if not all(isinstance(token, int) for token in given):
            raise ValueError(f"eos_token_id={named!r}: expected a token id or a list of them")
        ids |= set(given)
    text = read_json(folder / "tokenizer_config.json").get("eos_token") or read_json(
        folder / "special_tokens_map.json"
    ).get("eos_token")
    text = text.get("content") if isinstance(text, Mapping) else text
    if text:
        ids |= token_ids_of(folder, str(text))
    if not ids:
        raise ValueError(
            "config.json, generation_config.json and tokenizer_config.json: eos_token_id: expected"
            " a token that ends answers"
        )
    return tuple(sorted(ids))


def token_ids_of(folder: Path, text: str) -> set[int]:
    """Id of a token, by its text, in a folder's tokenizer; empty where it has no such token."""
    settings = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    ids = {
        int(token)
        for token, entry in settings.items()
        if isinstance(entry, Mapping) and entry.get("content") == text
    }
    file = folder / "tokenizer.json"
    if ids or not file.is_file():
        return ids
    source = file.read_text("utf-8")
    ids = {int(entry["id"]) for entry in added_tokens(source) if entry.get("content") == text}
    if ids:
        return ids
    vocabulary = json.loads(source).get("model", {}).get("vocab", {})
    return (
        {int(vocabulary[text])} if isinstance(vocabulary, Mapping) and text in vocabulary else set()
    )


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("rope_scaling") or config.get("rope_parameters") or {}


def _rope_border(config: Mapping[str, Any]) -> int | None:
    rope = _rope(config)
    if rope.get("rope_type", rope.get("type")) not in LONGROPE:
        return None
    original = rope.get("original_max_position_embeddings") or config.get(
        "original_max_position_embeddings"
    )
    return int(original) if original and int(original) < context_length_of(config) else None


def _windows(config: Mapping[str, Any]) -> tuple[int, ...]:
    window = config.get("sliding_window")
    if (
        not window
        or config.get("use_sliding_window") is False
        or int(window) >= context_length_of(config)
    ):
        return ()
    types = config.get("layer_types")
    return (int(window),) if types is None or "sliding_attention" in types else ()
