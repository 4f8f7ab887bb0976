"""Histories that somebody made who may not move an alias: nobody believes them. On SQLite."""

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)

import json
from collections.abc import Iterator
from typing import Any

import mlflow
import pytest

from steps.core import tags
from steps.registry import belonging
from steps.registry.belonging import ForeignHistoryError
from steps.registry.client import RegistryClient
from steps.registry.entry import ID_TAG, RECORD_TAG
from steps.registry.journal import KIND_TAG
from steps.registry.record import Record
from steps.registry.table import show_history
from tests.registry import commands, scene
from tests.registry.commands import promote
from tests.registry.doubles import no_evaluation
from tests.registry.fixtures import Pair
from tests.registry.scene import aliases

HISTORY = f"{scene.NAME}.history"
TARGET = f"target=models:/{scene.NAME}/1"


def forge(name: str = HISTORY, **changed: object) -> None:
    """As anybody can: a registered model of a free name, with an entry in it that its writer seems
    not to have finished.
    """
    client = mlflow.MlflowClient()
    client.create_registered_model(name, tags={KIND_TAG: "history"})
    record = json.loads(
        Record("forged", "promote", (), "admin", "as agreed", authenticated=True).to_json()
    )
    record |= {"moves": [["champion", None, 2]], **changed}
    client.create_model_version(
        name, f"models:/{scene.NAME}/1", tags={RECORD_TAG: json.dumps(record), ID_TAG: "forged"}
    )


@pytest.fixture
def by_hand(pair: Pair, no_canary: list[str]) -> Iterator[Pair]:
    """Two versions that somebody registered with another client, without a history."""
    client = mlflow.MlflowClient()
    client.create_registered_model(scene.NAME)
    for model_id in (pair.transformers, pair.onnx):
        client.create_model_version(scene.NAME, f"models:/{model_id}", model_id=model_id)
    yield pair


def test_forged_history_moves_nothing(by_hand: Pair, caplog: pytest.LogCaptureFixture) -> None:
    forge()
    for call in (
        lambda: promote(scene.config(TARGET)),
        lambda: promote(scene.config(TARGET, "dry_run=true")),
        lambda: commands.register(by_hand.report_uri, scene.config()),
        lambda: show_history(scene.config(TARGET), as_json=True),
    ):
        with pytest.raises(
            ForeignHistoryError,
            match=(
                rf"models:/{HISTORY} is there, and no promoter of 'parrot' made it.*set_registered"
            ),
        ):
            call()
    mlflow.MlflowClient().set_registered_model_alias(scene.NAME, "candidate", "1")
    assert commands.poll_once(scene.config(), RegistryClient(5), no_evaluation) == []
    assert "no promoter of 'parrot' made it" in caplog.text
    assert aliases() == {"candidate": 1}
    mlflow.MlflowClient().delete_registered_model(HISTORY)
    assert promote(scene.config(TARGET)).entry == 1
    assert aliases()["champion"] == 1


def test_history_that_an_administrator_made_is_confirmed_by_the_tag(by_hand: Pair) -> None:
    client = mlflow.MlflowClient()
    client.create_registered_model(HISTORY, tags={KIND_TAG: "history"})
    with pytest.raises(ForeignHistoryError) as caught:
        promote(scene.config(TARGET))
    born = client.get_registered_model(HISTORY).creation_timestamp
    assert f"set_registered_model_tag('parrot', 'slm.history', '{born}')" in str(caught.value)
    client.set_registered_model_tag(scene.NAME, tags.HISTORY, str(born))
    assert promote(scene.config(TARGET)).entry == 1


def test_history_that_was_there_before_the_model_is_not_believed(
    pair: Pair, no_canary: list[str]
) -> None:
    mlflow.MlflowClient().create_registered_model(HISTORY, tags={KIND_TAG: "history"})
    with pytest.raises(ForeignHistoryError):
        commands.register(pair.report_uri, scene.config())
    assert RegistryClient(5).versions(scene.NAME) == []


def test_history_that_was_deleted_and_made_anew_by_another_is_not_believed(
    pair: Pair, no_canary: list[str]
) -> None:
    commands.register(pair.report_uri, scene.config())
    client = mlflow.MlflowClient()
    client.delete_registered_model(HISTORY)
    forge(moves=[["champion", None, 1]])
    with pytest.raises(ForeignHistoryError):
        promote(scene.config(TARGET))
    assert aliases()["champion"] == 2


def test_model_of_before_there_was_the_tag_goes_on(pair: Pair, no_canary: list[str]) -> None:
    commands.register(pair.report_uri, scene.config())
    client = mlflow.MlflowClient()
    client.delete_registered_model_tag(scene.NAME, tags.HISTORY)
    assert promote(scene.config(TARGET)).entry == 2
    born = client.get_registered_model(HISTORY).creation_timestamp
    assert client.get_registered_model(scene.NAME).tags[tags.HISTORY] == str(born)


