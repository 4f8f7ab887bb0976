"""What a webhook is told, over HTTP on loopback: by a receiver that is fast, slow, faulty or
dead.
"""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import mlflow
import pytest

from steps.config.notifications import NotificationsConfig
from steps.config.root import Config
from steps.core.errors import ConfigError
from steps.registry import actors, delivery, notifications
from steps.registry.actors import Actor
from steps.registry.approve import decide
from steps.registry.delivery import Courier, Message
from steps.registry.permission import WaitingError
from steps.registry.result import RefusedError
from steps.registry.statements import APPROVE, REJECT
from tests.registry import commands, scene
from tests.registry.commands import promote, rollback
from tests.registry.doubles import SECRET, DrippingEndpoint, WebhookEndpoint
from tests.registry.fixtures import Pair

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)

ENV = "SLM_NOTIFICATIONS_SECRET"


Receivers = Callable[..., WebhookEndpoint]


@pytest.fixture
def receivers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receivers]:
    monkeypatch.setenv(ENV, SECRET)
    monkeypatch.setattr(delivery, "FIRST_WAIT", 0.05)
    made: list[WebhookEndpoint] = []

    def start(*statuses: int, delay: float = 0.0) -> WebhookEndpoint:
        made.append(WebhookEndpoint(statuses or (204,), delay))
        return made[-1]

    yield start
    for each in made:
        each.server.shutdown()
        each.server.server_close()


def settings(url: str, **more: Any) -> NotificationsConfig:
    return NotificationsConfig(url=url, **{"timeout": 5.0, "retry_seconds": 20.0, **more})


def send(chosen: NotificationsConfig, number: int = 1) -> Courier:
    made = Courier(chosen, SECRET)
    for each in range(number):
        made.send(
            Message(f"id-{each}", "{}", "application/json", f"promoted of models:/parrot/{each}")
        )
    return made


def overrides(url: str, *more: str) -> list[str]:
    return [f"notifications.url={url}", *more]


def flushed(url: str) -> None:
    assert delivery.courier(NotificationsConfig(url=url), SECRET).flush(10)


def test_event_is_a_signed_cloud_event(receivers: Receivers, tracking: str) -> None:
    from cloudevents.core.formats.json import JSONFormat
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError

    receiver = receivers()
    notifications.notify(
        scene.config(*overrides(receiver.url)),
        "waiting",
        "my model",
        version=3,
        reason="1 approval is missing",
        who="rosa",
    )
    flushed(receiver.url)
    ((headers, body),) = receiver.got
    assert Webhook(SECRET).verify(body, headers)["type"] == "slm_promote.waiting.v1"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"rosa", b"eve0"), headers)
    event = JSONFormat().read(None, body)
    data = event.get_data()
    assert isinstance(data, dict)
    assert (data["name"], data["version"], data["who"], data["reason"]) == (
        "my model",
        3,
        "rosa",
        "1 approval is missing",
    )
    assert (
        event.get_subject() == "models:/my model/3" and event.get_source() == "/#/models/my%20model"
    )
    assert (
        headers["content-type"].startswith("application/cloudevents+json")
        and headers["webhook-id"] == event.get_id()
    )


def test_a_faulty_receiver_gets_it_again_under_the_same_id(receivers: Receivers) -> None:
    receiver = receivers(500, 503, 200)
    assert send(settings(receiver.url)).flush(10)
    assert len(receiver.got) == 3 and {headers["webhook-id"] for headers, _ in receiver.got} == {
        "id-0"
    }


@pytest.mark.parametrize(
    ("status", "words"), [(400, "HTTP 400"), (410, "HTTP 410"), (307, "HTTP 307")]
)
def test_a_refusal_or_a_redirect_is_said_once(
    receivers: Receivers, caplog: pytest.LogCaptureFixture, status: int, words: str
) -> None:
    receiver = receivers(status)
    with caplog.at_level(logging.WARNING):
        assert send(settings(receiver.url)).flush(10)
    assert len(receiver.got) == 1
    assert (
        f"notification promoted of models:/parrot/0 was not delivered to 127.0.0.1:{receiver.port}:"
        f" {words}" in caplog.text
    )
    assert "/hook" not in caplog.text


