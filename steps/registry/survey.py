"""The whole registry in a few calls: what `watch` needs to know that there is nothing to do.

One search gives all registered models with their aliases, one all versions with their tags, the
journals' among them, and one the evaluations that ended lately; each in pages. Only a model of
which this says that something changed is looked at closely.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steps.config import names
from steps.core import digest, search, tags
from steps.core.search import every_page
from steps.registry import journal
from steps.registry.aliases import CANDIDATE
from steps.registry.client import RegistryClient
from steps.registry.entry import Entry, entry_of
from steps.registry.journal import KIND_TAG
from steps.registry.model_version import Version, version_of

# MLflow's servers give no more of the first at once
MODELS_A_PAGE, VERSIONS_A_PAGE, RUNS_A_PAGE = 1000, 10_000, 500
MARGIN_MS = 3_600_000  # clocks of evaluating machines may differ from this one's by an hour


@dataclass(frozen=True)
class Facts:
    """One registered model, as a survey found it."""

    name: str
    aliases: Mapping[str, int]
    tags: Mapping[str, str]
    versions: tuple[Version, ...]  # in the order of their numbers
    # of the journal's registered model; None where there is none
    history: tuple[Version, ...] | None
    approvals: tuple[Version, ...]
    # by the server's clock, milliseconds since 1970: which model of this name it is
    created_ms: int | None = None
    # URIs of evaluations that ended lately, to when (milliseconds since 1970)
    reports: Mapping[str, int] = field(default_factory=dict)

    @property
    def candidate(self) -> Version | None:
        """The version that somebody set as ``candidate``."""
        number = self.aliases.get(CANDIDATE)
        return next((version for version in self.versions if version.number == number), None)

    @property
    def state(self) -> str:
        """Digest of all that is known of it: the same for as long as nothing about it changes."""
        listed = [
            [_plain(version) for version in part or ()]
            for part in (self.versions, self.history, self.approvals)
        ]
        return digest.of_value(
            [dict(self.aliases), dict(self.tags), self.history is None, *listed, dict(self.reports)]
        )

    def entries(self) -> list[Entry]:
        """The journal's entries.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: one is damaged.
        """
        entries = [entry_of(version) for version in self.history or ()]
        return [entry for entry in entries if entry is not None]

    def is_settled(self) -> bool:
        """Whether the aliases are what the journal says and no entry waits to be finished; also
        where there is no journal.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: an entry is damaged.
        """
        if self.history is None:
            return True
        state = journal.fold(self.entries(), self.created_ms)
        if {alias: number for alias, number in self.aliases.items() if alias != CANDIDATE} != dict(
            state.aliases
        ):
            return False
        return not state.unfinished()


def take(registry: RegistryClient, only: str | None = None) -> list[Facts]:
    """All registered models but the companions of others, by name; without their evaluations.

    Args:
        registry: the tracking server.
        only: the one model that is wanted.
    """
    client = registry.client
    models = registry.repeated(
        "listing the registered models",
        lambda: _all(only, client.search_registered_models, MODELS_A_PAGE),
    )
    listed = registry.repeated(
        "listing the versions", lambda: _all(only, client.search_model_versions, VERSIONS_A_PAGE)
    )
    versions: dict[str, list[Version]] = {}
    for version in sorted(map(version_of, listed), key=lambda version: version.number):
        versions.setdefault(version.name, []).append(version)
    known = {model.name for model in models}
    surveyed: list[Facts] = []
    for model in sorted(models, key=lambda model: model.name):
        name = model.name
        if KIND_TAG in model.tags or names.reserved(name):
            continue
        history = name + names.HISTORY_SUFFIX
        surveyed.append(
            Facts(
                name,
                {alias: int(number) for alias, number in model.aliases.items()},
                dict(model.tags),
                tuple(versions.get(name, ())),
                tuple(versions.get(history, ())) if history in known else None,
                tuple(versions.get(name + names.APPROVALS_SUFFIX, ())),
                int(model.creation_timestamp),
            )
        )
    return surveyed


def evaluations(
    registry: RegistryClient, since_ms: int, only: str | None = None
) -> dict[str, dict[str, int]]:
    """Reports of evaluations that finished at or after a moment.

    Args:
        registry: the tracking server.
        since_ms: milliseconds since 1970.
        only: the one registered model that is wanted.

    Returns:
        Registered model to report URI to the evaluation's end, in milliseconds since 1970.
    """
    words = (
        f"attributes.status = 'FINISHED' AND tags.`{tags.STEP}` = 'evaluate' AND"
        f" attributes.end_time >= {max(0, since_ms)}"
    )
    if only is not None:
        words += f" AND {search.equals(f'tags.`{tags.MODEL}`', only)}"

    def call() -> dict[str, dict[str, int]]:
        client = registry.client
        experiments = [
            experiment.experiment_id
            for experiment in every_page(
                lambda token: client.search_experiments(max_results=1000, page_token=token)
            )
        ]
        reports: dict[str, dict[str, int]] = {}
        for run in every_page(
            lambda token: client.search_runs(
                experiments, words, max_results=RUNS_A_PAGE, page_token=token
            )
        ):
            name, uri = run.data.tags.get(tags.MODEL), run.data.tags.get(tags.OUTPUT)
            if name and uri:
                reports.setdefault(name, {})[uri] = int(run.info.end_time or 0)
        return reports

    return registry.repeated("looking for evaluations", call)


def _all(only: str | None, find: Callable[..., Any], page_size: int) -> list[Any]:
    """All that a search finds of a model and its companions, or of everything: MLflow's filters
    have no `or`.
    """
    suffixes = ("", *names.COMPANIONS)
    filters = [search.equals("name", only + suffix) for suffix in suffixes] if only else [None]
    return [
        entity
        for words in filters
        for entity in every_page(
            lambda token, words=words: find(words, page_size, page_token=token)
        )
    ]


def _plain(version: Version) -> Sequence[Any]:
    return [version.number, dict(version.tags), version.source, version.status, version.created_ms]
