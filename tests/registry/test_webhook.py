"""Which deliveries of a webhook are believed. The signatures are made by MLflow's own code."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from steps.registry.webhook import (
    DELIVERY,
    SIGNATURE,
    TIMESTAMP,
    AliasSet,
    Receiver,
    UnsignedError,
    read_event,
    verify,
)

SECRET = "a secret of the team"


def delivery(
    body: str, secret: str = SECRET, at: float | None = None, number: str = "d-1"
) -> dict[str, str]:
    """Headers as MLflow sends them."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    timestamp = str(int(time.time() if at is None else at))
    return {
        SIGNATURE: _generate_hmac_signature(secret, number, timestamp, body),
        TIMESTAMP: timestamp,
        DELIVERY: number,
    }


def event(
    alias: str = "candidate", entity: str = "model_version_alias", action: str = "created"
) -> str:
    data = {"name": "parrot", "alias": alias, "version": "3"}
    return json.dumps(
        {"entity": entity, "action": action, "timestamp": "2026-01-01T00:00:00+00:00", "data": data}
    )


def test_right_signature_is_believed() -> None:
    verify(SECRET, delivery(event()), event().encode())
    assert read_event(event().encode()) == AliasSet("parrot", "candidate", 3)


@pytest.mark.parametrize(
    ("headers", "body", "why"),  # made when the test runs: a signature is good for five minutes
    [
        (lambda: delivery(event(), secret="another"), event(), "signature is not right"),
        (lambda: delivery(event()), event("champion"), "signature is not right"),
        (lambda: delivery(event()) | {DELIVERY: "d-2"}, event(), "signature is not right"),
        (lambda: delivery(event(), at=time.time() - 3600), event(), "not of the last 300 seconds"),
        (lambda: delivery(event()) | {TIMESTAMP: "soon"}, event(), "not of the last 300 seconds"),
        (dict, event(), "a header is missing"),
    ],
)
def test_wrong_delivery_is_not(headers: Callable[[], dict[str, str]], body: str, why: str) -> None:
    with pytest.raises(UnsignedError, match=why):
        verify(SECRET, headers(), body.encode())


def test_other_events_are_not_ours() -> None:
    assert read_event(event(action="deleted").encode()) is None
    assert read_event(event(entity="model_version").encode()) is None
    with pytest.raises(ValueError, match="not a delivery"):
        read_event(b'{"entity": "model_version_alias", "action": "created"}')


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, list[AliasSet]]]:
    heard: list[AliasSet] = []
    with Receiver("127.0.0.1", 0, SECRET, heard.append) as started:
        yield started, heard


def test_receiver_over_http(receiver: tuple[Receiver, list[AliasSet]]) -> None:
    started, heard = receiver
    url = f"http://127.0.0.1:{started.port}/"
    body = event()
    assert requests.post(url, data=body, headers=delivery(body), timeout=5).status_code == 204
    # the same delivery, sent again
    assert requests.post(url, data=body, headers=delivery(body), timeout=5).status_code == 204
    assert (
        requests.post(
            url, data=body, headers=delivery(body, secret="x", number="d-2"), timeout=5
        ).status_code
        == 401
    )
    other = event("champion")
    assert (
        requests.post(url, data=other, headers=delivery(other, number="d-3"), timeout=5).status_code
        == 204
    )
    assert (
        requests.post(url, data="{}", headers=delivery("{}", number="d-4"), timeout=5).status_code
        == 400
    )
    assert (
        requests.post(
            url, data=b"", headers=delivery("") | {"Content-Length": "9999999"}, timeout=5
        ).status_code
        == 413
    )
    assert requests.get(url, timeout=5).status_code == 501
    assert heard == [AliasSet("parrot", "candidate", 3)]
