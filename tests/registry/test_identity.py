"""Numbers that are used again, renamed models, rewritten history, a candidate that was withdrawn:
on SQLite.
"""

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)

import hashlib
import json
import time
from dataclasses import replace

import mlflow
import pytest

from steps.core.errors import StepError
from steps.registry import canary
from steps.registry.alias_store import AliasStore
from steps.registry.client import RegistryClient
from steps.registry.entry import RECORD_TAG, Entry
from steps.registry.journal import fold
from steps.registry.record import Move, Record
from steps.registry.result import RefusedError
from steps.registry.table import show_history
from tests.registry import commands, scene
from tests.registry.commands import promote, rollback
from tests.registry.doubles import no_evaluation
from tests.registry.fixtures import Pair
from tests.registry.scene import aliases, numbers

HISTORY = f"{scene.NAME}.history"
CHAMPION = f"target=models:/{scene.NAME}@champion"


def store(name: str = scene.NAME) -> AliasStore:
    return AliasStore(RegistryClient(5), name)


def rewrite(number: int, **changed: object) -> None:
    """Change an entry, as anybody with EDIT on the history can."""
    client = mlflow.MlflowClient()
    record = json.loads(client.get_model_version(HISTORY, str(number)).tags[RECORD_TAG])
    client.set_model_version_tag(HISTORY, str(number), RECORD_TAG, json.dumps(record | changed))


def make_anew(pair: Pair) -> None:
    """Delete the registered model and register others under its name."""
    mlflow.MlflowClient().delete_registered_model(scene.NAME)
    time.sleep(0.002)  # its creation time is in milliseconds
    with mlflow.start_run():
        newer = scene.log_model("onnx", name="newer")
        uri = scene.log_report(
            [
                scene.candidate(newer, "onnx", scene.FAST),
                scene.candidate(pair.transformers, "transformers", scene.GOOD),
            ]
        )
    commands.register(uri, scene.config())


# --- numbers


def test_model_made_anew_is_registered_at_the_first(registered: Pair) -> None:
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    make_anew(registered)
    assert aliases() == {"onnx": 1, "transformers": 2, "champion": 1, "challenger": 2}
    journal = scene.history()
    assert [entry.earlier for entry in journal.entries] == [True, True, False]
    assert journal.held("champion") == [1] and journal.served() == {1, 2}


def test_rollback_knows_nothing_of_an_earlier_incarnation(registered: Pair) -> None:
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    make_anew(registered)
    with pytest.raises(
        RefusedError,
        match=(
            r"only one @champion so far, version 1.*entries 1, 2 .* earlier registered model of"
            r" this name"
        ),
    ):
        rollback(scene.config(CHAMPION))
    with pytest.raises(RefusedError, match=r"version 2 never held this alias; these did: \[1\]"):
        rollback(scene.config(CHAMPION, "to=2"))


def test_entries_of_earlier_days_are_told_by_the_servers_clock(registered: Pair) -> None:
    client = mlflow.MlflowClient()
    record = json.loads(client.get_model_version(HISTORY, "1").tags[RECORD_TAG])
    for key in ("incarnation", "identities", "previous", "authenticated"):
        record.pop(key)
    client.set_model_version_tag(HISTORY, "1", RECORD_TAG, json.dumps(record))
    assert scene.history().held("champion") == [2]
    make_anew(registered)
    assert scene.history().held("champion") == [1]


def test_model_whose_versions_were_all_deleted_is_registered_at_the_first(registered: Pair) -> None:
    for number in (1, 2):
        mlflow.MlflowClient().delete_model_version(scene.NAME, str(number))
    commands.register(registered.report_uri, scene.config())
    assert numbers() == [3, 4] and aliases()["champion"] == 4
    with pytest.raises(StepError, match="no such version; there are: 3, 4"):
        rollback(scene.config(CHAMPION, "to=2"))


