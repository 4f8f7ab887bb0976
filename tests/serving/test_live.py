"""A real server over the embedded model: the API as clients use it."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import requests

from tests.serving.conftest import WEB
from tests.serving.servers import NAME, Serving

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
QUESTION = "What is the capital of Germany?"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture
def client(server: Serving) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def asked(content: str = QUESTION, **settings: Any) -> dict[str, Any]:
    return {
        "model": NAME,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 16,
        "temperature": 0,
        **settings,
    }


def test_a_whole_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**asked())
    assert "Berlin" in str(answer.choices[0].message.content)
    assert answer.model == NAME
    assert str(answer.system_fingerprint).startswith(f"{NAME}/1-")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_a_stream_is_the_whole_answer_in_pieces(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**asked())
    stream = client.chat.completions.create(
        **asked(stream=True, stream_options={"include_usage": True})
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_without_usage_a_stream_ends_with_its_reason(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(**asked(stream=True)))
    assert all(chunk.choices for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


async def _several(url: str) -> list[str]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(**asked(stream=True, n=2, temperature=0.8))
        texts = ["", ""]
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        return texts


@pytest.mark.anyio
async def test_several_choices_asynchronously(server: Serving) -> None:
    assert all(await _several(server.url))


def test_structured_output(client: openai.OpenAI, server: Serving) -> None:
    before = server.metric("slm_formats_total", valid="true")
    schema = {"name": "person", "strict": True, "schema": PERSON}
    answer = client.chat.completions.create(
        **asked(
            "Describe Ada, who is 36.",
            response_format={"type": "json_schema", "json_schema": schema},
            max_tokens=64,
        )
    )
    assert set(json.loads(str(answer.choices[0].message.content))) == {"name", "age"}
    assert server.metric("slm_formats_total", valid="true") == before + 1


def test_log_probabilities(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**asked(logprobs=True, top_logprobs=2))
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.content
    joined = b"".join(bytes(entry.bytes or []) for entry in told.content)
    assert joined.decode() == answer.choices[0].message.content


def test_prompts(client: openai.OpenAI) -> None:
    common: dict[str, Any] = {"model": NAME, "max_tokens": 6, "temperature": 0}
    one = client.completions.create(prompt="The capital of France is", **common)
    assert "Paris" in one.choices[0].text
    assert one.choices[0].finish_reason == "length"
    assert one.usage is not None
    assert one.usage.completion_tokens == 6
    two = client.completions.create(prompt=["One, two,", "The capital of France is"], **common)
    assert two.choices[1].text == one.choices[0].text
    pieces = list(
        client.completions.create(prompt="The capital of France is", stream=True, **common)
    )
    assert "".join(piece.choices[0].text for piece in pieces) == one.choices[0].text


def test_models(client: openai.OpenAI) -> None:
    listed = {model.id: model.model_dump() for model in client.models.list()}
    assert set(listed) == {NAME, f"{NAME}@champion"}
    assert listed[NAME]["version"] == 1
    assert listed[NAME]["aliases"] == ["champion"]
    assert listed[NAME]["variant"] == "onnx"
    assert client.models.retrieve(f"{NAME}@champion").id == f"{NAME}@champion"
    assert client.models.retrieve(f"{NAME}/1").model_dump()["aliases"] == ["champion"]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(f"{NAME}/2")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/"])
def test_probes_may_ask_without_a_body(server: Serving, path: str) -> None:
    answer = requests.head(f"{server.url}{path}", timeout=10)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_page_of_an_allowed_address_may_send_headers_of_its_own(server: Serving) -> None:
    def preflight(origin: str) -> requests.Response:
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
        }
        return requests.options(f"{server.url}/v1/chat/completions", headers=headers, timeout=10)

    assert preflight(WEB).status_code == 200
    assert "x-stainless-lang" in preflight(WEB).headers["Access-Control-Allow-Headers"]
    assert preflight("https://elsewhere.example.com").status_code == 400


@pytest.mark.parametrize(
    ("settings", "status", "param"),
    [
        ({"temperature": 3}, 400, "temperature"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"temprature": 0.5}, 400, "temprature"),
        ({"messages": []}, 400, "messages"),
        ({"messages": None}, 400, None),
        ({"model": "gpt-4o"}, 404, "model"),
        ({"stream": "yes"}, 400, "stream"),
        ({"n": 100}, 400, "n"),
        ({"prompt": "a"}, 400, "prompt"),
        ({"response_format": {"type": "xml"}}, 400, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_field_is_named_in_openais_form(
    server: Serving, settings: dict[str, Any], status: int, param: str | None, stream: bool
) -> None:
    body = asked(stream=stream) | settings
    answer = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    if param is not None:
        assert error["param"] == param


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405), ("POST", "/webhook", 404)],
)
def test_other_addresses(server: Serving, method: str, path: str, status: int) -> None:
    answer = requests.request(method, f"{server.url}{path}", timeout=10)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_a_client_that_leaves_frees_its_place(server: Serving) -> None:
    long = asked("Tell a very long story.", max_tokens=2000, stream=True)
    for _ in range(12):  # more than are answered side by side
        with requests.post(
            f"{server.url}/v1/chat/completions", json=long, stream=True, timeout=60
        ) as answer:
            next(answer.iter_lines())
    whole = dict(long, stream=False)
    for _ in range(12):
        with pytest.raises(requests.Timeout):
            requests.post(f"{server.url}/v1/chat/completions", json=whole, timeout=0.2)
    until = time.monotonic() + 20
    while server.metric("slm_requests_active") + server.metric("slm_requests_waiting"):
        assert time.monotonic() < until, "the answers go on"
        time.sleep(0.1)
    assert server.chat(QUESTION).ok
    assert server.metric("slm_requests_total", outcome="cancelled") >= 24


def test_many_clients_at_once_are_all_answered(server: Serving) -> None:
    before = server.metric("slm_requests_total", outcome="ok")
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda number: server.chat(f"Count to {number}"), range(24)))
    assert all(answer.ok for answer in answers)
    assert server.metric("slm_requests_total", outcome="ok") == before + 24


def test_health_is_answered_while_others_are_served(server: Serving) -> None:
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            server.chat("Tell a story.", max_tokens=32)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(ask)
        try:
            for _ in range(50):
                assert requests.get(f"{server.url}/healthz", timeout=5).json() == {"status": "ok"}
        finally:
            stop.set()


def test_nothing_that_was_asked_is_in_log_or_metrics(server: Serving) -> None:
    secret = "xyzzy-plover-plugh"
    server.chat(secret)
    server.chat(secret, temperature=3)
    server.chat(secret, model=secret)
    assert secret not in server.said()
    assert secret not in requests.get(f"{server.url}/metrics", timeout=10).text


def test_the_openapi_document_names_the_endpoints(server: Serving) -> None:
    document = requests.get(f"{server.url}/openapi.json", timeout=10).json()
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models"} <= set(document["paths"])
