"""A registered model that was renamed without its history."""

from __future__ import annotations

from steps.pipeline.errors import StepError
from steps.registry import journal
from steps.registry.gateway import Gateway


class RenamedModelError(StepError):
    """The history of a registered model stands under the name that the model had before."""


def check(gateway: Gateway, name: str) -> None:
    """Refuse to begin a new history for a registered model that has one under another name.

    MLflow renames one registered model at a time and keeps its creation time, by which the entries know it. A history that belongs to
    no registered model any more, and whose entries are about this one, is what was left behind.

    Raises:
        RenamedModelError: there is such a history; names the call that renames it.
    """
    if gateway.aliases(journal.name_of(name)) is not None or not gateway.versions(name):
        return
    incarnation, aliases = gateway.created_ms(name), gateway.aliases(name)
    known = {*gateway.model_names()}
    for left in _histories(gateway):
        before = left.removesuffix(journal.SUFFIX)
        if before in known:
            continue
        entries = [entry for version in gateway.versions(left) if (entry := journal.entry_of(version))]
        told = any(entry.record.incarnation == str(incarnation) for entry in entries)
        old = not any(entry.record.incarnation for entry in entries)  # written before entries said so
        if told or (old and aliases and journal.fold(entries).aliases == aliases):
            raise RenamedModelError(
                f"models:/{name} was {before!r} before, and its history still is {left!r}; rename that as well: "
                f"`mlflow.MlflowClient().rename_registered_model({left!r}, {journal.name_of(name)!r})`"
            )


def _histories(gateway: Gateway) -> list[str]:
    def call() -> list[str]:
        names: list[str] = []
        token: str | None = None
        while True:
            page = gateway.client.search_registered_models(f"name LIKE '%{journal.SUFFIX}'", max_results=1000, page_token=token)
            names += [each.name for each in page]
            token = page.token
            if not token:
                return names

    return gateway.repeated("listing the histories", call)
