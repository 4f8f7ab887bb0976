"""Four eyes: who may approve what, what an approval is bound to, and what waits for it. On SQLite,
with users that a test names.

The same against a real server with users: tests/server/test_approvals.py.
"""

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from steps.core import signatures
from steps.core.errors import ConfigError
from steps.registry import actors, approvals, canary
from steps.registry.actors import Actor
from steps.registry.approve import Said, decide
from steps.registry.client import RegistryClient
from steps.registry.permission import RejectedError, WaitingError
from steps.registry.protection import ProtectedAliasError
from steps.registry.record import as_json
from steps.registry.result import RefusedError
from steps.registry.statements import APPROVE, REJECT, Subject
from tests.core import keys
from tests.registry import commands, scene
from tests.registry.commands import poll_once, promote, rollback
from tests.registry.fixtures import Pair
from tests.registry.scene import aliases

ONE, TARGET = "promotion.approvals=1", f"target=models:/{scene.NAME}/1"
CHAMPION = f"target=models:/{scene.NAME}@champion"
As = Callable[..., None]


@pytest.fixture
def acting(monkeypatch: pytest.MonkeyPatch) -> As:
    """From here on, this user acts; a server has confirmed the name unless
    ``authenticated=False``.
    """

    def act(name: str, *, authenticated: bool = True) -> None:
        monkeypatch.setattr(actors, "who", lambda _: Actor(name, authenticated))

    act("ci")
    return act


@pytest.fixture
def registered(pair: Pair, no_canary: list[str], acting: As) -> Pair:
    """Versions 1 (transformers, challenger) and 2 (onnx, champion), made by ci."""
    commands.register(pair.report_uri, scene.config())
    return pair


def say(decision: str, *overrides: str, target: str = TARGET) -> Said:
    return decide(decision, scene.config(target, "reason='read it'", ONE, *overrides))


def kinds() -> list[str]:
    return [entry.record.kind for entry in scene.history().entries]


def tag(number: int = 1) -> str:
    return str(
        mlflow.MlflowClient().get_model_version(scene.NAME, str(number)).tags.get("slm.approval")
    )


def new_report(pair: Pair) -> None:
    scene.report_by_a_run(
        [
            scene.candidate(pair.transformers, "transformers", scene.GOOD),
            scene.candidate(pair.onnx, "onnx", scene.FAST),
        ]
    )


def test_version_waits_and_moves_once_another_user_approves(registered: Pair, acting: As) -> None:
    acting("alice")
    with pytest.raises(
        WaitingError,
        match=(
            r"0 of 1 approvals for @champion \(nobody\)\. 1 more.*mlflow run \. -e approve"
            r" .*models:/parrot/1"
        ),
    ):
        promote(scene.config(TARGET, ONE, "dry_run=true"))
    assert kinds() == ["register"] and tag() == "None"
    for _ in range(2):  # proposed once, however often it is asked for
        with pytest.raises(WaitingError):
            promote(scene.config(TARGET, ONE))
    assert (
        kinds() == ["register", "waiting"]
        and tag() == "waiting: 0 of 1 approvals for @champion (nobody)"
    )
    assert aliases()["champion"] == 2
    for own in ("alice", "ci"):
        acting(own)
        with pytest.raises(
            RefusedError,
            match=(
                f"{own} made or proposed the version; somebody else must approve it; nothing was"
                " written"
            ),
        ):
            say(APPROVE)
    acting("root", authenticated=False)
    with pytest.raises(
        RefusedError,
        match=(
            r"approve is not for you.*the name root is claimed, no server confirmed it; pass"
            r" signing_key="
        ),
    ):
        say(APPROVE)
    assert RegistryClient(5).versions(approvals.name_of(scene.NAME)) == []
    acting("bob")
    said = say(APPROVE)
    assert (
        "approved for @champion by bob (not signed)" in said.words
        and "mlflow run . -e promote" in said.words
    )
    acting("alice")
    done = promote(scene.config(TARGET, ONE))
    assert (
        aliases()["champion"] == 1 and done.entry == 4 and tag() == "approved for @champion by bob"
    )
    *_, waiting, approved, moved = scene.history().entries
    assert [each.record.kind for each in (waiting, approved, moved)] == [
        "waiting",
        "approve",
        "promote",
    ]
    assert (waiting.record.actor, approved.record.actor, approved.record.reason) == (
        "alice",
        "bob",
        "read it",
    )
    assert moved.record.authenticated and moved.record.details["approvals"][0]["by"] == "bob"


