"""Which files of a repository or folder are the checkpoint, told from the names and the index
alone.

Weights are what ``model.safetensors.index.json`` names, or the one safetensors file of the root; of
the other files only those that loading reads. What else lies there (``consolidated.safetensors``,
``original/``, ``checkpoint-500/``, optimiser states, hundreds of JSON files) stays where it is and
costs no request.
"""

import fnmatch
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from steps.config.model import PICKLES
from steps.snapshots.card import base_models
from steps.snapshots.errors import SnapshotError, one_line

WEIGHTS = "model.safetensors"
# names the file of each tensor, where a checkpoint has several
INDEX = "model.safetensors.index.json"
SUFFIX = ".safetensors"
ADAPTER = "adapter_config.json"  # PEFT's, beside the weights of an adapter
SHARD = re.compile(r".*-\d+-of-\d+\.safetensors")
LISTED = 3  # files that a message names
CONVERT = (
    "AutoModelForCausalLM.from_pretrained(…, gguf_file=…), then save_pretrained(…), and the same"
    " with AutoTokenizer"
)

# What loading a checkpoint reads besides its weights, and what says under which terms: globs, of
# the root unless they name a folder.
SMALL = (
    *("config.json", "generation_config.json", INDEX),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
    *("README.md", "LICENSE*", "LICENCE*", "NOTICE*"),
)
# what a refusal is worded with where there are no weights
HINTS = ("config.json", "README.md", ADAPTER)


@dataclass(frozen=True)
class Place:
    """Where a checkpoint was looked for, as messages name it.

    Attributes:
        field: dotted key of the config, such as ``model.repo``.
        value: what it holds.
        patterns: ``model.allow_patterns``.
    """

    field: str
    value: str
    patterns: Sequence[str] = ("*",)

    def refusal(self, problem: str, cure: str) -> SnapshotError:
        """The error about this place."""
        return SnapshotError(self.field, self.value, problem, cure)


