"""Quality packs: a folder with ``pack.yaml`` and ``items.jsonl``, read whole and checked before
anything runs.

``pack.yaml`` has ``name``, ``version``, ``licence`` and ``contamination``; instead of items of its
own a pack may take a part of another with ``subset_of`` and ``ids``. ``items.jsonl`` has one object
a line: ``{"id", "messages", "checks", "tags", "max_tokens"?}``.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from steps.core import did_you_mean, digest
from steps.core.errors import ConfigError
from steps.evaluation import checks
from steps.evaluation.report import CheckResult

SHIPPED = Path(__file__).with_name("packs")
ROLES = ("system", "user", "assistant")
META = ("name", "version", "licence", "contamination")
PART_OF = ("subset_of", "ids")  # of a pack that is a part of another
KEYS = {"id", "messages", "max_tokens", "checks", "tags"}


class PackError(ConfigError):
    """A pack that cannot be used: names the file and the line."""

    def __init__(self, path: Path, line: int | None, reason: str) -> None:
        self.path, self.line = path, line
        where = f"{path}:{line}" if line else str(path)
        super().__init__("evaluate.pack", where, reason)


@dataclass(frozen=True)
class Item:
    """One question, with what its answer must hold."""

    id: str
    messages: tuple[Mapping[str, str], ...]
    checks: tuple[Mapping[str, Any], ...]
    tags: tuple[str, ...]
    max_tokens: int | None = None

    def score(self, answer: str) -> tuple[float, tuple[CheckResult, ...]]:
        """1 and the checks' results when all hold, else 0."""
        results = tuple(checks.run(check, answer) for check in self.checks)
        return float(all(result.passed for result in results)), results


