"""Default names in the Model Registry, taken from the repository or the folder."""

import re
import unicodedata
from pathlib import Path

from steps.config import names

# what the Hub's cache and our store call their folders
DIGEST = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
# the Hub's cache: models--owner--name/snapshots/<commit>
CACHED = re.compile(r"models--(.+?)--(.+)")
PLACEHOLDER = "local-model"  # of a folder that only a digest names


def of_repository(repo: str | None) -> str:
    """``qwen2.5-0.5b-instruct`` of ``Qwen/Qwen2.5-0.5B-Instruct``; empty where there is none."""
    return registered((repo or "").rpartition("/")[2])


def of_folder(path: str | None) -> str:
    """A folder's own name as a registered model; of a folder in the Hub's cache the repository's.
    Empty where there is none.
    """
    if not path:
        return ""
    try:
        name = called(Path(path).expanduser())
    except RuntimeError:  # ~somebody who is not a user here
        name = Path(path).name
    return registered(name.rpartition("/")[2]) if name else PLACEHOLDER


def called(folder: Path) -> str | None:
    """What a checkpoint folder is called, ``owner/name`` in the Hub's cache; None where its name is
    a digest that says nothing.
    """
    name = folder.absolute().name if folder.name != ".." else folder.resolve().name
    if not DIGEST.fullmatch(name):
        return name
    cached = (
        CACHED.fullmatch(folder.parent.parent.name) if folder.parent.name == "snapshots" else None
    )
    return "/".join(cached.groups()) if cached else None


def registered(text: str) -> str:
    """A text in lower case as a name that every command accepts; empty where nothing is left."""
    name = unicodedata.normalize("NFC", text.lower())
    name = "".join(letter if letter.isalnum() or letter in "._-+=" else "-" for letter in name)
    name = re.sub(r"^[^\w]+|^_+", "", name)[: names.LONGEST].rstrip("-")
    if suffix := names.reserved(name):
        name = f"{name[: -len(suffix)]}-{suffix[1:]}"
    return f"{name}-model" if name == "null" else name
