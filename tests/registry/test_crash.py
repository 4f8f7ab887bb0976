"""Killed at any point between two calls to the server, and with any one answer lost: the next run
finishes, and nothing is there twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import mlflow
import pytest

from steps.registry.alias_store import AliasStore
from steps.registry.client import RegistryClient
from tests.registry import commands, scene
from tests.registry.commands import promote, rollback
from tests.registry.faults import FaultyClient, KilledError

MOST_CALLS = 80  # more than any of the moves makes


@dataclass(frozen=True)
class Stage:
    """Two logged models; each attempt gets a registered model of its own."""

    transformers: str
    onnx: str

    def report(self, name: str) -> str:
        return scene.report_by_a_run(
            [
                scene.candidate(self.transformers, "transformers", scene.GOOD),
                scene.candidate(self.onnx, "onnx", scene.FAST),
            ],
            name=name,
        )


@pytest.fixture
def stage(tracking: str, no_canary: list[str]) -> Iterator[Stage]:  # noqa: ARG001
    with mlflow.start_run():
        slow, fast = scene.log_model("transformers"), scene.log_model("onnx")
    yield Stage(slow, fast)


def state(name: str) -> dict[str, int]:
    return RegistryClient(5).aliases(name) or {}


def check_history(name: str) -> None:
    """No hole, no entry twice, aliases as the journal says, and every previous champion was one."""
    journal = scene.history(name)
    assert journal.holes == ()
    assert [entry.number for entry in journal.entries] == list(range(1, len(journal.entries) + 1))
    ids = [entry.record.id for entry in journal.entries if entry.holds]
    assert len(ids) == len(set(ids))
    assert dict(journal.aliases) == state(name)
    if "previous" in journal.aliases:
        assert journal.aliases["previous"] in journal.held("champion")


def check_versions(name: str) -> None:
    versions = RegistryClient(5).versions(name)
    ids = [version.model_id for version in versions]
    assert len(ids) == len(set(ids)) == 2, f"registered twice: {ids}"


def test_register_killed_before_each_call(stage: Stage) -> None:
    for at in range(1, MOST_CALLS):
        name = f"register-{at}"
        uri = stage.report(name)
        registry = FaultyClient(at)
        try:
            commands.register(uri, scene.config(), registry=registry)
        except KilledError:
            commands.register(uri, scene.config())
        check_versions(name)
        check_history(name)
        assert state(name) == {"transformers": 1, "onnx": 2, "champion": 2, "challenger": 1}
        assert len(scene.history(name).entries) == 1
        if registry.calls < at:
            break
    else:
        pytest.fail("register makes more calls than this test injects faults")
    assert at > 15


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["lost", "refused"])
def test_register_with_each_answer_lost(stage: Stage, fault: str) -> None:
    for at in range(1, MOST_CALLS):
        name = f"register-{fault}-{at}"
        registry = FaultyClient(at, fault)
        commands.register(stage.report(name), scene.config(), registry=registry)
        check_versions(name)
        check_history(name)
        assert state(name) == {"transformers": 1, "onnx": 2, "champion": 2, "challenger": 1}
        if registry.calls < at:
            break
    else:
        pytest.fail("register makes more calls than this test injects faults")


@pytest.mark.parametrize("move", ["promote", pytest.param("rollback", marks=pytest.mark.slow)])
def test_move_killed_before_each_call(stage: Stage, move: str) -> None:
    wanted = {"promote": (1, 2), "rollback": (2, 1)}[move]
    for at in range(1, MOST_CALLS):
        name = f"{move}-{at}"
        commands.register(stage.report(name), scene.config())
        if move == "rollback":
            promote(scene.config(f"target=models:/{name}/1"))
        before = state(name)
        entries = len(scene.history(name).entries)
        registry = FaultyClient(at)
        call, target = (
            (promote, f"target=models:/{name}/1")
            if move == "promote"
            else (rollback, f"target=models:/{name}@champion")
        )
        killed = False
        try:
            call(scene.config(target), registry=registry)
        except KilledError:
            killed = True
        if killed:
            AliasStore(RegistryClient(5), name).open()  # what every next run does first
            check_history(name)
            done = len(scene.history(name).entries) > entries
            # finished, or never begun
            assert state(name)["champion"] == (wanted[0] if done else before["champion"])
            if not done:
                call(scene.config(target))
        check_history(name)
        assert (state(name)["champion"], state(name)["previous"]) == wanted
        assert len(scene.history(name).entries) == entries + 1
        if not killed:
            break
    else:
        pytest.fail(f"{move} makes more calls than this test injects faults")


def test_writer_that_wakes_up_late_is_put_right(stage: Stage) -> None:
    """A process stands still before it sets the alias; another promotes meanwhile; the first one's
    write lands last, and then it dies.
    """
    name = "late"
    commands.register(stage.report(name), scene.config())
    sleeper = FaultyClient()
    writes = _calls_until("setting 'late'@champion", name, stage)
    sleeper.at = writes
    with pytest.raises(KilledError):
        promote(scene.config(f"target=models:/{name}/1"), registry=sleeper)
    promote(scene.config(f"target=models:/{name}/2"))
    assert state(name)["champion"] == 2
    # the write that was under way
    mlflow.MlflowClient().set_registered_model_alias(name, "champion", "1")
    AliasStore(RegistryClient(5), name).open()
    assert state(name)["champion"] == 2
    check_history(name)
    kinds = [entry.record.kind for entry in scene.history(name).entries]
    assert kinds == ["register", "promote", "promote"]


def test_finisher_that_wakes_up_late_is_put_right(stage: Stage) -> None:
    """A run finishes another's move, stands still before it sets the alias, and dies after a newer
    move has settled.
    """
    name = "finisher"
    commands.register(stage.report(name), scene.config())
    with pytest.raises(KilledError):
        promote(
            scene.config(f"target=models:/{name}/1"),
            registry=FaultyClient(_calls_until("setting 'finisher'@champion", name, stage)),
        )
    probe = FaultyClient()
    other = f"{name}-probe"
    commands.register(stage.report(other), scene.config())
    with pytest.raises(KilledError):
        promote(
            scene.config(f"target=models:/{other}/1"),
            registry=FaultyClient(_calls_until(f"setting '{other}'@champion", other, stage)),
        )
    AliasStore(probe, other).open()
    at = probe.made.index(next(made for made in probe.made if made.startswith("setting"))) + 1
    with pytest.raises(KilledError):
        AliasStore(FaultyClient(at), name).open()
    # its own writer came back meanwhile, and was done
    RegistryClient(5).set_version_tag(f"{name}.history", 2, "slm.settled", "true")
    RegistryClient(5).set_alias(name, "champion", 1)
    RegistryClient(5).set_alias(name, "previous", 2)
    RegistryClient(5).set_alias(name, "challenger", 2)
    promote(scene.config(f"target=models:/{name}/2"))
    mlflow.MlflowClient().set_registered_model_alias(name, "champion", "1")  # the finisher's write
    AliasStore(RegistryClient(5), name).open()
    assert state(name)["champion"] == 2
    assert [entry.record.kind for entry in scene.history(name).entries] == [
        "register",
        "promote",
        "promote",
    ]
    check_history(name)


def test_move_past_the_project_is_noted(stage: Stage) -> None:
    name = "by-hand"
    commands.register(stage.report(name), scene.config())
    mlflow.MlflowClient().set_registered_model_alias(name, "champion", "1")
    mlflow.MlflowClient().delete_registered_model_alias(name, "challenger")
    done = promote(scene.config(f"target=models:/{name}/2"))
    assert done.entry == 3
    noted = scene.history(name).entries[1].record
    assert noted.kind == "observed" and {
        (move.alias, move.before, move.after) for move in noted.moves
    } == {("champion", 2, 1), ("challenger", 1, None)}
    assert state(name)["previous"] == 1
    check_history(name)


def test_deleted_entry_is_seen_and_does_not_stop_the_next(stage: Stage) -> None:
    name = "hole"
    commands.register(stage.report(name), scene.config())
    promote(scene.config(f"target=models:/{name}/1"))
    mlflow.MlflowClient().delete_model_version(f"{name}.history", "2")
    promote(scene.config(f"target=models:/{name}/2"))
    journal = scene.history(name)
    assert journal.holes == (2,)
    assert state(name)["champion"] == 2 and dict(journal.aliases) == state(name)


def _calls_until(what: str, name: str, stage: Stage) -> int:
    """Number of the call that does ``what``, found on a model of its own."""
    other = f"{name}-count"
    commands.register(stage.report(other), scene.config())
    registry = FaultyClient()
    promote(scene.config(f"target=models:/{other}/1"), registry=registry)
    return (
        registry.made.index(
            next(made for made in registry.made if made.startswith(what.replace(name, other)))
        )
        + 1
    )


def test_deleted_champion_is_noted_and_replaced(stage: Stage) -> None:
    name = "deleted"
    commands.register(stage.report(name), scene.config())
    mlflow.MlflowClient().delete_model_version(name, "2")
    promote(scene.config(f"target=models:/{name}/1"))
    assert state(name) == {"transformers": 1, "champion": 1}
    journal = scene.history(name)
    assert [entry.record.kind for entry in journal.entries] == ["register", "observed", "promote"]
    check_history(name)


def test_entry_loads_what_it_put_into_service(stage: Stage) -> None:
    name = "loads"
    commands.register(stage.report(name), scene.config())
    question = {"messages": [{"role": "user", "content": "hi"}]}
    answer = mlflow.pyfunc.load_model(f"models:/{name}.history/1").predict(question)
    assert answer[0]["choices"][0]["message"]["content"] == "parrot-onnx: hi"
