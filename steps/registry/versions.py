"""Versions in the Model Registry: one for each logged model, whatever happens."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mlflow.entities import LoggedModel
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from steps.core import tags
from steps.core.commands import mlflow_run
from steps.core.errors import StepError
from steps.core.model_uri import parse
from steps.core.redaction import redact
from steps.evaluation.report import CandidateReport
from steps.registry import actors, card
from steps.registry.client import PermissionRefusedError, RegistryClient
from steps.registry.evidence import Evidence
from steps.registry.model_version import Version

log = logging.getLogger(__name__)

# taken over from the logged model
CARRIED = (tags.LICENCE, tags.SNAPSHOT_REVISION, tags.SNAPSHOT_DIGEST, tags.FINGERPRINT)

# tags that a version has when `register` has just made it; `import` adds those of its archive
MADE_WITH = frozenset(
    {
        *CARRIED,
        *(tags.VARIANT, tags.DIGEST, tags.MODEL_ID, tags.EVALUATION, tags.EVIDENCE_DIGEST),
        *(tags.VERDICT, tags.MADE_BY),
    }
)

# overrides that a logged model depends on
NAMES_THE_MODEL = ("model=", "model.repo=", "model.path=", "model.registered_name=")
MAKES_THE_MODEL = ("model=", "model.", "onnx=", "onnx.", "generation.")


@dataclass(frozen=True)
class Registered:
    """A version and whether this run made it."""

    version: Version
    created: bool
    changed: tuple[str, ...]  # tags that this run wrote on a version that was there


def tags_of(
    candidate: CandidateReport, evidence: Evidence, logged: Mapping[str, str]
) -> dict[str, str]:
    """Tags that a version gets from its logged model and its evidence, in the order in which
    MLflow's list of versions shows them: what people look for first, digests last.
    """
    carried = {key: logged[key] for key in CARRIED if logged.get(key)}
    return {
        tags.VERDICT: candidate.verdict.decision,
        tags.VARIANT: candidate.variant,
        tags.EVALUATION: evidence.uri,
        tags.MODEL_ID: candidate.model_id,
        **carried,
        tags.DIGEST: candidate.digest,
        tags.EVIDENCE_DIGEST: evidence.digest,
    }


def without_twins(known: Sequence[Version], served: Collection[int] = ()) -> list[Version]:
    """Versions without the younger twins of a logged model: a race made them and whoever made them
    is about to delete them.

    Args:
        known: in the order of their numbers.
        served: versions that an alias points at, or did: those must not be deleted.
    """
    first: dict[str, int] = {}
    for version in known:
        first.setdefault(version.model_id or f"version {version.number}", version.number)
    return [
        version
        for version in known
        if version.number in first.values() or _kept(version, served, MADE_WITH)
    ]


def _kept(twin: Version, served: Collection[int], written: Collection[str]) -> str:
    """Why a younger version of a logged model is left, in words; empty where it is nothing but what
    a racing or a killed run of this project made.

    Args:
        twin: the younger version.
        served: versions that an alias points at, or did.
        written: keys of the tags that this project makes a version with.
    """
    uri = parse(twin.source)
    if uri is None or uri.model_id is None:
        return f"somebody copied it from {redact(twin.source)}"
    if twin.number in served:
        return "an alias points at it, or did"
    if tags.MADE_BY not in twin.tags:
        return "no run of this project made it"
    if others := sorted({*twin.tags} - {*written}):
        return f"it was given the tag {others[0]!r}"
    if twin.updated_ms not in (0, twin.created_ms):
        return "its description or its stage was changed"
    return ""


def remake(run_tags: Mapping[str, str]) -> str | None:
    """The command that makes a logged model again, from the tags of the run that logged it."""
    command, overrides = run_tags.get(tags.COMMAND), run_tags.get(tags.OVERRIDES)
    if not command or overrides is None:
        return None
    words = shlex.split(command)
    # the whole chain, not the one step: what stands between `mlflow run` and the first option
    project = words[2 : min(words.index(end) for end in ("-e", "--env-manager") if end in words)]
    chosen = [
        word for word in shlex.split(overrides) if word.lstrip("+~").startswith(MAKES_THE_MODEL)
    ]
    return mlflow_run(overrides=chosen, project=project)


def command(overrides: Sequence[str]) -> str:
    """What makes the model again, where the run that logged it does not say."""
    return mlflow_run(overrides=[word for word in overrides if word.startswith(NAMES_THE_MODEL)])


def register(
    registry: RegistryClient,
    name: str,
    candidate: CandidateReport,
    evidence: Evidence,
    command: str,
    served: Collection[int] = (),
) -> Registered:
    """Make sure that a logged model has exactly one version, with this evidence on it.

    The database numbers versions but does not keep a logged model from getting two, so after
    creating one this looks again: the lowest number stays, and a younger twin that another run of
    this project made is deleted, unless an alias points at it or ever did, or somebody has put
    anything on it. Every run does the same, so that one killed in between is cleaned up by the
    next. What a person made, such as a copy of a version, stays.

    Args:
        registry: the calls to the tracking server.
        name: registered model.
        candidate: what the report says of the logged model.
        evidence: the report.
        command: what makes the model again, where its run does not say.
        served: versions that an alias ever pointed at, by the journal.

    Raises:
        StepError: the logged model is gone, or it is not the one that was evaluated.
    """
    logged = _checked(registry, candidate)
    command = remake(registry.tags_of_maker(logged)) or command
    version, created = ensure(
        registry,
        name,
        candidate.model_id,
        tags_of(candidate, evidence, logged.tags),
        card.render(name, "…", candidate, evidence, logged.tags, command),
        served,
    )
    return Registered(version, created, annotate(registry, version, candidate, evidence, command))


def annotate(
    registry: RegistryClient,
    version: Version,
    candidate: CandidateReport,
    evidence: Evidence,
    command: str,
) -> tuple[str, ...]:
    """Write the evidence on a version that is there: its tags and its card. Other versions of the
    same logged model are not looked at.

    Returns:
        The tags that changed.

    Raises:
        StepError: the logged model is gone, or it is not the one that was evaluated.
    """
    logged = _checked(registry, candidate)
    link(registry, version, logged)
    version_tags = tags_of(candidate, evidence, logged.tags)
    changed = tuple(key for key, value in version_tags.items() if version.tags.get(key) != value)
    for key in changed:
        registry.set_version_tag(version.name, version.number, key, version_tags[key])
    text = card.render(
        version.name,
        version.number,
        candidate,
        evidence,
        logged.tags,
        remake(registry.tags_of_maker(logged)) or command,
    )
    if version.description != text:
        registry.describe(version.name, version.number, text)
    return changed


def link(registry: RegistryClient, version: Version, logged: LoggedModel) -> None:
    """Name a version on its logged model, whose page says "Not registered" otherwise; a server does
    so by itself.
    """
    entry = {"name": version.name, "version": str(version.number)}
    known = _linked(logged)
    if entry in known:
        return
    value = json.dumps([*known, entry])
    try:
        registry.repeated(
            f"linking {version.uri} to {logged.model_id}",
            lambda: registry.client.set_logged_model_tags(
                logged.model_id, {MLFLOW_MODEL_VERSIONS: value}
            ),
        )
    except PermissionRefusedError as error:  # of the experiment: the version is there all the same
        log.debug("%s", error)


def _linked(logged: LoggedModel) -> list[dict[str, str]]:
    """Versions that a logged model names; none where somebody has written something else there."""
    try:
        known = json.loads(logged.tags.get(MLFLOW_MODEL_VERSIONS) or "[]")
        return [{"name": one["name"], "version": str(one["version"])} for one in known]
    except (ValueError, TypeError, KeyError):
        return []


def ensure(
    registry: RegistryClient,
    name: str,
    model_id: str,
    version_tags: Mapping[str, str],
    text: str,
    served: Collection[int] = (),
) -> tuple[Version, bool]:
    """The one version of a logged model, and whether it was made here; as :func:`register`."""
    made: Version | None = None
    if not any(one.model_id == model_id for one in registry.versions(name)):
        version_tags = {**version_tags, tags.MADE_BY: actors.who(registry).shown}
        made = registry.create_version(
            name,
            f"models:/{model_id}",
            version_tags,
            text,
            landed=lambda version: version.model_id == model_id,
            model_id=model_id,
        )
    twins = [version for version in registry.versions(name) if version.model_id == model_id]
    if not twins:
        raise StepError(
            f"models:/{name}: the version of {model_id} was deleted in this moment; run this again"
        )
    first, *younger = twins
    if younger:
        # a search of versions does not say which have an alias
        spared = {*served, *(registry.aliases(name) or {}).values()}
        written = {*MADE_WITH, *version_tags}
        for twin in younger:
            same = f"{twin.uri} is of the same logged model as version {first.number}"
            if why := _kept(twin, spared, written):
                log.info("%s, and is left: %s", same, why)
            else:
                registry.delete_version(name, twin.number)
                log.warning("%s, as two runs registered it at once; deleted", same)
    return first, made is not None and made.number == first.number


def _checked(registry: RegistryClient, candidate: CandidateReport) -> LoggedModel:
    logged = registry.logged_model(candidate.model_id)
    if logged is None:
        raise StepError(
            f"{candidate.uri}: the logged model is not on this tracking server; evaluate one that"
            " is: `mlflow run . -e evaluate --env-manager local`"
        )
    recorded = logged.tags.get(tags.DIGEST)
    if recorded and recorded != candidate.digest:
        raise StepError(
            f"{candidate.uri}: the report judged {candidate.digest}, the logged model says"
            f" {recorded}; evaluate it again: `mlflow run . -e evaluate --env-manager local`"
        )
    return logged