def test_force_and_reason_do_not_overrule_it(registered: Pair, acting: As) -> None:
    with pytest.raises(WaitingError):
        promote(scene.config(TARGET, ONE, "force=true", "reason=hurry"))
    acting("bob")
    say(REJECT)
    with pytest.raises(RejectedError, match="was rejected for @champion by bob: read it"):
        promote(scene.config(TARGET, ONE, "force=true", "reason=hurry"))
    assert aliases()["champion"] == 2


def test_approval_ends_with_other_evidence_and_holds_for_one_alias(
    registered: Pair, acting: As
) -> None:
    acting("bob")
    say(APPROVE)
    acting("alice")
    with pytest.raises(WaitingError):
        promote(scene.config(TARGET, ONE, "alias=champion-edge"))
    new_report(registered)
    with pytest.raises(WaitingError):
        promote(scene.config(TARGET, ONE))
    assert "champion-edge" not in aliases() and aliases()["champion"] == 2
    acting("bob")
    say(APPROVE)
    acting("alice")
    promote(scene.config(TARGET, ONE))
    assert aliases()["champion"] == 1


def test_approval_ends_with_other_bytes() -> None:
    before = Subject("x", 1, "champion", "sha256:a", "sha256:e")
    assert before.same(Subject("x", 7, "champion", "sha256:a", "sha256:e"))
    for other in (
        ("y", "champion", "a", "e"),
        ("x", "champion-edge", "a", "e"),
        ("x", "champion", "b", "e"),
        ("x", "champion", "a", "f"),
    ):
        name, alias, digest, evidence = other
        assert not before.same(Subject(name, 1, alias, f"sha256:{digest}", f"sha256:{evidence}"))


def test_rejection_holds_until_an_approver_approves(registered: Pair, acting: As) -> None:
    """Also where no approvals are asked for."""
    named = ("promotion.approvals=0", "promotion.approvers=[bob,carol]")
    acting("bob")
    said = say(REJECT, *named)
    assert "rejected for @champion by bob" in said.words
    acting("alice")
    with pytest.raises(
        RejectedError,
        match=(
            "New evidence or new bytes end this, no reason overrules it; an approver can change"
            " that"
        ),
    ):
        promote(scene.config(TARGET, *named))
    assert tag() == "rejected for @champion by bob: read it" and kinds() == ["register", "reject"]
    acting("carol")
    say(APPROVE, *named)
    acting("alice")
    promote(scene.config(TARGET, *named))
    assert aliases()["champion"] == 1


def test_nobody_decides_where_the_policy_asks_nobody(
    registered: Pair, acting: As, caplog: pytest.LogCaptureFixture
) -> None:
    """By default every user may create the model of approvals, and then write any name into it."""
    acting("eve")
    with pytest.raises(
        ConfigError,
        match=r"promotion\.approvers=\[\]: expected user names or key files .*nothing was rejected",
    ):
        say(REJECT, "promotion.approvals=0")
    say(REJECT)  # by a policy of her own, or past this project
    acting("alice")
    promote(scene.config(TARGET))
    assert (
        aliases()["champion"] == 1
        and "parrot.approvals: statements 1 about models:/parrot/1 are ignored" in caplog.text
    )


def test_model_of_approvals_is_made_by_the_first_who_promotes_and_a_name_without_a_key_is_claimed(
    registered: Pair, acting: As
) -> None:
    named = ("promotion.approvals=0", "promotion.approvers=[bob]")
    acting("alice")
    promote(scene.config(TARGET, *named, "alias=champion-edge"))
    assert RegistryClient(5).aliases(approvals.name_of(scene.NAME)) == {}
    acting("bob")
    say(REJECT, *named)
    assert [
        entry.record.who for entry in scene.history().entries if entry.record.kind == "reject"
    ] == ["bob (claimed)"]


