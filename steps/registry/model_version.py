"""Versions of registered models, as this room reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steps.core import tags
from steps.core.model_uri import parse


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    number: int
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    source: str
    run_id: str | None
    description: str
    created_ms: int  # milliseconds since 1970, by the server's clock
    status: str = "READY"  # or PENDING_REGISTRATION, FAILED_REGISTRATION
    status_message: str = ""
    updated_ms: int = 0  # when somebody described it or changed its stage last; 0 is not known

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.number}"

    @property
    def model_id(self) -> str | None:
        """Id of the logged model it points at; SQL stores keep it in the source only."""
        if tagged := self.tags.get(tags.MODEL_ID):
            return tagged
        uri = parse(self.source)
        return uri.model_id if uri else None


def version_of(entity: Any) -> Version:
    """A version as this room knows it, of MLflow's entity."""
    return Version(
        name=entity.name,
        number=int(entity.version),
        tags=dict(entity.tags),
        aliases=tuple(sorted(entity.aliases)),
        source=entity.source or "",
        run_id=entity.run_id or None,
        description=entity.description or "",
        created_ms=int(entity.creation_timestamp),
        status=str(entity.status or "READY"),
        status_message=entity.status_message or "",
        updated_ms=int(entity.last_updated_timestamp or 0),
    )
