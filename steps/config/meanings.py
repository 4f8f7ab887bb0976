"""What a config field means, in the words that stand beside it in the schemas."""

import ast
import inspect
import io
import tokenize
from functools import cache
from typing import Any

from steps.config import schema


def meaning_of(key: str) -> str:
    """The comment at a field: that on its line, else that right above; of a node the first line of
    its docstring. Empty where there is none.
    """
    kind = schema.kind_of(key)
    if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
        return (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")
    above, _, name = key.rpartition(".")
    owner = schema.kind_of(above)
    return _comments(owner).get(name, "") if isinstance(owner, type) else ""


@cache
def _comments(owner: type) -> dict[str, str]:
    """Comment by field of a dataclass."""
    source = inspect.getsource(owner)
    comments: dict[int, tuple[str, bool]] = {}  # line: text, whether it stands alone there
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            comments[token.start[0]] = token.string.lstrip("# "), alone
    (tree,) = ast.parse(source).body
    found: dict[str, str] = {}
    for statement in getattr(tree, "body", []):
        target: Any = getattr(statement, "target", None)
        if not isinstance(statement, ast.AnnAssign) or not isinstance(target, ast.Name):
            continue
        beside = comments.get(statement.end_lineno or statement.lineno)
        lines: list[str] = []
        at = statement.lineno - 1
        while at in comments and comments[at][1]:
            lines.insert(0, comments[at][0])
            at -= 1
        found[target.id] = beside[0] if beside else " ".join(lines)
    return found
