"""The source closure of a step: its entry script, the project's modules it imports, and the files
it logs.
"""

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path

from steps.config.root import ROOT
from steps.core import digest

# How a step is run does not change what it makes, and the config's values are in the fingerprint
# themselves.
OUTSIDE = (
    "steps.pipeline",
    "steps.config",
    "steps.core.commands",
    "steps.core.errors",
    "steps.core.search",
    "steps.core.tags",
    "steps.core.parent",
)


def closure(
    module: str, extra: Sequence[str] = (), without: Sequence[str] = (), root: Path = ROOT
) -> list[Path]:
    """Files that ``module`` reaches through imports, and what lies at ``extra``.

    Args:
        module: dotted name, such as ``steps.evaluate``.
        extra: files or folders relative to ``root`` that are read rather than imported.
        without: files or folders relative to ``root`` that do not count, nor what they import.
        root: the project root.
    """
    left_out = [root / entry for entry in without]

    def counts(path: Path) -> bool:
        return not any(path.is_relative_to(place) for place in left_out)

    reached: set[Path] = set()
    queue = [module]
    while queue:
        path = _path(queue.pop(), root)
        if path is None or path in reached or not counts(path):
            continue
        reached.add(path)
        queue += [name for name in _imports(path, root) if not name.startswith(OUTSIDE)]
    for entry in extra:
        place = root / entry
        files = [place] if place.is_file() else place.rglob("*")
        reached.update(
            file
            for file in files
            if file.is_file() and "__pycache__" not in file.parts and counts(file)
        )
    return sorted(reached)


def source_digest(
    module: str, extra: Sequence[str] = (), without: Sequence[str] = (), root: Path = ROOT
) -> str:
    """Digest of the closure's names and bytes."""
    return digest.of_value(
        [
            [file.relative_to(root).as_posix(), digest.sha256_of(file)]
            for file in closure(module, extra, without, root)
        ]
    )


def _path(module: str, root: Path) -> Path | None:
    base = root.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports(path: Path, root: Path) -> Iterable[str]:
    """Dotted names of the project's modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("steps"))
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = path.parents[node.level - 1].relative_to(root)
                module = ".".join([*package.parts, *filter(None, [module])])
            if module.startswith("steps"):
                yield module
                # a name may be a module
                yield from (f"{module}.{alias.name}" for alias in node.names)