def test_a_slow_receiver_delays_nobody(
    receivers: Receivers, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = receivers(200, delay=30)
    begun = time.monotonic()
    courier = send(settings(receiver.url, timeout=0.3, flush_seconds=1.0), 5)
    assert time.monotonic() - begun < 0.3
    with caplog.at_level(logging.WARNING):
        courier.end()
    assert time.monotonic() - begun < 5
    assert (
        "5 notifications were not delivered" in caplog.text
        and "the last attempt failed: ReadTimeout" in caplog.text
    )


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 503 "])
def test_a_receiver_that_drips_its_answer_holds_no_later_event(
    receivers: Receivers, caplog: pytest.LogCaptureFixture, begin: bytes
) -> None:
    dripping = DrippingEndpoint(begin)
    with caplog.at_level(logging.WARNING):
        assert send(settings(dripping.url, timeout=0.3, retry_seconds=1.0), 2).flush(30)
    dripping.socket.close()
    assert dripping.attempts >= 2
    for number in (0, 1):
        assert (
            f"promoted of models:/parrot/{number} was not delivered to {dripping.host}:"
            " ReadTimeout, no answer within" in caplog.text
        )


def test_a_dead_receiver_is_given_up_in_one_line(
    receivers: Receivers, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = receivers()
    receiver.server.shutdown()
    receiver.server.server_close()
    with caplog.at_level(logging.WARNING):
        assert send(settings(receiver.url, retry_seconds=0.3)).flush(10)
    assert [record.getMessage() for record in caplog.records] == [
        f"notification promoted of models:/parrot/0 was not delivered to 127.0.0.1:{receiver.port}:"
        " ConnectionError"
    ]


def test_no_more_than_the_waiting_room_holds_is_kept(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "WAITING_ROOM", 3)
    receiver = receivers(200, delay=30)
    begun = time.monotonic()
    send(settings(receiver.url), 50)
    assert time.monotonic() - begun < 1


def test_moves_are_told_as_they_are_made(
    pair: Pair, no_canary: list[str], receivers: Receivers
) -> None:
    receiver = receivers()

    def config(*words: str) -> Any:
        return scene.config(*overrides(receiver.url, *words))

    notifications.announced(config(), lambda: commands.register(pair.report_uri, config()))
    mlflow.MlflowClient().set_registered_model_alias(scene.NAME, "champion", "1")  # as in the UI
    there = config(f"target=models:/{scene.NAME}/2")
    notifications.announced(there, lambda: promote(there))
    back = config(f"target=models:/{scene.NAME}@champion")
    notifications.announced(back, lambda: rollback(back))
    planned = config(f"target=models:/{scene.NAME}/2", "dry_run=true")
    notifications.announced(planned, lambda: promote(planned))
    flushed(receiver.url)
    told = [(each["data"]["event"], each["data"]["version"]) for each in receiver.events()]
    assert told == [
        *(("proposed", 1), ("proposed", 2), ("promoted", 2)),
        *(("observed", 1), ("promoted", 2), ("rolled_back", 1)),
    ]
    promoted = receiver.events()[4]["data"]
    assert (
        promoted["entry"] == 3
        and {"alias": "champion", "before": 1, "after": 2} in promoted["moves"]
    )
    assert receiver.events()[3]["data"]["who"] == "another client"


def test_a_refusal_is_told_and_raised(
    pair: Pair, no_canary: list[str], receivers: Receivers
) -> None:
    receiver = receivers()
    uri = scene.report_by_a_run([scene.candidate(pair.onnx, "onnx", scene.FAST, "hold")])
    config = scene.config(*overrides(receiver.url, "notifications.events=[held]"))
    notifications.announced(config, lambda: commands.register(uri, config))
    refused = scene.config(
        *overrides(receiver.url, "notifications.events=[held]", f"target=models:/{scene.NAME}/1")
    )
    with pytest.raises(RefusedError):
        notifications.announced(refused, lambda: promote(refused))
    flushed(receiver.url)
    assert [(each["data"]["event"], each["data"]["version"]) for each in receiver.events()] == [
        ("held", 1),
        ("held", 1),
    ]
    assert "its verdict is 'hold': quality_floor" in receiver.events()[0]["data"]["reason"]


def test_a_dead_receiver_undoes_no_move(
    pair: Pair, no_canary: list[str], receivers: Receivers
) -> None:
    config = scene.config(*overrides("http://127.0.0.1:9/", "notifications.retry_seconds=0.1"))
    assert (
        notifications.announced(config, lambda: commands.register(pair.report_uri, config)).entry
        == 1
    )


def test_secret_is_asked_for_before_anything_moves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def never() -> Any:
        raise AssertionError("it was moved")

    config = scene.config(
        "notifications.url=http://127.0.0.1:9/", "notifications.secret_env=NOBODY_SET_THIS"
    )
    with pytest.raises(ConfigError, match=r"notifications\.secret_env='NOBODY_SET_THIS'"):
        notifications.announced(config, never)
    monkeypatch.setenv("NOBODY_SET_THIS", "not base64!")
    with pytest.raises(ConfigError, match="a secret in base64") as refused:
        notifications.announced(config, never)
    assert "not base64!" not in str(refused.value)
    (tmp_path / "secret").write_text(SECRET + "\n")
    assert (
        notifications.check(
            NotificationsConfig(url="http://127.0.0.1:9/", secret_file=str(tmp_path / "secret"))
        )
        is not None
    )
    assert notifications.check(NotificationsConfig()) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("url", "ftp://a/"),
        ("url", "http://rosa:pw@a/"),
        ("url", "http://a:x/"),
        ("events", ["moved"]),
        ("timeout", 0),
        ("flush_seconds", -1),
    ],
)
def test_bad_settings_are_named(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"notifications\.{key}=") as refused:
        NotificationsConfig(**{key: value})
    assert "rosa" not in str(refused.value)


