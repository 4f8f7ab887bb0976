"""Both variants behind ``mlflow models serve``, asked over HTTP and by OpenAI's client."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import requests
from openai import OpenAI

from tests.conftest import BIN
from tests.wrappers.ports import free_port
from tests.wrappers.subjects import Logged, say

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", params=["int4", "transformers"])
def address(
    request: pytest.FixtureRequest, logged: Logged, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of a scoring server with one variant."""
    port = free_port()
    home = tmp_path_factory.mktemp("server")
    command = [
        str(BIN / "mlflow"),
        "models",
        "serve",
        "-m",
        logged.uris[request.param],
        "-p",
        str(port),
        "-h",
        "127.0.0.1",
    ]
    environment = logged.environment | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    log = home / "log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [*command, "--env-manager", "local"],
            cwd=home,
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, server, log)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            if requests.get(f"{url}/ping", timeout=2).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-2000:])


def post(url: str, payload: Any) -> requests.Response:
    return requests.post(f"{url}/invocations", json=payload, timeout=120)


def test_both_contracts(address: str) -> None:
    chat = post(address, say("What is the capital of Germany?"))
    assert chat.status_code == 200
    assert "Berlin" in chat.json()[0]["choices"][0]["message"]["content"]
    prompt = post(address, {"prompt": "One, two,", "max_tokens": 4})
    assert prompt.status_code == 200
    assert isinstance(prompt.json()[0], str)
    rows = post(
        address, {"inputs": [say("Hello", max_tokens=2), {"prompt": "One, two,", "max_tokens": 4}]}
    )
    assert rows.status_code == 200
    assert rows.json()["predictions"][1] == prompt.json()[0]


@pytest.mark.parametrize(
    "payload",
    [
        {"messages": []},
        {"messages": [{"role": "wizard", "content": "a"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"prompt": "a", "temprature": 1},
        {"prompt": "a", "temperature": "hot"},
        {"prompt": "a", "max_tokens": 0},
        {"prompt": "a " * 30_000},
        {"inputs": {"prompt": 3}},
        {"inputs": [{"prompt": "a"}] * 1_001},
        say("a", response_format={"type": "regex", "regex": "(a{1000}){1000}"}),
        say(
            "a",
            response_format={
                "type": "json_schema",
                "json_schema": {"schema": {"type": "array", "maxItems": 3_000_000}},
            },
        ),
        say(
            "a",
            response_format={
                "type": "json_schema",
                "json_schema": {"schema": {"x-guidance": {"whitespace_flexible": True}}},
            },
        ),
    ],
)
def test_what_breaks_the_contract_is_a_400_and_the_server_lives_on(
    address: str, payload: Any
) -> None:
    refused = post(address, payload)
    assert refused.status_code == 400, refused.text
    assert post(address, {"prompt": "One, two,", "max_tokens": 1}).status_code == 200


@pytest.mark.parametrize("stop", ["\n", ["\n", "x"], [], None])
def test_stop_is_a_string_a_list_or_null(address: str, stop: Any) -> None:
    for row in ({"prompt": "One, two,", "max_tokens": 4}, say("Hello", max_tokens=4)):
        answered = post(address, row | {"stop": stop})
        assert answered.status_code == 200, answered.text


@pytest.mark.parametrize(
    "setting",
    ["max_completion_tokens", "n", "top_p", "seed", "response_format", "tools", "user", "stream"],
)
def test_null_is_as_good_as_nothing(address: str, setting: str) -> None:
    answered = post(address, say("Hello", max_tokens=2) | {setting: None})
    assert answered.status_code == 200, answered.text


def test_integers_may_come_as_floats(address: str) -> None:
    floats = {"max_tokens": 2.0, "n": 1.0, "seed": 3.0, "top_k": 0.0, "min_tokens": 1.0}
    answered = post(address, say("Hello") | floats)
    assert answered.status_code == 200, answered.text
    assert answered.json()[0]["usage"]["completion_tokens"] <= 2
    refused = post(address, say("Hello") | {"max_tokens": 2.5})
    assert refused.status_code == 400
    assert "max_tokens=2.5: expected an integer" in refused.text


def test_threads_get_their_own_answers(address: str) -> None:
    limits = [1, 2, 3, 4, 5, 6]
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(
                lambda limit: post(address, say("Count to one hundred", max_tokens=limit)).json()[
                    0
                ],
                limits,
            )
        )
    assert [answer["usage"]["completion_tokens"] for answer in answers] == limits


class Gateway(httpx.BaseTransport):
    """Stands before a scoring server: OpenAI's path to MLflow's, and one row out of a list."""

    def __init__(self, url: str) -> None:
        self.url = url

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answered = requests.post(
            f"{self.url}/invocations",
            data=request.read(),
            headers={"Content-Type": "application/json"},
            timeout=120,
        )
        body = answered.json()
        return httpx.Response(
            answered.status_code, json=body[0] if isinstance(body, list) else body, request=request
        )


def skeleton(value: Any) -> Any:
    """Keys and types, without the values."""
    if isinstance(value, dict):
        return {key: skeleton(item) for key, item in value.items()}
    if isinstance(value, list):
        return [skeleton(item) for item in value[:1]]
    return type(value).__name__


def test_openais_own_client(address: str) -> None:
    client = OpenAI(
        base_url=address, api_key="none", http_client=httpx.Client(transport=Gateway(address))
    )
    answer = client.chat.completions.create(
        model="whatever",
        messages=[{"role": "user", "content": "What is the capital of Germany?"}],
        temperature=0,
        max_tokens=12,
        stop=["\n\n\n"],
        seed=1,
        n=1,
        store=False,
        metadata={"team": "a"},
        service_tier="auto",
        prompt_cache_key="a",
        safety_identifier="b",
        parallel_tool_calls=True,
        logit_bias={},
        modalities=["text"],
    )
    assert "Berlin" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens == answer.usage.total_tokens
    assert skeleton(json.loads(answer.model_dump_json(exclude_unset=True))) == {
        "id": "str",
        "object": "str",
        "created": "int",
        "model": "str",
        "choices": [
            {"index": "int", "message": {"role": "str", "content": "str"}, "finish_reason": "str"}
        ],
        "usage": {
            "prompt_tokens": "int",
            "completion_tokens": "int",
            "total_tokens": "int",
            "prompt_tokens_details": {"cached_tokens": "int"},
        },
    }