def test_entry_names_what_it_moved_by_logged_model_and_bytes(registered: Pair) -> None:
    (entry,) = scene.history().entries
    logged = mlflow.MlflowClient().get_logged_model(registered.onnx)
    assert entry.record.identities["2"] == {
        "model_id": registered.onnx,
        "digest": logged.tags["slm.digest"],
    }
    assert entry.record.incarnation == str(
        mlflow.MlflowClient().get_registered_model(scene.NAME).creation_timestamp
    )


def test_version_that_is_not_the_one_that_served_is_refused(registered: Pair) -> None:
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    with mlflow.start_run():
        other = scene.log_model("onnx", name="other")
    client = mlflow.MlflowClient()
    tags = {"slm.model_id": other, "slm.digest": client.get_logged_model(other).tags["slm.digest"]}
    for key, value in tags.items():
        client.set_model_version_tag(scene.NAME, "2", key, value)
    with pytest.raises(
        RefusedError,
        match=rf"version 2 is {other}, entry 1 has it as {registered.onnx} \(of 'parrot.history'\)",
    ):
        rollback(scene.config(CHAMPION, "to=2"))
    with pytest.raises(RefusedError, match=rf"version 2 is {other}, entry 1 has it as"):
        promote(scene.config(f"target=models:/{scene.NAME}/2", "force=true", "reason=hurry"))


def test_renamed_model_says_how_to_rename_its_history(registered: Pair) -> None:
    client = mlflow.MlflowClient()
    client.rename_registered_model(scene.NAME, "cockatoo")
    for call in (
        lambda: promote(scene.config("target=models:/cockatoo/1")),
        lambda: promote(scene.config("target=models:/cockatoo/1", "dry_run=true")),
        lambda: rollback(scene.config("target=models:/cockatoo@champion")),
        lambda: show_history(scene.config("target=models:/cockatoo"), as_json=True),
    ):
        with pytest.raises(
            StepError, match=r"rename_registered_model\('parrot.history', 'cockatoo.history'\)"
        ):
            call()
    client.rename_registered_model(HISTORY, "cockatoo.history")
    promote(scene.config("target=models:/cockatoo/1"))
    assert client.get_registered_model("cockatoo").aliases["champion"] == 1
    assert store("cockatoo").read().held("champion") == [2, 1]


def test_name_of_a_history_is_no_name_of_a_model(tracking: str) -> None:
    for suffix in (".history", ".approvals"):
        with pytest.raises(StepError, match=f"'parrot{suffix}'.*kept"):
            AliasStore(RegistryClient(5), f"parrot{suffix}")


# --- the chain


def three_entries() -> None:
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    promote(scene.config(f"target=models:/{scene.NAME}/2"))


def test_each_entry_holds_the_digest_of_the_one_before(registered: Pair) -> None:
    three_entries()
    entries = scene.history().entries
    assert entries[0].record.previous == {}
    assert [entry.record.previous for entry in entries[1:]] == [
        {"1": entries[0].digest},
        {"2": entries[1].digest},
    ]
    assert scene.history().faults == {}