def test_rejection_ends_with_new_evidence_and_takes_earlier_approvals_with_it(
    registered: Pair, acting: As
) -> None:
    acting("bob")
    say(APPROVE)
    acting("carol")
    say(REJECT)
    acting("bob")
    two = ("promotion.approvals=2",)
    say(APPROVE)
    acting("alice")
    with pytest.raises(WaitingError, match=r"1 of 2 approvals for @champion \(bob\)"):
        promote(scene.config(TARGET, *two))
    acting("carol")
    say(REJECT)
    acting("alice")
    named = "promotion.approvers=[bob,carol]"
    with pytest.raises(RejectedError):
        promote(scene.config(TARGET, named))
    new_report(registered)
    promote(scene.config(TARGET, named))
    assert aliases()["champion"] == 1


def test_only_approvers_that_the_policy_names_count(
    registered: Pair, acting: As, tmp_path: Path
) -> None:
    named, (bob, bob_public) = "promotion.approvers=[carol]", keys.make(tmp_path, "bob")
    _, carol_public = keys.make(tmp_path, "carol", "p256")
    by_key = f"promotion.approvers=['{bob_public}','{carol_public}']"
    acting("mallory")
    with pytest.raises(
        RefusedError, match=r"promotion\.approvers does not name mallory; ask one of them"
    ):
        say(APPROVE, named)
    with pytest.raises(
        RefusedError,
        match=r"it is not signed by a key that promotion\.approvers names; pass signing_key=",
    ):
        say(APPROVE, by_key)
    with pytest.raises(RefusedError, match="it is not signed by a key"):
        say(REJECT, by_key, f"signing_key='{keys.make(tmp_path, 'mallory')[0]}'")
    say(APPROVE)  # by a policy that names nobody; it counts for no other
    acting("alice")
    for policy in (named, by_key):
        with pytest.raises(WaitingError, match=r"0 of 1 .*not counted: statement 1 \("):
            promote(scene.config(TARGET, ONE, policy))
    acting("root", authenticated=False)  # a key proves more than a name
    assert "by bob (signed)" in say(APPROVE, by_key, f"signing_key='{bob}'").words
    say(APPROVE, by_key, f"signing_key='{bob}'")
    acting("alice")
    with pytest.raises(WaitingError, match=r"1 of 2 approvals for @champion \(bob\)"):
        promote(scene.config(TARGET, by_key, "promotion.approvals=2"))
    promote(scene.config(TARGET, ONE, by_key))
    (proof,) = scene.history().entries[-1].record.details["approvals"]
    assert proof["by"] == "bob" and proof["key"].startswith("sha256:") and proof["authenticated"]


def test_forged_and_damaged_statements_decide_nothing(
    registered: Pair, acting: As, tmp_path: Path
) -> None:
    """Whoever may write into the model of approvals, without a key that the policy names."""
    bob, bob_public = keys.make(tmp_path, "bob")
    by_key, signed = f"promotion.approvers=['{bob_public}']", f"signing_key='{bob}'"
    say(REJECT, by_key, signed)
    client, where = mlflow.MlflowClient(), approvals.name_of(scene.NAME)
    real = client.get_model_version(where, "1").tags
    forged = json.loads(real["slm.approval.statement"]) | {
        "decision": "approve",
        "actor": "bob",
        "id": "another",
    }
    other = json.loads(real["slm.approval.statement"])
    other["subject"]["digest"] = "sha256:other"
    for text, signature in (
        (json.dumps(forged), real["slm.approval.signature"]),
        (json.dumps(forged), "AAAA"),
        (json.dumps(other), real["slm.approval.signature"]),
        ("[" * 100_000, ""),
        ("{}", ""),
        ('{"schema": "slm-promote/approval/1"}', ""),
        (json.dumps(forged | {"subject": None}), ""),
        (json.dumps(forged | {"actor": "bob\n12:00:00  promoted"}), real["slm.approval.signature"]),
        (json.dumps(forged | {"authenticated": "yes"}), ""),
    ):
        client.create_model_version(
            where,
            f"models:/{scene.NAME}/1",
            tags={"slm.approval.statement": text, "slm.approval.signature": signature},
        )
    client.create_model_version(where, f"models:/{scene.NAME}/1")
    acting("alice")
    with pytest.raises(RejectedError):
        promote(scene.config(TARGET, ONE, by_key))
    acting("bob")
    say(APPROVE, by_key, signed)
    # the rejection once more, as somebody may copy it
    client.create_model_version(where, f"models:/{scene.NAME}/1", tags=real)
    acting("alice")
    promote(scene.config(TARGET, ONE, by_key))
    assert aliases()["champion"] == 1


