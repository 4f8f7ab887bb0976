"""What one look at a served version found: plain data, one JSON file, checked against a published
schema (``monitor.schema.json`` beside this file).
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from steps.config.monitor import FIGURES
from steps.monitoring.drift import DRIFTED, NOT_MEASURED, TOO_FEW, UNDECIDED, WITHIN
from steps.monitoring.figures import Figure
from steps.monitoring.recorded import Recorded

SCHEMA = "slm-promote/monitor/1"
SCHEMA_FILE = Path(__file__).with_name("monitor.schema.json")
ARTIFACT, PAGE = "monitor.json", "monitor.md"
TOO_LITTLE = "too_little"


@dataclass(frozen=True)
class EvidenceUsed:
    """The report that the live figures are held against."""

    uri: str
    digest: str
    created: str  # ISO 8601
    items: int  # of the pack
    processor: str


@dataclass(frozen=True)
class Consequences:
    """What followed of it.

    Attributes:
        out: figures that are out of their bands by now, also by an earlier look.
        new: figures that were not out before.
        back: figures that are back in their bands.
        tag: of the version; None where it was left as it was.
        notified: whether a notification was sent, where an address is configured.
        rollback: what became of the alias, in words; empty where no rollback was asked for.
        entry: of the history, where the alias was moved.
    """

    out: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    back: tuple[str, ...] = ()
    tag: str | None = None
    notified: bool = False
    rollback: str = ""
    entry: int | None = None


@dataclass(frozen=True)
class Monitoring:
    """One look at a version."""

    name: str
    version: int
    alias: str | None
    model_id: str | None
    digest: str
    created: str  # ISO 8601, UTC: when the period ended
    since: str  # when it began
    requests: int  # sampled requests that were read
    experiment: str  # of the traces
    processors: tuple[str, ...]  # of the machines that answered
    evidence: EvidenceUsed
    figures: tuple[Figure, ...]
    recorded: Recorded
    confidence: float  # of all intervals together
    notes: tuple[str, ...] = ()
    dry_run: bool = False
    consequences: Consequences = field(default_factory=Consequences)
    schema: str = SCHEMA

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"

    @property
    def drifted(self) -> tuple[Figure, ...]:
        """Figures that have left their bands."""
        return tuple(figure for figure in self.figures if figure.state == DRIFTED)

    @property
    def state(self) -> str:
        """``drifted``, ``within``, ``undecided``, or ``too_little`` to say anything."""
        states = {figure.state for figure in self.figures}
        for state in (DRIFTED, UNDECIDED, WITHIN):
            if state in states:
                return state
        return TOO_LITTLE

    @property
    def metrics(self) -> dict[str, float]:
        """For the run, and for the logged model."""
        measured = {
            "monitor/requests": float(self.requests),
            "monitor/drifted": float(len(self.drifted)),
        }
        for figure in self.figures:
            for suffix, value in (
                ("", figure.tested),
                ("_low", figure.low),
                ("_high", figure.high),
                ("_live", figure.live if figure.kind == "ratio" else None),
            ):
                if value is not None:
                    measured[f"monitor/{figure.name}{suffix}"] = float(value)
        return measured

    def to_json(self) -> dict[str, Any]:
        """As ``monitor.json`` holds it, checked against the published schema.

        Raises:
            jsonschema.ValidationError: it does not hold what the schema promises.
        """
        import jsonschema

        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        document = {**plain, "state": self.state}
        schema = json.loads(SCHEMA_FILE.read_text("utf-8"))
        jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
        return document

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        part = path.with_name(path.name + ".part")
        part.write_text(text, "utf-8")
        part.replace(path)


def schema() -> dict[str, Any]:
    """The schema of what is written, made from the dataclasses; ``monitor.schema.json`` is it."""
    from pydantic import TypeAdapter

    made = TypeAdapter(Monitoring).json_schema()
    made["properties"]["schema"] = {"const": SCHEMA}
    made["properties"]["state"] = {"enum": [DRIFTED, UNDECIDED, WITHIN, TOO_LITTLE]}
    figure = made["$defs"]["Figure"]["properties"]
    figure["state"] = {"enum": [DRIFTED, UNDECIDED, WITHIN, TOO_FEW, NOT_MEASURED]}
    figure["name"] = {"enum": list(FIGURES)}
    made["required"] = [*made["required"], "schema", "state"]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA,
        "title": "Monitoring of a served version of slm-promote",
    }
    return {**made, **head}
