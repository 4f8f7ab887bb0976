"""Versions in the Model Registry: one for each logged model, whatever happens."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steps.pipeline.errors import StepError
from steps.registry import card
from steps.registry.aliases import (
    DIGEST_TAG,
    EVALUATION_TAG,
    EVIDENCE_TAG,
    FINGERPRINT_TAG,
    LICENCE_TAG,
    MODEL_ID_TAG,
    REVISION_TAG,
    VARIANT_TAG,
    VERDICT_TAG,
)
from steps.registry.evidence import Evidence, Judged
from steps.registry.gateway import Gateway, Version

CARRIED = (FINGERPRINT_TAG, REVISION_TAG, LICENCE_TAG)  # taken over from the logged model

MAKES_THE_MODEL = ("model=", "model.", "onnx=", "onnx.", "generation.")  # overrides that a logged model depends on


@dataclass(frozen=True)
class Registered:
    """A version and whether this run made it."""

    version: Version
    created: bool
    changed: tuple[str, ...]  # tags that this run wrote on a version that was there


def tags_of(judged: Judged, evidence: Evidence, logged: Mapping[str, str]) -> dict[str, str]:
    """Tags that a version gets from its logged model and its evidence."""
    carried = {key: logged[key] for key in CARRIED if logged.get(key)}
    return {
        **carried,
        VARIANT_TAG: judged.variant,
        DIGEST_TAG: judged.digest,
        MODEL_ID_TAG: judged.model_id,
        EVALUATION_TAG: evidence.uri,
        EVIDENCE_TAG: evidence.digest,
        VERDICT_TAG: judged.decision,
    }


def find(gateway: Gateway, name: str, model_id: str) -> Version | None:
    """The version of a logged model: the lowest number, should two registrations have raced."""
    return next((each for each in gateway.versions(name) if each.model_id == model_id), None)


def without_twins(known: Sequence[Version]) -> list[Version]:
    """Versions without the younger twins of a logged model: a race made them and whoever made them is about to delete them.

    Args:
        known: in the order of their numbers.
    """
    first: dict[str, Version] = {}
    for each in known:
        first.setdefault(each.model_id or f"version {each.number}", each)
    return list(first.values())


def remake(run_tags: Mapping[str, str]) -> str | None:
    """The command that makes a logged model again, from the tags of the run that logged it: what chose the model and its build, no more."""
    command, overrides = run_tags.get("slm.command"), run_tags.get("slm.overrides")
    if not command or overrides is None:
        return None
    words = shlex.split(command)
    if "-e" in words:  # the whole chain, not the one step
        at = words.index("-e")
        del words[at : at + 2]
    if "-P" in words:
        words = words[: words.index("-P")]
    chosen = [word for word in shlex.split(overrides) if word.lstrip("+~").startswith(MAKES_THE_MODEL)]
    return shlex.join([*words, *(["-P", f"overrides={shlex.join(chosen)}"] if chosen else [])])


def register(gateway: Gateway, name: str, judged: Judged, evidence: Evidence, command: str) -> Registered:
    """Make sure that a logged model has exactly one version, with this evidence on it.

    The database numbers versions but does not keep a logged model from getting two, so after creating one this looks again: the lowest
    number stays, and a younger twin, which no alias has ever pointed at, is deleted. Every run does the same, so that one killed in
    between is cleaned up by the next.

    Raises:
        StepError: the logged model is gone, or it is not the one that was judged.
    """
    logged = gateway.logged_model(judged.model_id)
    if logged is None:
        raise StepError(f"{judged.uri}: the logged model is not on this tracking server; evaluate one that is: `mlflow run . -e evaluate`")
    recorded = logged.tags.get(DIGEST_TAG)
    if recorded and recorded != judged.digest:
        raise StepError(
            f"{judged.uri}: the report judged {judged.digest}, the logged model says {recorded}; evaluate it again: "
            "`mlflow run . -e evaluate`"
        )
    tags = tags_of(judged, evidence, logged.tags)
    command = remake((gateway.run_tags(logged.source_run_id) if logged.source_run_id else None) or {}) or command
    found = find(gateway, name, judged.model_id)
    created = found is None
    if found is None:
        made = gateway.create_version(
            name,
            f"models:/{judged.model_id}",
            tags,
            card.render(name, "…", judged, evidence, logged.tags, command),
            landed=lambda version: version.model_id == judged.model_id,
            model_id=judged.model_id,
        )
        found = _one_of_twins(gateway, name, judged.model_id) or made
        created = found.number == made.number
    else:
        found = _one_of_twins(gateway, name, judged.model_id) or found
    changed = tuple(key for key, value in tags.items() if found.tags.get(key) != value)
    for key in changed:
        gateway.set_version_tag(name, found.number, key, tags[key])
    text = card.render(name, found.number, judged, evidence, logged.tags, command)
    if found.description != text:
        gateway.describe(name, found.number, text)
    return Registered(found, created, changed)


def _one_of_twins(gateway: Gateway, name: str, model_id: str) -> Version | None:
    twins = [each for each in gateway.versions(name) if each.model_id == model_id]
    for twin in twins[1:]:
        if not twin.aliases:
            gateway.delete_version(name, twin.number)
    return twins[0] if twins else None