def test_repeated_approval_does_not_overturn_a_later_rejection(
    registered: Pair, acting: As, tmp_path: Path
) -> None:
    """Who may edit the model of approvals takes statements away and writes the older one anew, with
    the signature of another.
    """
    (omar, omar_public), (rosa, rosa_public) = (
        keys.make(tmp_path, "omar"),
        keys.make(tmp_path, "rosa"),
    )
    by_key = f"promotion.approvers=['{omar_public}','{rosa_public}']"
    acting("omar")
    say(APPROVE, by_key, f"signing_key='{omar}'")
    acting("rosa")
    say(REJECT, by_key, f"signing_key='{rosa}'")
    acting("alice")
    client, where = mlflow.MlflowClient(), approvals.name_of(scene.NAME)
    old = client.get_model_version(where, "1")
    client.set_model_version_tag(where, "1", "slm.approval.statement", "-")
    client.create_model_version(where, f"models:/{scene.NAME}/1", tags=old.tags)
    with pytest.raises(RejectedError):
        promote(scene.config(TARGET, ONE, by_key))
    client.delete_model_version(where, "2")  # the history has a copy
    with pytest.raises(RejectedError, match="by rosa"):
        promote(scene.config(TARGET, ONE, by_key))
    client.delete_registered_model(where)
    client.create_registered_model(where)
    with pytest.raises(RejectedError, match="by rosa"):
        promote(scene.config(TARGET, ONE, by_key))
    acting("omar")
    say(APPROVE, by_key, f"signing_key='{omar}'")
    acting("alice")
    promote(scene.config(TARGET, ONE, by_key))
    assert aliases()["champion"] == 1


def test_person_with_a_name_and_a_key_counts_once(
    registered: Pair, acting: As, tmp_path: Path
) -> None:
    laptop, public = keys.make(tmp_path, "laptop")
    two = ("promotion.approvals=2", f"promotion.approvers=[rosa,'{public}']")
    acting("rosa")
    say(APPROVE, *two)
    said = say(APPROVE, *two, f"signing_key='{laptop}'")
    assert "1 of 2 approvals are still missing" in said.words
    acting("alice")
    with pytest.raises(WaitingError, match="1 of 2 approvals"):
        promote(scene.config(TARGET, *two))


def test_rejection_is_not_evaded_by_an_older_report(registered: Pair, acting: As) -> None:
    named = "promotion.approvers=[rosa]"
    new_report(registered)
    acting("rosa")
    say(REJECT, named)
    acting("alice")
    older = f"report_uri={registered.report_uri}"
    with pytest.raises(RejectedError, match="by rosa"):
        promote(scene.config(TARGET, named, older))
    acting("rosa")
    say(APPROVE, named)  # on the newer report, which takes the rejection back
    acting("alice")
    promote(scene.config(TARGET, named, older))
    assert aliases()["champion"] == 1


