"""Seeded malformed requests: never a 5xx, always the error form, and the server answers after."""

import json
import random
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.serving.servers import Serving

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
CHAT, PROMPTS = "/v1/chat/completions", "/v1/completions"
ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**30, 1e308, "", "a", "\ud800", "\x00", "é🏳️‍🌈\u202e",
    "x" * 5_000, [], [[]], ["a", 5], {}, {"type": "json_schema"}, {"type": {}}, [{"role": "user"}],
    [None] * 50, {"a": {"b": [1, {"c": None}]}}, [{"type": "function"}], "required",
]  # fmt: skip
FIELDS = (
    *("model", "messages", "prompt", "temperature", "top_p", "top_k", "max_tokens", "n", "stop"),
    *("seed", "stream", "stream_options", "tools", "tool_choice", "response_format", "logit_bias"),
    *("logprobs", "top_logprobs", "frequency_penalty", "metadata", "user", "functions", "\ud800"),
    *("max_completion_tokens", "chat_template_kwargs", "parallel_tool_calls", "no_such_field"),
)


def _quiet(server: Serving) -> None:
    until = time.monotonic() + 60
    while server.metric("slm_requests_active") + server.metric("slm_requests_waiting"):
        assert time.monotonic() < until, "the places are not given back"
        time.sleep(0.1)
    assert requests.get(f"{server.url}/healthz", timeout=5).ok
    assert server.chat("Hello", max_tokens=1).ok


def _is_an_error(answer: requests.Response) -> None:
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) < 5_000


@pytest.mark.parametrize("seed", range(4))
def test_bodies_with_odd_values(server: Serving, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        path = rng.choice((CHAT, PROMPTS))
        body: dict[str, Any] = {"max_tokens": 1}
        body |= {"prompt": "a"} if path == PROMPTS else {"messages": [_message(rng)]}
        for field in rng.sample(FIELDS, rng.randint(0, 3)):
            value = rng.choice(ODD)
            limit = field in ("max_tokens", "max_completion_tokens") and value is None
            body[field] = 1 if limit else value
        answer = requests.post(f"{server.url}{path}", data=json.dumps(body), timeout=120)
        if answer.status_code != 200:
            _is_an_error(answer)
    _quiet(server)


def _message(rng: random.Random) -> Any:
    message: Any = {"role": "user", "content": "a"}
    if rng.random() < 0.4:
        message[rng.choice(("role", "content", "name", "tool_calls", "x"))] = rng.choice(ODD)
    return rng.choice(ODD) if rng.random() < 0.1 else message


def test_bytes_that_are_no_json_object(server: Serving) -> None:
    rng = random.Random(5)
    whole = json.dumps({"messages": [{"role": "user", "content": "a é"}], "max_tokens": 1}).encode()
    for _ in range(120):
        kind = rng.randrange(4)
        if kind == 0:
            body = rng.randbytes(rng.randint(0, 200))
        elif kind == 1:
            body = whole[: rng.randrange(len(whole))]
        elif kind == 2:
            body = rng.choice((b"[" * 50_000, b'{"a":' * 50_000, b"9" * 5_000, b"NaN", b"null"))
        else:
            place = rng.randrange(len(whole))
            body = whole[:place] + rng.randbytes(1) + whole[place:]
        headers = {
            "Content-Type": rng.choice(("application/json", "text/plain", "\xff", "")),
            "Authorization": rng.choice(("", "Bearer", "Bearer \xe9\xff", "Basic a")),
        }
        answer = requests.post(f"{server.url}{CHAT}", data=body, headers=headers, timeout=60)
        if kind != 3 or answer.status_code != 200:  # one byte more may leave it whole
            _is_an_error(answer)
    _quiet(server)


def test_other_paths_and_methods(server: Serving) -> None:
    rng = random.Random(6)
    pieces = (
        "v1",
        "chat",
        "completions",
        "models",
        "slm",
        "..",
        "%00",
        "%ff",
        "%2f",
        "é",
        "a" * 300,
    )
    for _ in range(100):
        path = "/".join(rng.choices(pieces, k=rng.randint(1, 5)))
        method = rng.choice(("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW", "POST"))
        answer = requests.request(method, f"{server.url}/{path}", timeout=10)
        if answer.status_code != 200:
            _is_an_error(answer)
    _quiet(server)


def test_one_bad_prompt_of_several_gives_the_others_up(server: Serving) -> None:
    before = server.metric("slm_requests_total", outcome="cancelled")
    body = {"prompt": ["", *["Tell a very long story."] * 3], "max_tokens": 2_000}
    answer = requests.post(f"{server.url}{PROMPTS}", json=body, timeout=60)
    _is_an_error(answer)
    _quiet(server)
    assert server.metric("slm_requests_total", outcome="cancelled") == before + 3


def _head(length: int) -> bytes:
    return f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode()


LONG = json.dumps(
    {
        "messages": [{"role": "user", "content": "word " * 600}],
        "max_tokens": 300,
        "stream": True,
    }
).encode()


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (_head(100), 0),
        (_head(100) + b'{"messa', 0),
        (_head(len(LONG)) + LONG, 0),
        (_head(len(LONG)) + LONG, 1),
        ((_head(len(LONG)) + LONG) * 5, 0),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{", 0),
        (b"\x16\x03\x01\x02\x00\x01", 1),
        (b"GET / HTTP/1.1\r\n" + b"A" * 500_000, 0),
    ],
    ids=("no body", "half a body", "at once", "while it is answered", "pipelined", "chunked", "TLS",
         "large head"),
)  # fmt: skip
def test_a_client_that_leaves_holds_no_place(server: Serving, sent: bytes, read: int) -> None:
    address = server.url.removeprefix("http://").split(":")
    leave: list[Callable[[socket.socket], None]] = [_reset, socket.socket.close]
    for number in range(12):
        client = socket.create_connection((address[0], int(address[1])), timeout=120)
        try:
            client.sendall(sent)
            if read:
                client.recv(read)
            time.sleep(0.01 * number)
        except (ConnectionError, BrokenPipeError):
            pass  # the server hung up first
        leave[number % 2](client)
    _quiet(server)
    assert "Traceback" not in server.said()


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