def small_files(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The files besides the weights that are taken."""
    return sorted(name for name in names if _small(name) and matches(name, patterns))


def weight_files(folder: Path, names: Collection[str], place: Place) -> dict[str, str]:
    """The weights: name in the snapshot to name at the source. They differ for a lone file of
    another name, which loading would not find.

    Args:
        folder: holds at least the small files.
        names: every file of the source.
        place: for messages, and for its patterns.

    Raises:
        SnapshotError: there are no safetensors weights, or not all that the index names.
    """
    _require_matched(["config.json", INDEX], names, place)
    if INDEX in names:
        chosen = {name: name for name in _shards(folder / INDEX, names, place)}
    elif WEIGHTS in names:
        chosen = {WEIGHTS: WEIGHTS}
    else:
        chosen = {WEIGHTS: _lone(folder, names, place)}
    _require_matched(chosen.values(), names, place)
    return chosen


def _require_matched(needed: Iterable[str], names: Collection[str], place: Place) -> None:
    """Refuse patterns that leave out what a checkpoint cannot do without."""
    for name in needed:
        if name in names and not matches(name, place.patterns):
            problem = f"leaves out {name}, which is part of the checkpoint"
            raise SnapshotError(
                "model.allow_patterns", list(place.patterns), problem, "leave the key out"
            )


def has_weights(names: Collection[str]) -> bool:
    """Whether weights of a whole model may be among the names."""
    return INDEX in names or WEIGHTS in names or bool(_candidates(names))


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether any of the globs matches; upper and lower case count, and ``*`` goes across
    folders.
    """
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def read_object(file: Path, place: Place, *, needed: bool = True) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        SnapshotError: it is not there though `needed`, or is something else.
    """
    if not file.is_file():
        if needed:
            raise place.refusal(
                f"holds no {file.name}", "name the folder that save_pretrained wrote"
            )
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one too
        raise place.refusal(
            f"{file.name} is not JSON: {one_line(error)}", "save or download it again"
        ) from error
    if not isinstance(content, dict):
        raise place.refusal(
            f"{file.name} holds a {type(content).__name__}, expected an object",
            "save or download it again",
        )
    return content


def _small(name: str) -> bool:
    return not matches(name, PICKLES) and any(
        fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")
        for pattern in SMALL
    )


def _candidates(names: Iterable[str]) -> list[str]:
    """Safetensors files of the root that may be a model's: not Mistral's own layout, not an
    adapter.
    """
    files = (name for name in names if name.endswith(SUFFIX) and "/" not in name)
    return sorted(name for name in files if not name.startswith(("consolidated", "adapter_")))


def _shards(file: Path, names: Collection[str], place: Place) -> list[str]:
    """The files that an index names.

    Raises:
        SnapshotError: it is not an index, or a file that it names is not there or not in the root.
    """
    tensors = read_object(file, place).get("weight_map")
    if not isinstance(tensors, dict):
        raise place.refusal(
            f"{INDEX} has weight_map={tensors!r}, expected the file of each tensor",
            "save the checkpoint again",
        )
    shards = {str(name) for name in tensors.values()}
    strange = sorted(name for name in shards if not _beside(name))
    if strange or not shards:
        fault = (
            f"names {some(strange)}, which is not a safetensors file beside it"
            if strange
            else "names no file in weight_map"
        )
        raise place.refusal(
            f"{INDEX} {fault}", "save the checkpoint again with model.save_pretrained(…)"
        )
    missing = sorted(shards - set(names))
    if missing:
        cure = (
            f"complete the checkpoint, or delete the index if {WEIGHTS} is whole"
            if WEIGHTS in names
            else "complete the checkpoint"
        )
        raise place.refusal(f"{INDEX} names {some(missing)}, which is not there", cure)
    return sorted(shards)


def _beside(name: str) -> bool:
    return name.endswith(SUFFIX) and PurePosixPath(name).parts == (name,) and "\\" not in name


def _lone(folder: Path, names: Collection[str], place: Place) -> str:
    """The one safetensors file of the root, where no index and no file of the usual name is there.

    Raises:
        SnapshotError: there is none, or more than one.
    """
    candidates = _candidates(names)
    if len(candidates) == 1 and not SHARD.fullmatch(candidates[0]):
        return candidates[0]
    if any(SHARD.fullmatch(name) for name in candidates):
        raise place.refusal(
            f"holds {some(candidates)} without {INDEX}, which says what is in them",
            "complete the checkpoint",
        )
    if candidates:
        problem = f"holds {len(candidates)} safetensors files ({some(candidates)}) and no {INDEX}"
        raise place.refusal(problem, f"keep the model's own and name it {WEIGHTS}")
    raise _without_weights(folder, names, place)


def _without_weights(folder: Path, names: Collection[str], place: Place) -> SnapshotError:
    """Why there are no weights, and what to do: the most telling of what is there instead."""
    base = base_models(folder)
    if ADAPTER in names:
        of = f" of {base[0]}" if base else ""
        return place.refusal(
            f"holds an adapter{of} only ({ADAPTER} without base weights)",
            f"merge it first: load {base[0] if base else 'its base model'},"
            " PeftModel.from_pretrained(…).merge_and_unload(), then save_pretrained(…) with the"
            " tokenizer",
        )
    pickles = sorted(
        name
        for name in names
        if matches(name, PICKLES) and "/" not in name and not name.startswith("training_args")
    )
    if pickles:
        return place.refusal(
            f"its weights are pickles ({some(pickles)}), which run code when loaded",
            "save it again with model.save_pretrained(…), which writes safetensors",
        )
    ggufs = sorted(name for name in names if name.lower().endswith(".gguf"))
    if ggufs:
        instead = (
            f"take {base[0]}, which it was made from, or convert it once"
            if base
            else "convert it once"
        )
        return place.refusal(
            f"holds GGUF files only ({some(ggufs)}), which are not taken from here",
            f"{instead}: {CONVERT}",
        )
    onnx = sorted(name for name in names if name.endswith(("genai_config.json", ".onnx")))
    if onnx:
        built = f"the checkpoint that it was built from{f', {base[0]},' if base else ''}"
        return place.refusal(
            f"holds an ONNX build only ({some(onnx)})",
            f"take {built} and name this as model.onnx.repo and model.onnx.folder",
        )
    own = sorted(
        name for name in names if name.startswith("consolidated") and name.endswith(SUFFIX)
    )
    if own:
        return place.refusal(
            f"holds Mistral's own layout only ({some(own)}), which transformers does not read",
            "take the repository's transformers layout: config.json with model.safetensors or its"
            " shards",
        )
    deeper = sorted({name.rpartition("/")[0] for name in names if name.endswith(SUFFIX)})
    if deeper:
        return place.refusal(
            f"holds no safetensors weights beside config.json, only in {some(deeper)}",
            "name the folder that holds both",
        )
    if "config.json" not in names:
        return place.refusal(
            "holds no config.json and no weights", "name the folder that save_pretrained wrote"
        )
    return place.refusal(
        "holds no safetensors weights",
        "save it again with model.save_pretrained(…), which writes safetensors",
    )


def some(names: Sequence[str]) -> str:
    """The first few of the names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