def test_rejection_stays_when_the_model_is_renamed(registered: Pair, acting: As) -> None:
    named = "promotion.approvers=[rosa]"
    acting("rosa")
    say(REJECT, named)
    client = mlflow.MlflowClient()
    for suffix in ("", ".history", ".approvals"):
        client.rename_registered_model(scene.NAME + suffix, "polly" + suffix)
    acting("alice")
    polly = scene.config("target=models:/polly/1", "promotion.approvers=[rosa]")
    with pytest.raises(RejectedError, match="by rosa"):
        promote(polly)


def test_registration_leaves_the_champion_where_it_waits(
    pair: Pair, no_canary: list[str], acting: As
) -> None:
    planned = commands.register(pair.report_uri, scene.config(ONE), dry_run=True)
    assert "waits for approval, no alias was moved" in planned.reason
    done = commands.register(pair.report_uri, scene.config(ONE))
    assert aliases() == {"transformers": 1, "onnx": 2} and commands.champion_of(done) is None
    assert (
        "models:/parrot/2 waits for approval" in done.reason
        and "mlflow run . -e approve" in done.reason
    )
    assert kinds() == ["waiting", "register"] and tag(2).startswith("waiting: 0 of 1")
    acting("bob")
    say(APPROVE, target=f"target=models:/{scene.NAME}/2")
    acting("ci")
    commands.register(pair.report_uri, scene.config(ONE))
    assert aliases()["champion"] == 2
    rows = scene.history().entries
    assert rows[-1].record.details["approvals"][0]["by"] == "bob"


def test_watch_waits_respects_a_rejection_and_looks_again_after_each_statement(
    registered: Pair, acting: As
) -> None:
    mlflow.MlflowClient().set_registered_model_alias(scene.NAME, "candidate", "1")

    def look() -> list[str]:
        policy = scene.config(ONE, "promotion=quality")
        return [verdict.words for verdict in poll_once(policy, RegistryClient(5), lambda *_: None)]

    acting("watcher")
    assert [words.partition(":")[0] for words in look()] == ["waiting for approval"]
    assert look() == []
    acting("bob")
    say(REJECT)
    acting("watcher")
    assert ["rejected for @champion by bob" in words for words in look()] == [True]
    assert look() == []
    acting("bob")
    say(APPROVE)
    acting("watcher")
    assert [words.partition(",")[0] for words in look()] == ["promoted to @champion"]
    assert aliases()["champion"] == 1 and look() == []


def test_approver_decides_on_the_report_that_the_version_was_proposed_with(
    tracking: str, tmp_path: Path, no_canary: list[str], acting: As
) -> None:
    """`watch` evaluates in its own experiment; the approver's run is in another one, where neither
    looks for the other's reports.
    """
    client = mlflow.MlflowClient()
    places = {
        name: mlflow.create_experiment(name, artifact_location=(tmp_path / name).as_uri())
        for name in ("watch", "mine")
    }
    with mlflow.start_run():
        made = scene.log_model("transformers")
    client.create_registered_model(scene.NAME)
    client.create_model_version(scene.NAME, f"models:/{made}", model_id=made)
    client.set_registered_model_alias(scene.NAME, "candidate", "1")

    def evaluate(*_: object) -> None:
        scene.report_by_a_run([scene.candidate(made, "transformers", scene.GOOD)])

    def look() -> list[str]:
        acting("watcher")
        mlflow.set_experiment(experiment_id=places["watch"])
        words = [
            verdict.words for verdict in poll_once(scene.config(ONE), RegistryClient(5), evaluate)
        ]
        acting("rosa")
        mlflow.set_experiment(experiment_id=places["mine"])
        return words

    assert "waiting for approval" in look()[0]
    say(REJECT)
    assert "rejected for @champion by rosa" in look()[0]
    assert "approved for @champion by rosa" in say(APPROVE).words
    assert "promoted to @champion" in look()[0]