def test_rewritten_entry_is_shown_as_altered(
    registered: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    three_entries()
    rewrite(2, actor="somebody else", reason="as agreed")
    found = show_history(scene.config(f"target=models:/{scene.NAME}"), as_json=False)
    assert "entry 2 was altered" in capsys.readouterr().out
    assert [entry["altered"] for entry in found["entries"]] == [False, True, False]
    assert "altered" in found["faults"]["2"]


def test_rewritten_entry_puts_nothing_into_service(registered: Pair) -> None:
    with mlflow.start_run():
        third = scene.log_model("onnx", name="third")
    mlflow.MlflowClient().create_model_version(scene.NAME, f"models:/{third}", model_id=third)
    three_entries()
    rewrite(2, moves=[["champion", 2, 3], ["previous", None, 2], ["challenger", 1, 2]])
    with pytest.raises(RefusedError, match="version 3 never held this alias"):
        rollback(scene.config(CHAMPION, "to=3"))


def test_removed_entry_is_shown_as_removed(
    registered: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    three_entries()
    mlflow.MlflowClient().delete_model_version(HISTORY, "2")
    found = show_history(scene.config(f"target=models:/{scene.NAME}"), as_json=False)
    assert "entry 2 was removed" in capsys.readouterr().out
    assert "removed" in found["faults"]["2"]


def test_entries_that_raced_are_all_covered_by_the_next(registered: Pair) -> None:
    late = store()
    seen = late.open()
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    record = Record(
        id="late", kind="promote", moves=(), actor="late", reason="test", previous=seen.tips()
    )
    late.append(record)
    promote(scene.config(f"target=models:/{scene.NAME}/2"))
    entries = scene.history().entries
    assert entries[2].record.previous == {"1": entries[0].digest}
    assert entries[3].record.previous == {"2": entries[1].digest, "3": entries[2].digest}


def test_many_entries_without_a_chain_are_covered_by_one_digest(registered: Pair) -> None:
    log = store()
    for number in range(12):
        log.append(
            Record(
                id=f"old-{number}", kind="observed", moves=(), actor="x", reason="of earlier days"
            )
        )
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    assert list(scene.history().entries[-1].record.previous) == ["1-13"]
    assert scene.history().faults == {}
    rewrite(5, actor="mallory")
    assert set(scene.history().faults) == {14} and "1-13" in scene.history().faults[14]


def test_entry_that_names_others_wrongly_puts_them_not_in_doubt(registered: Pair) -> None:
    three_entries()
    wrong = {str(number): f"sha256:{'0' * 64}" for number in (1, 2, 3, 5)}
    store().append(
        Record(
            id="framing", kind="observed", moves=(), actor="x", reason="of another", previous=wrong
        )
    )
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    found = scene.history()
    # no entry has named the third before: see security.md
    assert [entry.number for entry in found.entries if entry.altered] == [3, 4]
    assert "names entries 5, which are not before it" in found.faults[4]


def test_damaged_record_names_the_entry_and_the_cure(registered: Pair) -> None:
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    plain = {"id": "x", "kind": "k", "moves": [], "actor": "a", "reason": "r"}
    wrong = (
        {"moves": [["champion"]]},
        {"actor": 7},
        {"identities": {"1": "m-1"}},
        {"previous": {"1": 5}},
    )
    for broken in (
        "{",
        "[]",
        "7",
        '{"id": "x"}',
        "[" * 50_000,
        *(json.dumps(plain | each) for each in wrong),
    ):
        mlflow.MlflowClient().set_model_version_tag(HISTORY, "1", RECORD_TAG, broken)
        with pytest.raises(
            StepError,
            match=r"entry 1 of 'parrot.history' .*delete_model_version\('parrot.history', '1'\)",
        ):
            promote(scene.config(f"target=models:/{scene.NAME}/2"))
    mlflow.MlflowClient().delete_model_version(HISTORY, "1")
    promote(scene.config(f"target=models:/{scene.NAME}/2"))
    assert aliases()["champion"] == 2


def test_chain_that_names_too_much_is_no_burden(registered: Pair) -> None:
    store().append(
        Record(
            id="x",
            kind="observed",
            moves=(),
            actor="x",
            reason="x",
            previous={"1-999999999": "sha256:0", "9" * 6000: "a", "a-b": "c"},
        )
    )
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    assert 2 in scene.history().faults


def test_fields_that_this_version_does_not_know_are_passed_over(registered: Pair) -> None:
    rewrite(
        1,
        colour="green",
        moves=[
            ["champion", None, 2],
            ["challenger", None, 1],
            ["onnx", None, 2],
            ["transformers", None, 1],
        ],
    )
    assert scene.history().held("champion") == [2]


# --- words


def test_first_rollback_says_that_there_is_one_champion(registered: Pair) -> None:
    with pytest.raises(
        RefusedError,
        match=r"only one @champion so far, version 2, so there is nothing to return to$",
    ):
        rollback(scene.config(CHAMPION))


def test_candidate_is_not_out_of_line(registered: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    mlflow.MlflowClient().set_registered_model_alias(scene.NAME, "candidate", "1")
    show_history(scene.config(f"target=models:/{scene.NAME}"), as_json=False)
    assert "not in line" not in capsys.readouterr().out


# --- withdrawn


def meanwhile(monkeypatch: pytest.MonkeyPatch, *, to: int | None) -> None:
    """Somebody moves the candidate, or withdraws it, while a version is looked at."""

    def run(uri: str, digest: str | None, _: object) -> canary.Canary:
        if to is None:
            mlflow.MlflowClient().delete_registered_model_alias(scene.NAME, "candidate")
        else:
            mlflow.MlflowClient().set_registered_model_alias(scene.NAME, "candidate", str(to))
        return canary.Canary(uri, digest or "", True, (), 0, 0.0, "none")

    monkeypatch.setattr(canary, "run", run)


@pytest.mark.parametrize(("to", "words"), [(None, "was withdrawn"), (2, "points at version 2 now")])
def test_candidate_that_is_gone_is_not_promoted(
    registered: Pair, monkeypatch: pytest.MonkeyPatch, to: int | None, words: str
) -> None:
    from steps.registry.result import WithdrawnError

    mlflow.MlflowClient().set_registered_model_alias(scene.NAME, "candidate", "1")
    meanwhile(monkeypatch, to=to)
    with pytest.raises(WithdrawnError, match=rf"@candidate {words}.*nothing was changed"):
        promote(scene.config(f"target=models:/{scene.NAME}@candidate"))
    assert aliases()["champion"] == 2 and numbers(HISTORY) == [1]


def test_watch_promotes_no_candidate_that_was_withdrawn(
    pair: Pair, no_canary: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # version 1 serves by quality, 2 would by balance
    commands.register(pair.report_uri, scene.config("promotion=quality"))
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(scene.NAME, "candidate", "2")
    with monkeypatch.context() as patch:
        meanwhile(patch, to=None)
        (verdict,) = commands.poll_once(scene.config(), RegistryClient(5), no_evaluation)
    assert not verdict.promoted and "was withdrawn" in verdict.words
    assert aliases()["champion"] == 1
    assert "slm.candidate" not in client.get_model_version(scene.NAME, "2").tags
    client.set_registered_model_alias(scene.NAME, "candidate", "2")
    (verdict,) = commands.poll_once(scene.config(), RegistryClient(5), no_evaluation)
    assert verdict.promoted and aliases()["champion"] == 2


def test_entry_that_somebody_marks_as_lost_is_shown() -> None:
    entries: list[Entry] = []
    for number, (before, after) in enumerate([(None, 1), (1, 2), (2, 3)], start=1):
        previous = {str(number - 1): entries[-1].digest} if entries else {}
        record = Record(
            f"r{number}",
            "promote",
            (Move("champion", before, after),),
            "rosa",
            "as agreed",
            previous=previous,
        )
        digest = "sha256:" + hashlib.sha256(record.to_json().encode()).hexdigest()
        entries.append(Entry(number, record, number, "true", digest=digest))
    assert fold(entries).faults == {}
    entries[1] = replace(entries[1], settled="lost")
    assert fold(entries).faults == {2: "entry 2 is marked as lost, though entry 3 went on from it"}


def test_entry_that_lost_a_race_is_not_a_fault() -> None:
    moves = [(None, 1, "true"), (1, 2, "true"), (1, 3, "lost"), (1, 2, "lost"), (2, 4, "true")]
    entries = [
        Entry(
            number,
            Record(f"r{number}", "promote", (Move("champion", before, after),), "rosa", ""),
            number,
            settled,
        )
        for number, (before, after, settled) in enumerate(moves, start=1)
    ]
    journal = fold(entries)
    assert journal.faults == {} and journal.aliases == {"champion": 4}
