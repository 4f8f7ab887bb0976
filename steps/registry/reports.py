"""Runs of finished evaluations, and their reports."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import mlflow
from mlflow.entities import Run

from steps.core import search, tags
from steps.core.artifact_places import Places
from steps.core.errors import StepError
from steps.core.search import every_page
from steps.registry import evidence as evidence_module
from steps.registry.client import PermissionRefusedError, RegistryClient, ServerUnavailableError
from steps.registry.evidence import REPORT_FILE, Evidence

REPORTS_READ = 20  # newest finished evaluations of a model that are read to find the strongest
RUNS_A_PAGE = 500  # of other experiments, where a signed report counts
SEEN_READ = 256  # reports kept in memory, so that `watch` does not fetch them at each look


def uri_of(run: Run) -> str:
    """URI of a run's own report."""
    return f"runs:/{run.info.run_id}/{REPORT_FILE}"


def finished(
    registry: RegistryClient, name: str, trusted: Collection[str], *, every: bool
) -> tuple[list[Run], list[Run]]:
    """Runs of finished evaluations of a registered model that left a report of their own, newest
    first: those that count, and all others.

    Args:
        registry: the tracking server.
        name: registered model.
        trusted: ids of the experiments that count.
        every: whether all others are wanted, since one of them may be signed, or only the newest,
            to name them.
    """
    words = (
        f"attributes.status = 'FINISHED' AND tags.`{tags.STEP}` = 'evaluate' AND"
        f" {search.equals(f'tags.`{tags.MODEL}`', name)}"
    )
    client, newest_first = registry.client, ["attributes.start_time DESC"]

    def page(places: list[str], size: int, token: str | None = None) -> Any:
        return client.search_runs(
            places, words, order_by=newest_first, max_results=size, page_token=token
        )

    def call() -> tuple[list[Run], list[Run]]:
        known = [
            experiment.experiment_id
            for experiment in every_page(
                lambda token: client.search_experiments(max_results=1000, page_token=token)
            )
        ]
        others = [place for place in known if place not in trusted]
        inside = page([*trusted], REPORTS_READ) if trusted else []
        outside: list[Run] = []
        if others:
            outside = (
                every_page(lambda token: page(others, RUNS_A_PAGE, token))
                if every
                else page(others, REPORTS_READ)
            )
        return _with_report(inside), _with_report(outside)

    return registry.repeated(f"looking for evaluations of {name!r}", call)


def read(registry: RegistryClient, run: Run, places: Places) -> Evidence | None:
    """The report of a run; None where it was removed, is of another schema or cannot be read."""
    try:
        key = _Key(mlflow.get_tracking_uri(), run.info.run_id, run.info.end_time, run)
        return _seen(key, registry, places)
    except ServerUnavailableError:
        raise
    except StepError:
        return None


def experiment_name(registry: RegistryClient, experiment_id: str) -> str:
    """Name of an experiment; its id where this user may not read it."""
    try:
        return str(
            registry.repeated(
                "reading the experiment", lambda: registry.client.get_experiment(experiment_id)
            ).name
        )
    except PermissionRefusedError:
        return experiment_id


@dataclass(frozen=True)
class _Key:
    server: str
    run_id: str
    ended: int | None
    run: Run = field(compare=False)


@lru_cache(maxsize=SEEN_READ)
def _seen(key: _Key, registry: RegistryClient, places: Places) -> Evidence:
    return evidence_module.of_run(key.run, registry, places)


def _with_report(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.data.tags.get(tags.OUTPUT) == uri_of(run)]
