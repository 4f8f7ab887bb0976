"""Prompts of the evidence, asked again of a server that is made up."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from steps.config.monitor import MonitorConfig
from steps.evaluation import machine
from steps.evaluation.report import Report
from steps.monitoring import recorded
from steps.monitoring.recorded import Recorded, compared
from steps.registry.model_version import Version
from tests.monitoring import scene
from tests.monitoring.test_figures import reported

DIGEST = "sha256:" + "ab" * 32
VERSION = Version("slm", 3, {}, (), "models:/m-1", None, "", 0)
Answer = Callable[[dict[str, Any]], tuple[int, Any]]


class Server:
    """Answers chat completions as it is told, and keeps what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                outer.keys.append(self.headers.get("Authorization"))
                status, said = answer(body)
                data = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


Servers = Callable[[Answer], Server]


@pytest.fixture
def servers() -> Iterator[Servers]:
    made: list[Server] = []

    def start(answer: Answer) -> Server:
        made.append(Server(answer))
        return made[-1]

    yield start
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def completion(text: Any, by: str = "slm/3-abababababab") -> dict[str, Any]:
    return {"system_fingerprint": by, "choices": [{"message": {"content": text}}]}


def as_recorded(body: dict[str, Any]) -> tuple[int, Any]:
    item = next(
        item
        for item, question in scene.QUESTIONS.items()
        if question == body["messages"][0]["content"]
    )
    answers = {one["id"]: one["answer"] for one in scene.items()}
    return 200, completion(answers[item])


def asked(url: str | None, processors: tuple[str, ...] = (), **changes: Any) -> Recorded:
    report, candidate = reported(**changes)
    questions = {
        item: [{"role": "user", "content": text}] for item, text in scene.QUESTIONS.items()
    }
    whole = Report(**{**vars(report), "pack": {"questions": questions}})
    config = MonitorConfig(endpoint=url, timeout=5.0)
    return recorded.ask(config, VERSION, DIGEST, whole, candidate, processors)


def test_eight_prompts_are_asked_greedily_of_the_version(servers: Servers) -> None:
    server = servers(as_recorded)
    found = asked(server.url)
    assert (found.equal, found.told, len(server.asked)) == (8, 8, 8)
    assert {body["model"] for body in server.asked} == {"slm/3"}
    assert {(body["temperature"], body["max_tokens"]) for body in server.asked} == {(0.0, 11)}
    assert len({body["messages"][0]["content"] for body in server.asked}) == 8
    assert asked(f"{server.url}/v1/").equal == 8


def test_an_answer_that_was_cut_has_its_whole_limit(servers: Servers) -> None:
    server = servers(as_recorded)
    items = [{**item, "finish_reason": "length"} for item in scene.items()]
    asked(server.url, quality={"items": items})
    assert {body["max_tokens"] for body in server.asked} == {10}


def test_where_an_answer_first_differs_is_told(servers: Servers) -> None:
    server = servers(lambda _: (200, completion("the answer is another")))
    found = asked(server.url)
    assert found.equal == 0
    differing = [one for one in found.answers if one.characters == len("the answer to question 1")]
    assert differing[0].first_difference == len("the answer ")
    assert compared("a", "abc", "abcd").first_difference == 3
    assert compared("a", "abc", "ab").first_difference == 2


def test_the_band_is_by_processor(monkeypatch: pytest.MonkeyPatch, servers: Servers) -> None:
    told = iter([True, True, True, False, False, False, False, False])
    server = servers(
        lambda body: as_recorded(body) if next(told) else (200, completion("something else"))
    )
    monkeypatch.setattr(machine, "describe", lambda: {"processor": scene.PROCESSOR})
    found = asked(server.url)
    here = found.figure(MonitorConfig())
    assert here is not None and (here.state, here.band_low) == ("drifted", 6)
    assert "3 of 8 recorded answers are the evidence's (band 6" in here.words
    monkeypatch.setattr(machine, "describe", lambda: {"processor": "Another"})
    other = Recorded(found.answers, "", "Another", scene.PROCESSOR).figure(MonitorConfig())
    assert other is not None and (other.state, other.band_low) == ("within", 1)
    assert "on Another, the evidence is of A processor" in other.words


def test_the_processor_of_another_machine_is_the_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "describe", lambda: {"processor": "Mine"})
    assert recorded._processor("http://127.0.0.1:8", ("Theirs",)) == "Mine"
    assert recorded._processor("http://far.example", ("Theirs",)) == "Theirs"
    assert recorded._processor("http://far.example", ("Theirs", "Others")) == ""
    assert recorded._processor("http://far.example", ()) == ""


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, {"error": {"message": "not\nserved"}}), "HTTP 404: not served"),
        ((302, b""), "HTTP 302, and no JSON"),
        ((500, b"<html>"), "HTTP 500, and no JSON"),
        ((200, b"[1]"), "its answer is not a chat completion"),
        ((200, completion([1])), "its answer is not a chat completion"),
        ((200, completion("x", "slm/4-cd")), "'slm/4-cd' answered, expected 'slm/3-abababababab'"),
    ],
)
def test_what_is_no_answer_of_the_version_is_told_and_counts_for_nothing(
    servers: Servers, answer: tuple[int, Any], error: str
) -> None:
    server = servers(lambda _: answer)
    found = asked(server.url)
    assert found.told == 0 and found.figure(MonitorConfig()) is None
    assert found.answers[0].error is not None and error in found.answers[0].error
    assert "\n" not in found.answers[0].error
    assert len(server.asked) == 8  # nothing follows a redirection


def test_a_server_that_is_away_is_told() -> None:
    found = asked("http://127.0.0.1:9")
    assert found.answers == ()
    assert "monitor.endpoint='http://127.0.0.1:9' does not answer" in found.skipped


def test_a_missing_key_is_told_once(servers: Servers) -> None:
    server = servers(lambda _: (401, {"error": {"message": "no"}}))
    found = asked(server.url)
    assert found.answers == ()
    assert "wants an API key: export SLM_MONITOR_API_KEY" in found.skipped
    assert len(server.asked) == 1


def test_the_key_comes_from_the_environment(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = servers(as_recorded)
    monkeypatch.setenv("SLM_MONITOR_API_KEY", "a-key-of-sixteen")
    asked(server.url)
    assert set(server.keys) == {"Bearer a-key-of-sixteen"}


def test_without_an_endpoint_or_answers_it_says_so(servers: Servers) -> None:
    assert "monitor.endpoint names no running server" in asked(None).skipped
    server = servers(as_recorded)
    assert "holds no questions and answers" in asked(server.url, quality={}).skipped
    assert server.asked == []


def test_items_that_the_evaluation_asked_otherwise_are_left_out() -> None:
    _, candidate = reported()
    questions: dict[str, Any] = {
        item: [{"role": "user", "content": text}] for item, text in scene.QUESTIONS.items()
    }
    questions["item-1"].insert(0, {"role": "system", "content": "Be brief."})
    del questions["item-2"]
    chosen = recorded.chosen(candidate.quality.items, questions)
    assert len(chosen) == 8 and not {"item-1", "item-2"} & {item.id for item in chosen}
    assert recorded.chosen(candidate.quality.items[:5], questions) == [
        candidate.quality.items[place] for place in (0, 3, 4)
    ]