@dataclass(frozen=True)
class Pack:
    """A pack, whole and checked. ``digest`` covers the items, so that two runs on the same pack can
    be recognised.
    """

    name: str
    version: str
    licence: str
    contamination: str
    items: tuple[Item, ...]

    @property
    def digest(self) -> str:
        lines = (
            json.dumps(_plain(item), sort_keys=True, ensure_ascii=False) for item in self.items
        )
        return digest.of_bytes("\n".join(lines).encode())

    @property
    def skills(self) -> tuple[str, ...]:
        """First tag of each item, in order of appearance."""
        return tuple(dict.fromkeys(item.tags[0] for item in self.items))

    def take(self, count: int | None) -> "Pack":
        """The pack cut to ``count`` items: as many of each skill as there are turns, evenly over
        the skill's items in their order.

        Items that are alike stand together in a pack, so that a skill's first items alone would
        leave out its other kinds.
        """
        if count is None or count >= len(self.items):
            return self
        queues = [[item for item in self.items if item.tags[0] == skill] for skill in self.skills]
        shares = [0] * len(queues)
        for turn in (
            place
            for depth in range(len(self.items))
            for place, queue in enumerate(queues)
            if depth < len(queue)
        ):
            if sum(shares) == count:
                break
            shares[turn] += 1
        chosen = {
            # the middle of each of `share` equal stretches
            queue[(2 * step + 1) * len(queue) // (2 * share)].id
            for queue, share in zip(queues, shares, strict=True)
            for step in range(share)
        }
        return Pack(
            self.name,
            self.version,
            self.licence,
            self.contamination,
            tuple(item for item in self.items if item.id in chosen),
        )


def _plain(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "messages": [dict(message) for message in item.messages],
        "checks": [dict(check) for check in item.checks],
        "tags": list(item.tags),
        "max_tokens": item.max_tokens,
    }


def folder_of(name_or_path: str) -> Path:
    """Folder of a shipped pack's name, or of any other pack's path.

    Raises:
        PackError: no such pack.
    """
    folder = SHIPPED / name_or_path
    if "/" in name_or_path or not folder.is_dir():
        folder = Path(name_or_path).expanduser()
    if not (folder / "pack.yaml").is_file():
        shipped = ", ".join(sorted(path.parent.name for path in SHIPPED.glob("*/pack.yaml")))
        raise PackError(
            folder,
            None,
            f"a shipped pack's name ({shipped}) or a folder with pack.yaml and items.jsonl",
        )
    return folder


def load(name_or_path: str) -> Pack:
    """Read a shipped pack by name, or any folder by path.

    Raises:
        PackError: no such pack, or a broken file; names file and line. Nothing has been run by
            then.
    """
    folder = folder_of(name_or_path)
    meta = _meta(folder / "pack.yaml")
    items, faults = _subset(folder, meta) if "subset_of" in meta else _items(folder / "items.jsonl")
    if faults:
        raise faults[0]
    return Pack(
        str(meta["name"]),
        str(meta["version"]),
        str(meta["licence"]),
        str(meta["contamination"]),
        items,
    )


def faults(name_or_path: str) -> list[PackError]:
    """All that is wrong with a pack."""
    try:
        folder = folder_of(name_or_path)
    except PackError as error:
        return [error]
    found: list[PackError] = []
    meta: dict[str, Any] = {}
    try:
        meta = _meta(folder / "pack.yaml")
    except PackError as error:
        found.append(error)
    try:
        _, wrong = _subset(folder, meta) if "subset_of" in meta else _items(folder / "items.jsonl")
    except PackError as error:  # of the pack that this is a part of, or of the whole file
        wrong = [error]
    return [*found, *wrong]


def _subset(folder: Path, meta: Mapping[str, Any]) -> tuple[tuple[Item, ...], list[PackError]]:
    whole = load(str(meta["subset_of"]))
    known = {item.id: item for item in whole.items}
    wrong = []
    for identity in meta["ids"]:
        if identity not in known:
            hint = did_you_mean.hint(str(identity), known, 1)
            said = f"ids of pack {whole.name!r}; it has no {identity!r}"
            wrong.append(PackError(folder / "pack.yaml", None, f"{said}; {hint}" if hint else said))
    return tuple(known[identity] for identity in meta["ids"] if identity in known), wrong


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")  # Windows' editors begin with a mark
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise PackError(path, line, "text in UTF-8; save the file as UTF-8") from error


def _meta(path: Path) -> dict[str, Any]:
    try:
        meta = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = " ".join(str(getattr(error, "problem", None) or error).split())
        raise PackError(path, mark.line + 1 if mark else None, f"valid YAML ({said})") from error
    if not isinstance(meta, dict):
        raise PackError(path, 1, "a mapping")
    if unknown := {*map(str, meta)} - {*META, *PART_OF}:
        hint = did_you_mean.hint(min(unknown), (*META, *PART_OF), 1)
        said = f"only the keys {[*META, *PART_OF]}; unknown: {sorted(unknown)}"
        raise PackError(path, None, f"{said}; {hint}" if hint else said)
    if missing := [key for key in META if not meta.get(key)]:
        raise PackError(path, None, f"a value for {', '.join(map(repr, missing))}")
    if "subset_of" in meta and not (isinstance(meta.get("ids"), list) and meta["ids"]):
        raise PackError(path, None, "a list 'ids' beside 'subset_of'")
    return meta


def _items(path: Path) -> tuple[tuple[Item, ...], list[PackError]]:
    """The items that are whole, and what is wrong with the others."""
    if not path.is_file():
        raise PackError(path, None, "an items.jsonl beside pack.yaml")
    items: dict[str, Item] = {}
    wrong: list[PackError] = []
    taken: set[str] = set()
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            wrong.append(PackError(path, number, f"one JSON object a line ({error})"))
            continue
        reasons = list(_problems(entry))
        identity = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(identity, str) and identity in taken:
            reasons.append(f"an id of its own; {identity!r} is taken by an earlier line")
        taken.add(str(identity))
        if reasons:
            wrong += [PackError(path, number, reason) for reason in reasons]
            continue
        prompt = "\n".join(message["content"] for message in entry["messages"])
        bound = tuple(checks.bind(check, prompt) for check in entry["checks"])
        items[entry["id"]] = Item(
            entry["id"],
            tuple(entry["messages"]),
            bound,
            tuple(entry["tags"]),
            entry.get("max_tokens"),
        )
    if not items and not wrong:
        raise PackError(path, None, "at least one item")
    return tuple(items.values()), wrong


def _problems(entry: object) -> Iterator[str]:
    """All that is wrong with an item."""
    if not isinstance(entry, dict):
        yield "a JSON object"
        return
    try:
        json.dumps(entry, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        yield f"whole characters, and there is half a pair: {error.object[error.start]!a}"
    if unknown := set(entry) - KEYS:
        hint = did_you_mean.hint(min(map(str, unknown)), KEYS, 1)
        said = f"only the keys {sorted(KEYS)}; unknown: {sorted(unknown)}"
        yield f"{said}; {hint}" if hint else said
    if not (isinstance(entry.get("id"), str) and entry["id"]):
        yield "a non-empty string 'id'"
    if problem := _messages_problem(entry.get("messages")):
        yield problem
    tags = entry.get("tags")
    if not (isinstance(tags, list) and tags and all(isinstance(tag, str) and tag for tag in tags)):
        yield "a list 'tags' of at least one skill"
    limit = entry.get("max_tokens")
    if limit is not None and (type(limit) is not int or limit < 1):
        yield "'max_tokens' of at least 1"
    if not (isinstance(entry.get("checks"), list) and entry["checks"]):
        yield "a list 'checks' of at least one check"
        return
    yield from filter(None, map(checks.problem, entry["checks"]))


def _messages_problem(messages: object) -> str | None:
    if not (isinstance(messages, list) and messages):
        return "a list 'messages' of at least one message"
    for message in messages:
        if (
            not isinstance(message, dict)
            or message.get("role") not in ROLES
            or not isinstance(message.get("content"), str)
        ):
            return f"messages of a role among {ROLES} and a string content"
    return None if messages[-1]["role"] == "user" else "a last message of role 'user'"
