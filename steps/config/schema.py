"""What the schemas say about a key, without composing anything."""

import dataclasses
import types
import typing
from collections.abc import Iterator

from steps.config.root import Config


def keys(node: type = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key below a node, a node before what it holds, in the order of the schemas."""
    for name, kind in typing.get_type_hints(node).items():
        yield prefix + name
        inner = without_none(kind)
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            yield from keys(inner, f"{prefix}{name}.")


def kind_of(key: str) -> object | None:
    """Type of the field at a dotted key, without ``| None``; None where the schemas have none.

    The empty key is the whole config. Keys below a mapping are not fields.
    """
    node: object = Config
    for name in key.split(".") if key else ():
        if not dataclasses.is_dataclass(node):
            return None
        kind = typing.get_type_hints(node).get(name)
        if kind is None:
            return None
        node = without_none(kind)
    return node


def without_none(kind: object) -> object:
    """``X`` of ``X | None``; any other type as it is."""
    if isinstance(kind, types.UnionType):
        return next(one for one in typing.get_args(kind) if one is not types.NoneType)
    return kind


def takes_any_key(key: str) -> bool:
    """Whether the field is a mapping whose keys are the user's own."""
    return typing.get_origin(kind_of(key)) is dict