def test_statement_about_no_evidence_is_refused_where_a_version_waits_on_some(
    registered: Pair, acting: As
) -> None:
    with mlflow.start_run() as run:
        uri = scene.log_report(
            [scene.candidate(registered.transformers, "transformers", scene.GOOD)]
        )
    client = mlflow.MlflowClient()
    for number in ("1", "2"):
        client.delete_model_version_tag(scene.NAME, number, "slm.evaluation")
    acting("alice")
    with pytest.raises(WaitingError):
        promote(scene.config(TARGET, ONE))
    client.log_text(run.info.run_id, "{}", "report.json")
    for run_id in (run.info.run_id, registered.report_uri.split("/")[1]):
        client.delete_run(run_id)
    acting("bob")
    with pytest.raises(
        RefusedError,
        match=rf"was proposed with {uri}, which does not count now \(.*nothing was written",
    ):
        say(REJECT)


def test_rejection_during_the_canary_is_heeded(
    registered: Pair, acting: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting("bob")
    say(APPROVE)
    acting("alice")

    def run(uri: str, digest: str | None, _: object) -> canary.Canary:
        acting("bob")
        say(REJECT)
        return canary.Canary(uri, digest or "", True, (), 0, 0.0, "none")

    monkeypatch.setattr(canary, "run", run)
    with pytest.raises(RejectedError):
        promote(scene.config(TARGET, ONE))
    assert aliases()["champion"] == 2


def test_what_does_not_pass_cannot_be_approved_by_accident(registered: Pair, acting: As) -> None:
    uri = scene.report_by_a_run(
        [scene.candidate(registered.transformers, "transformers", scene.GOOD, decision="hold")]
    )
    acting("bob")
    with pytest.raises(
        RefusedError,
        match=(
            r"does not pass, so there is nothing to approve yet: its verdict is 'hold'.*force=true"
        ),
    ):
        say(APPROVE, f"report_uri={uri}")
    with pytest.raises(ConfigError, match=r"reason=None: expected why you approve it"):
        decide(APPROVE, scene.config(TARGET))
    with pytest.raises(
        ConfigError,
        match=(
            r"promotion\.approvers='none\.pem': expected a PEM file with an EC P-256 or Ed25519"
            r" public key"
        ),
    ):
        promote(
            scene.config(
                TARGET, ONE, f"report_uri={registered.report_uri}", "promotion.approvers=[none.pem]"
            )
        )
    with pytest.raises(
        ConfigError, match=r"expected a version to reject; pass target=models:/parrot/<version>"
    ):
        say(REJECT, target=f"target=models:/{scene.NAME}")
    assert RegistryClient(5).versions(approvals.name_of(scene.NAME)) == []
    assert (
        "would be approved" in say(APPROVE, f"report_uri={uri}", "force=true", "dry_run=true").words
    )
    assert RegistryClient(5).versions(approvals.name_of(scene.NAME)) == []


def test_protected_alias_moves_for_its_users_alone(registered: Pair, acting: As) -> None:
    protected = "+promotion.protected.champion=[alice]"
    for name, authenticated, words in (
        (
            "mallory",
            True,
            (
                r"@champion may be moved by alice alone .*server says that you are mallory.*No"
                r" reason overrules"
            ),
        ),
        ("alice", False, r"alice \(claimed\) is a name that no server confirmed"),
    ):
        acting(name, authenticated=authenticated)
        with pytest.raises(ProtectedAliasError, match=words):
            promote(scene.config(TARGET, protected, "force=true", "reason=hurry"))
    acting("mallory")
    promote(scene.config(TARGET, protected, "alias=champion-edge"))
    acting("alice")
    promote(scene.config(TARGET, protected))
    acting("mallory")
    with pytest.raises(ProtectedAliasError):
        rollback(scene.config(f"target=models:/{scene.NAME}@champion", protected))
    assert aliases()["champion"] == 1
    acting("alice")
    # nobody must wait for the way back
    rollback(scene.config(f"target=models:/{scene.NAME}@champion", protected, ONE))
    assert aliases()["champion"] == 2


def test_registration_by_others_leaves_a_protected_alias(
    pair: Pair, no_canary: list[str], acting: As
) -> None:
    done = commands.register(pair.report_uri, scene.config("+promotion.protected.champion=[alice]"))
    assert aliases() == {"transformers": 1, "onnx": 2}
    assert "@champion may be moved by alice alone" in done.reason and tag(2) == "None"
    assert mlflow.MlflowClient().get_model_version(scene.NAME, "2").tags["slm.made_by"] == "ci"
    done = commands.register(pair.report_uri, scene.config("+promotion.protected.onnx=[alice]"))
    assert aliases()["champion"] == 2 and done.entry == 2


@pytest.mark.parametrize("way", ["rollback", "observed", "promote"])
def test_approval_ends_where_the_alias_was_moved_back_from_the_version(
    registered: Pair, acting: As, way: str
) -> None:
    acting("bob")
    say(APPROVE)
    acting("alice")
    promote(scene.config(TARGET, ONE))
    if way == "rollback":
        rollback(scene.config(CHAMPION, ONE, "reason='it invents prices'"))
    elif way == "observed":
        mlflow.MlflowClient().set_registered_model_alias(scene.NAME, "champion", "2")
    else:
        promote(scene.config(f"target=models:/{scene.NAME}/2"))
    with pytest.raises(
        WaitingError,
        match=r"0 of 1 .*statement 1 by bob \(given before entry \d+ moved @champion back from it",
    ):
        promote(scene.config(TARGET, ONE))
    assert aliases()["champion"] == 2
    acting("bob")
    assert "to move it" in say(APPROVE).words
    acting("alice")
    promote(scene.config(TARGET, ONE))
    assert aliases()["champion"] == 1


def test_approval_from_before_a_rollback_is_not_renewed_by_writing_it_again(
    registered: Pair, acting: As, tmp_path: Path
) -> None:
    """It was not in the history when the alias was moved back; whoever may edit the model of
    approvals keeps it until then. Its text has the time at which it was signed.
    """
    private, public = keys.make(tmp_path, "bob")
    by_key = f"promotion.approvers=['{public}']"
    acting("alice")
    promote(scene.config(TARGET))
    text, days_ago = "slm.approval.statement", "2020-01-01T00:00:00.000+00:00"
    acting("bob")
    say(APPROVE, by_key, f"signing_key='{private}'")
    client, where = mlflow.MlflowClient(), approvals.name_of(scene.NAME)
    kept = json.loads(client.get_model_version(where, "1").tags[text]) | {"created": days_ago}
    client.delete_registered_model(where)
    acting("alice")
    rollback(scene.config(CHAMPION))
    client.create_registered_model(where)
    signed = as_json(kept)
    signature = signatures.sign(signed.encode(), str(private)).decode()
    tagged = {text: signed, "slm.approval.signature": signature}
    client.create_model_version(where, f"models:/{scene.NAME}/1", tags=tagged)
    with pytest.raises(WaitingError, match="given before entry"):
        promote(scene.config(TARGET, ONE, by_key))
    assert aliases()["champion"] == 2


def test_approval_stays_where_another_version_followed_or_another_alias_was_moved_back(
    registered: Pair, acting: As
) -> None:
    edge = "alias=champion-edge"
    acting("alice")
    promote(scene.config(TARGET, edge))
    acting("bob")
    say(APPROVE)
    acting("alice")
    promote(scene.config(f"target=models:/{scene.NAME}/2", edge))
    rollback(scene.config(f"target=models:/{scene.NAME}@champion-edge"))
    promote(scene.config(TARGET, ONE))
    assert aliases()["champion"] == 1


@pytest.mark.parametrize("named", [False, True])
def test_rollback_to_a_version_that_was_rejected_meanwhile_is_refused(
    registered: Pair, acting: As, named: bool
) -> None:
    acting("alice")
    promote(scene.config(TARGET))
    acting("bob")
    say(REJECT, target=f"target=models:/{scene.NAME}/2")
    acting("alice")
    to = ("to=2",) if named else ()
    for words in (to, (*to, "dry_run=true")):
        with pytest.raises(
            RefusedError,
            match=(
                r"parrot/2 is not moved back to @champion: it was rejected for @champion by bob:"
                r" read it; .*No other had it, or overrule the rejection: force=true reason="
            ),
        ):
            rollback(scene.config(CHAMPION, ONE, *words))
    with pytest.raises(ConfigError, match="reason=None"):
        rollback(scene.config(CHAMPION, ONE, *to, "force=true"))
    assert aliases()["champion"] == 1 and kinds()[-1] == "reject"
    done = rollback(scene.config(CHAMPION, ONE, *to, "force=true", "reason='1 is worse'"))
    entry = scene.history().entries[-1].record
    assert done.forced and entry.forced and aliases()["champion"] == 2
    assert entry.details["objections"] == ["it was rejected for @champion by bob: read it"]
    assert entry.reason == "1 is worse"


def test_rollback_passes_over_what_was_rejected_and_minds_newer_evidence_and_approvals(
    registered: Pair, acting: As
) -> None:
    mlflow.MlflowClient().copy_model_version(f"models:/{scene.NAME}/1", scene.NAME)
    second = f"target=models:/{scene.NAME}/2"
    acting("alice")
    promote(scene.config(TARGET))
    promote(scene.config(second))
    promote(scene.config(f"target=models:/{scene.NAME}/3"))
    acting("bob")
    say(REJECT, target=second)
    acting("alice")
    with pytest.raises(RefusedError, match=r"Return to another that had it, to=… of \[1\], or"):
        rollback(scene.config(CHAMPION, ONE))
    rollback(scene.config(CHAMPION, ONE, "alias=champion", "dry_run=true", "to=1"))
    rollback(scene.config(CHAMPION, "dry_run=true"))  # the policy asks nobody
    acting("bob")
    say(APPROVE, target=second)
    acting("alice")
    rollback(scene.config(CHAMPION, ONE, "dry_run=true"))
    acting("bob")
    say(REJECT, target=second)
    new_report(registered)
    acting("alice")
    with pytest.raises(RefusedError):  # the version is not known by it yet
        rollback(scene.config(CHAMPION, ONE))
    promote(scene.config(second, "alias=champion-edge"))
    rollback(scene.config(CHAMPION, ONE))
    assert aliases()["champion"] == 2


def test_protected_alias_that_is_misspelt_is_refused_and_one_to_come_is_warned_of(
    registered: Pair, acting: As, caplog: pytest.LogCaptureFixture
) -> None:
    for alias, meant in (("champoin", "champion"), ("previos", "previous"), ("onx", "onnx")):
        wrong = f"+promotion.protected.{alias}=[rosa]"
        words = rf"promotion\.protected='{alias}': expected one of .*; did you mean {meant}\?"
        with pytest.raises(ConfigError, match=words):
            promote(scene.config(TARGET, wrong))
        with pytest.raises(ConfigError, match=words):
            rollback(scene.config(CHAMPION, wrong, "to=2"))
        with pytest.raises(ConfigError, match=words):
            commands.register(registered.report_uri, scene.config(wrong))
    assert aliases()["champion"] == 2 and kinds() == ["register"]
    for alias in ("champion-edge", "canary"):
        promote(scene.config(TARGET, f"+promotion.protected.{alias}=[rosa]", "dry_run=true"))
        assert f"promotion.protected='{alias}': no such alias yet" in caplog.text
    both = "+promotion.protected={champion: [alice], champion2: [alice]}"
    acting("alice")
    promote(scene.config(TARGET, both))
    assert aliases()["champion"] == 1 and "did you mean champion?" in caplog.text


def test_approval_of_what_passed_says_nothing_about_overruling_the_policy(
    registered: Pair, acting: As
) -> None:
    stricter = "promotion.max_evidence_age_days=0.000001"
    acting("bob")
    say(APPROVE)
    acting("alice")
    force = (ONE, stricter, "force=true", "reason=hurry")
    with pytest.raises(
        WaitingError,
        match=r"statement 1 \(it approves a version that passed, and it does not pass now\)",
    ):
        promote(scene.config(TARGET, *force))
    acting("bob")
    say(APPROVE, stricter, "force=true")
    acting("alice")
    assert promote(scene.config(TARGET, *force)).forced