def test_copy_of_a_version_does_not_show_that_there_was_a_history(
    pair: Pair, no_canary: list[str]
) -> None:
    commands.register(pair.report_uri, scene.config())
    client = mlflow.MlflowClient()
    client.create_registered_model("parrot-prod")
    client.copy_model_version(f"models:/{scene.NAME}/1", "parrot-prod")
    forge("parrot-prod.history", moves=[["champion", None, 1]])
    with pytest.raises(ForeignHistoryError):
        promote(scene.config("target=models:/parrot-prod/1"))
    assert client.get_registered_model("parrot-prod").aliases == {}


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9/", "postgresql+psycopg2://db/mlflow"])
def test_where_there_may_be_users_a_model_of_before_there_was_the_tag_is_confirmed_once(
    pair: Pair, no_canary: list[str], monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    commands.register(pair.report_uri, scene.config())
    client = mlflow.MlflowClient()
    client.delete_registered_model_tag(scene.NAME, tags.HISTORY)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow, "get_registry_uri", lambda: uri)
        with pytest.raises(ForeignHistoryError, match="or by an earlier version of this project"):
            belonging.check(RegistryClient(5), scene.NAME)
        born = client.get_registered_model(HISTORY).creation_timestamp
        client.set_registered_model_tag(scene.NAME, tags.HISTORY, str(born))
        belonging.check(RegistryClient(5), scene.NAME)
    assert promote(scene.config(TARGET)).entry == 2


@pytest.mark.parametrize("record", ["garbage", "incarnation"])
def test_history_of_a_free_name_keeps_no_model_waiting(by_hand: Pair, record: str) -> None:
    born = str(mlflow.MlflowClient().get_registered_model(scene.NAME).creation_timestamp)
    forge("zzz.history", incarnation=born)
    if record == "garbage":
        mlflow.MlflowClient().set_model_version_tag("zzz.history", "1", RECORD_TAG, "garbage")
    assert promote(scene.config(TARGET)).entry == 1
    assert aliases()["champion"] == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (f"{belonging.PENDING_TAG}{'0' * 16}", "0" * 64),
        (tags.HISTORY, f"{belonging.PENDING} {'0' * 64}"),  # as earlier versions announced it
    ],
)
def test_history_that_somebody_made_while_the_model_waited_for_its_own(
    by_hand: Pair, key: str, value: str
) -> None:
    """A promoter was killed between announcing the history and creating it; what it announced does
    not say how to make one that fits.
    """
    client = mlflow.MlflowClient()
    client.set_registered_model_tag(scene.NAME, key, value)
    forge()
    with pytest.raises(ForeignHistoryError):
        promote(scene.config(TARGET))
    client.delete_registered_model(HISTORY)
    assert promote(scene.config(TARGET)).entry == 1


def test_history_that_somebody_makes_first(by_hand: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(belonging, "RACE_SECONDS", 0.5)
    ensure = RegistryClient.ensure_model

    def too_late(self: RegistryClient, name: str, *arguments: Any) -> bool:
        if name == HISTORY:
            forge()
        return ensure(self, name, *arguments)

    monkeypatch.setattr(RegistryClient, "ensure_model", too_late)
    with pytest.raises(ForeignHistoryError):
        promote(scene.config(TARGET))
    assert aliases() == {}


def test_killed_between_creating_the_history_and_naming_it(
    by_hand: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(belonging, "_wait_for", lambda *_: None)
        patch.setattr(RegistryClient, "ensure_model", _killed(RegistryClient.ensure_model))
        with pytest.raises(KeyboardInterrupt):
            promote(scene.config(TARGET))
    assert mlflow.MlflowClient().get_registered_model(HISTORY).tags[belonging.PROOF_TAG]
    assert promote(scene.config(TARGET)).entry == 1


def test_promoters_that_announce_the_history_at_the_same_moment(
    by_hand: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one announces, creates and names it between our announcement and our creation."""
    ensure = RegistryClient.ensure_model
    others: list[str] = []
    monkeypatch.setattr(belonging, "without_users", lambda: False)

    def beaten(self: RegistryClient, name: str, *arguments: Any) -> bool:
        if name == HISTORY and not others:
            others.append(name)
            belonging.claim(self, scene.NAME, "of another promoter")
        return ensure(self, name, *arguments)

    monkeypatch.setattr(RegistryClient, "ensure_model", beaten)
    assert promote(scene.config(TARGET)).entry == 1
    assert others == [HISTORY]
    client = mlflow.MlflowClient()
    model = client.get_registered_model(scene.NAME)
    assert model.tags[tags.HISTORY] == str(client.get_registered_model(HISTORY).creation_timestamp)
    assert not [key for key in model.tags if key.startswith(belonging.PENDING_TAG)]


def test_a_history_that_is_created_while_it_is_looked_for_is_its_models(
    by_hand: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another promoter announces and creates it between two reads of one look."""
    find = belonging._find
    seen: list[str] = []
    monkeypatch.setattr(belonging, "without_users", lambda: False)

    def late(registry: RegistryClient, name: str) -> Any:
        found = find(registry, name)
        seen.append(name)
        if len(seen) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(belonging, "_find", find)
                belonging.claim(registry, scene.NAME, "of another promoter")
        return found

    monkeypatch.setattr(belonging, "_find", late)
    belonging.check(RegistryClient(10), scene.NAME)
    assert seen[:2] == [HISTORY, scene.NAME]


def _killed(call: Any) -> Any:
    def made(*arguments: Any) -> Any:
        call(*arguments)
        raise KeyboardInterrupt

    return made
