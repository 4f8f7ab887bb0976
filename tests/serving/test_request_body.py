"""Bodies within their bounds, and what of them is the server's own."""

from typing import Any

import pytest
from starlette.requests import Request

from steps.serving import request_body
from steps.serving.errors import ApiError

pytestmark = pytest.mark.anyio


def request(body: bytes, **headers: str) -> Request:
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)] or [b""]

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    raw = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


async def test_a_body_is_an_object() -> None:
    assert await request_body.body_of(request(b'{"n": 1}'), 1000) == {"n": 1}


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b'{"a": NaN}', b'{"a": -Infinity}', b"\xff\xfe", b"[" * 100_000,
     b'{"a": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
async def test_what_is_not_an_object_is_a_400(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        await request_body.body_of(request(body), 1_000_000)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


async def test_a_compressed_body_is_a_415() -> None:
    with pytest.raises(ApiError, match="Content-Encoding: 'gzip': expected a body that is not"):
        await request_body.body_of(request(b"{}", content_encoding="gzip"), 1000)
    assert await request_body.body_of(request(b"{}", content_encoding="identity"), 1000) == {}


async def test_a_body_is_nested_as_deep_as_a_model_takes_it() -> None:
    whole = b'{"a":' * 63 + b"1" + b"}" * 63
    assert "a" in await request_body.body_of(request(whole), 1_000_000)
    with pytest.raises(ApiError, match="nested more than 64 levels deep"):
        await request_body.body_of(request(b'{"a":' * 70 + b"1" + b"}" * 70), 1_000_000)


@pytest.mark.parametrize("seed", [5, 5.0])
def test_answers_to_one_prompt_have_seeds_of_their_own(seed: float) -> None:
    rows = [request_body.seeded({"seed": seed}, choice) for choice in range(3)]
    assert [row["seed"] for row in rows] == [5, 6, 7]
    assert request_body.seeded({"seed": True}, 1) == {"seed": True}


@pytest.mark.parametrize("headers", [{}, {"content_length": "2000"}])
async def test_a_body_that_is_too_large_is_a_413(headers: dict[str, str]) -> None:
    with pytest.raises(ApiError, match=r"serve\.max_body_bytes=1000") as caught:
        await request_body.body_of(request(b" " * 2000, **headers), 1000)
    assert caught.value.status == 413


def test_stream_is_a_boolean() -> None:
    assert request_body.streams({"stream": True})
    assert not request_body.streams({"stream": None})
    with pytest.raises(ApiError, match="stream='yes'"):
        request_body.streams({"stream": "yes"})


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (None, False),
        ({}, False),
        ({"include_usage": True}, True),
        ({"include_usage": None, "include_obfuscation": False}, False),
    ],
)
def test_usage_is_wanted_where_it_is_asked_for(options: Any, wanted: bool) -> None:
    body = {"stream_options": options}
    assert request_body.wants_usage(body) is wanted
    assert body == {}


@pytest.mark.parametrize(
    "options", [[], "yes", {"include_usage": 1}, {"include_obfuscation": True}, {"more": False}]
)
def test_other_stream_options_are_refused(options: Any) -> None:
    with pytest.raises(ApiError, match="stream_options") as caught:
        request_body.wants_usage({"stream_options": options})
    assert caught.value.status == 400


def test_a_limit_of_tokens_is_given_and_held() -> None:
    body: dict[str, Any] = {}
    request_body.limit_tokens(body, 100)
    assert body == {"max_tokens": 100}
    request_body.limit_tokens({"max_completion_tokens": 100}, 100)
    with pytest.raises(ApiError, match=r"max_completion_tokens=101: expected at most 100"):
        request_body.limit_tokens({"max_completion_tokens": 101}, 100)
    body = {}
    request_body.limit_tokens(body, None)
    assert body == {}


def test_prompts_and_their_number() -> None:
    assert request_body.prompts_of({"prompt": "a", "n": 2.0}) == (["a"], 2)
    assert request_body.prompts_of({"prompt": ["a", "b"], "n": None}) == (["a", "b"], 1)


@pytest.mark.parametrize(
    "body",
    [{}, {"prompt": 5}, {"prompt": []}, {"prompt": [[1, 2]]}, {"prompt": ["a"] * 65},
     {"prompt": "a", "n": 0}, {"prompt": "a", "n": 1.5}, {"prompt": "a", "n": True},
     {"prompt": "a", "n": float("inf")}, {"prompt": ["a"] * 10, "n": 10}],
)  # fmt: skip
def test_other_prompts_are_refused(body: dict[str, Any]) -> None:
    field = "n" if "n" in body else "prompt"
    with pytest.raises(ApiError) as caught:
        request_body.prompts_of(body)
    assert (caught.value.status, caught.value.param) == (400, field)


def test_a_lone_surrogate_is_sent_escaped() -> None:
    assert request_body.json_bytes({"a": "é"}) == '{"a":"é"}'.encode()
    assert request_body.json_bytes({"a": "\ud800"}) == b'{"a":"\\ud800"}'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"mesages": []}, "did you mean messages instead of mesages?"),
        ({"model": "x", "max_tokens": 4}, None),
        ({"m" * 1_000_000: 1}, None),
        ({f"key{number}": 1 for number in range(1000)} | {"mesages": []}, None),
    ],
)
def test_a_key_that_looks_like_the_missing_one_is_named(
    body: dict[str, Any], said: str | None
) -> None:
    assert request_body.misspelt("messages", body) == said


def test_a_misspelt_prompt_is_named() -> None:
    with pytest.raises(ApiError, match=r"prompt=None: .*; did you mean prompt instead of promt\?"):
        request_body.prompts_of({"promt": "a"})
