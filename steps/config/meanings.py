"""What a config field means, in the words that stand beside it in the schemas."""

import ast
import inspect
import textwrap
from functools import cache

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
    return comments(owner).get(name, "") if isinstance(owner, type) else ""


@cache
def comments(schema: type) -> dict[str, str]:
    """Field to the comment at the end of its line, or else the lines of comment right above it."""
    source = textwrap.dedent(inspect.getsource(schema))
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for statement in definition.body:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        assert statement.end_lineno is not None
        behind = lines[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode()
        said = [behind.strip()] if behind.strip() else []
        at = statement.lineno - 2
        while not behind.strip() and lines[at].lstrip().startswith("#"):
            said.insert(0, lines[at].strip())
            at -= 1
        found[statement.target.id] = " ".join(line.lstrip("# ") for line in said)
    return found
