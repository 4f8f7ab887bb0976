"""Say what is wrong with a pack, a policy, a model's file or any words, all faults at once, and run
nothing.

Reads: the words: ``pack=<name or folder>``, ``<group>=<choice or file.yaml>``, a file or folder
alone, or any override of the steps; without words every file of ``conf/`` and the shipped packs.
Writes: one line a fault to stderr. Ends with 0 where there is none, with 1 where there is one, and
with 2 where a word cannot be read.

    python -m steps.check pack=/packs/mine promotion=mine model=mine
    python -m steps.check conf/promotion/mine.yaml /packs/mine
    python -m steps.check evaluate.max_items=4 model=Qwen/Qwen2.5-0.5B-Instruct
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from steps.config.model import Source
from steps.config.root import CONF, GROUPS
from steps.core import tracking_store
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.pipeline import config_file, config_files
from steps.pipeline.arguments import Arguments, translate
from steps.pipeline.compose import compose_config, compose_jobs

Fault = ConfigError | StepError
YAML = (".yaml", ".yml")
QUIET = "--quiet"  # says nothing where nothing is wrong
STORE = (
    "--store"  # as well whether $MLFLOW_TRACKING_URI can be used, for which MLflow waits minutes
)


def main() -> None:
    """Check what the command line names."""
    words = [word for word in sys.argv[1:] if word not in (QUIET, STORE)]
    if {"-h", "--help"} & {*words}:
        print((__doc__ or "").strip())
        return
    try:
        looked, faults = check(words)
        if STORE in sys.argv:
            faults += _store_faults()
    except ConfigError as error:
        print(f"check: error: {redact(str(error))}", file=sys.stderr)
        raise SystemExit(2) from error
    for line in faults:
        print(f"check: error: {line}", file=sys.stderr)
    if faults:
        print(f"check: {len(faults)} wrong; nothing was run", file=sys.stderr)
        raise SystemExit(1)
    if QUIET not in sys.argv:
        print("\n".join(f"{name}: nothing wrong" for name in looked))


def _store_faults() -> list[str]:
    """Why the tracking store cannot be used; MLflow's default is a file that it makes."""
    try:
        tracking_store.require(os.environ.get("MLFLOW_TRACKING_URI", ""))
    except StepError as error:
        return [redact(str(error))]
    return []


def check(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What was looked at, and the faults, one line each.

    Args:
        words: of the command line.

    Raises:
        ConfigError: a word is neither a path nor an override.
    """
    packs, files, arguments = _sorted(words)
    overrides = list(arguments.overrides)
    faults: list[Fault] = []
    for path, group in files:
        faults += _of_file(path, group)
    jobs = [overrides] if overrides or not (packs or files) else []
    if not words:
        packs, files = _everything()
        for path, group in files:
            # these two take a key that no file gives
            part = (group, path.stem) in (("model", "hub"), ("model", "local"))
            faults += config_files.faults(path, group) if part else _of_file(path, group)
    for job in jobs:
        found, pack = _of_config(job, arguments.multirun)
        faults += found
        own = config_files.LOCAL.is_file() or any(word.startswith("evaluate") for word in job)
        if pack and own:
            packs.append(pack)
    names = [config_file.shown(path) for path, _ in files]
    names += [f"pack {name}" for name in dict.fromkeys(packs)]
    if overrides or not (packs or files):
        names.insert(0, " ".join(overrides) or "the config")
    if packs:
        from steps.evaluation import packs as packs_room

        for name in dict.fromkeys(packs):
            faults += packs_room.faults(name)
    return names, list(dict.fromkeys(redact(str(fault)) for fault in faults))


def _of_file(path: Path, group: str) -> list[Fault]:
    if path.suffix == ".yml" and path.is_relative_to(CONF):
        expected = "a name that ends with .yaml, which Hydra reads"
        return [config_file.ConfigFileError(path, None, expected, f"rename it to {path.stem}.yaml")]
    faults = config_files.faults(path, group)
    found: list[Fault] = [*faults]
    found += config_files.whole(path, group, [fault.field for fault in faults])
    if not found and group and path == CONF / group / f"{path.stem}.yaml":
        found, _ = _of_config([f"{group}={path.stem}"], False)
    return found


def _of_config(overrides: list[str], multirun: bool) -> tuple[list[Fault], str]:
    """Faults of the files that overrides choose and of the overrides, and the pack they lead to."""
    found: list[Fault] = []
    known: list[str] = []
    for path, group in config_files.chosen(overrides):
        faults = config_files.faults(path, group)
        found += faults
        known += [fault.field for fault in faults]
    for path, group in config_files.chosen(overrides) if found else ():
        found += config_files.whole(path, group, known)
    if found:
        return found, ""
    left, dropped = list(overrides), set[str]()
    while True:
        try:
            composed = compose_jobs(left)[0] if multirun else compose_config(left)
        except ConfigError as error:
            found.append(error)
            if error.field in dropped:  # lacking as it was dropped
                return found[:-1], ""
            kept = [word for word in left if word.lstrip("+~").partition("=")[0] != error.field]
            if kept == left:
                return found, ""
            dropped.add(error.field)
            left = kept  # what is wrong with the others
        else:
            break
    if composed.model.source is Source.folder:
        from steps.snapshots import folder

        try:
            folder.require(composed.model)
        except (ConfigError, StepError) as error:
            found.append(error)
    return found, composed.evaluate.pack


def _sorted(words: Sequence[str]) -> tuple[list[str], list[tuple[Path, str]], Arguments]:
    """Packs, YAML files with their groups, and overrides.

    Raises:
        ConfigError: a YAML file of no group, or a word that is neither.
    """
    packs: list[str] = []
    files: list[tuple[Path, str]] = []
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        key, equals, value = word.partition("=")
        path = Path(value if equals else word)
        if word.startswith("--") and not equals:  # as `mlflow run` writes a parameter
            rest += [word, *queue[:1]]
            del queue[:1]
        elif key == "pack" and equals:
            packs.append(value)
        elif path.suffix in YAML and (not equals or key in GROUPS):
            files.append((path.absolute(), key if equals else _group_of(path.absolute())))
        elif word and not equals and path.is_dir():
            packs.append(str(path))
        else:
            rest.append(word)
    return packs, files, translate(rest)


def _group_of(path: Path) -> str:
    """The group that the folder of a file is named after; empty for ``local``.

    Raises:
        ConfigError: there is none of that name.
    """
    group = path.parent.name
    if group not in (*GROUPS, "local"):
        cure = f"write promotion={path.name} for a policy, model={path.name} for a model"
        raise ConfigError("file", str(path), f"a folder named {', '.join(GROUPS)}", cure)
    return "" if group == "local" else group


def _everything() -> tuple[list[str], list[tuple[Path, str]]]:
    """The shipped packs, and every file of every group."""
    from steps.evaluation.packs import SHIPPED

    packs = sorted(path.parent.name for path in SHIPPED.glob("*/pack.yaml"))
    files = [(path, group) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
    return packs, files


if __name__ == "__main__":
    main()