def test_source_holds_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        mlflow, "get_tracking_uri", lambda: "https://rosa:pw@mlflow.example.org:8443/base/"
    )
    assert notifications.source("a=b") == "https://mlflow.example.org:8443/base/#/models/a%3Db"


def test_a_version_that_waits_is_told_of_and_what_approvers_say(
    receivers: Receivers, pair: Pair, no_canary: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = receivers()

    def acting(name: str) -> None:
        monkeypatch.setattr(actors, "who", lambda _: Actor(name, authenticated=True))
        notifications.current_user.cache_clear()

    def config(*more: str) -> Config:
        return scene.config(*overrides(receiver.url, "promotion.approvals=1", *more))

    acting("ci")
    notifications.announced(config(), lambda: commands.register(pair.report_uri, config()))
    target = f"target=models:/{scene.NAME}/2"
    with pytest.raises(WaitingError):
        notifications.announced(config(target), lambda: promote(config(target)))
    for name, decision in (("bob", REJECT), ("omar", APPROVE)):
        acting(name)
        decide(decision, config(target, "reason='read it'"))
    acting("ci")
    notifications.announced(config(target), lambda: promote(config(target)))
    flushed(receiver.url)
    told = [
        (event["type"].split(".")[1], event["data"]["version"], event["data"]["who"])
        for event in receiver.events()
    ]
    assert [each for each in told if each[0] != "proposed"] == [
        ("waiting", 2, "ci"),
        ("waiting", 2, "ci"),
        ("rejected", 2, "bob"),
        ("approved", 2, "omar"),
        ("promoted", 2, "ci"),
    ]
