"""How the benchmarks count, what they ask, and what a call of them leaves of an earlier one."""

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import gguf
import numpy as np
import pytest
import requests

from benchmarks import clients
from benchmarks.clients import Answered, Question
from benchmarks.lines import LINES
from benchmarks.machine import instruction_set
from benchmarks.measure import Effort, LeftOut, Row, comparison, in_turn
from benchmarks.peers import NotInstalledError, Peer
from benchmarks.q8_gguf import write_q8
from benchmarks.run import main, write_results
from benchmarks.server_lines import rounds
from benchmarks.subjects import Subjects


def row(name: str, figure: str = "rate", against: str = "peer", **values: Any) -> dict[str, Any]:
    return {"name": name, "figure": figure, "against": against, **values}


def test_a_call_for_one_line_keeps_what_is_known_of_the_others(tmp_path: Path) -> None:
    file = tmp_path / "results.json"

    def lines() -> Any:
        return json.loads(file.read_text())["lines"]

    write_results(file, [row("decode", ratio=1), row("together", ratio=1)])
    write_results(file, [row("decode", ratio=2)])
    assert lines() == [row("together", ratio=1), row("decode", ratio=2)]
    # its figures were measured all the same
    write_results(file, [row("decode", reason="not installed: make peers")])
    assert lines() == [row("together", ratio=1), row("decode", ratio=2)]
    # a row that a line no longer has goes, and so does a line that is no more
    file.write_text(json.dumps({"lines": [*lines(), row("decode", "old"), row("served")]}))
    write_results(file, [row("decode", ratio=3)])
    assert lines() == [row("together", ratio=1), row("decode", ratio=3)]


def test_a_row_that_is_measured_at_last_is_no_longer_left_out(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write_results(file, [row("decode", reason="not installed: make peers")])
    assert "reason" in json.loads(file.read_text())["lines"][0]
    write_results(file, [row("decode", ratio=3)])
    assert json.loads(file.read_text())["lines"] == [row("decode", ratio=3)]


def test_all_are_measured_in_turn_and_another_begins_every_time() -> None:
    calls: list[str] = []

    def measure(name: str) -> int:
        calls.append(name)
        return len(calls)

    values = in_turn({name: lambda name=name: measure(name) for name in "abc"}, 3, warm=True)  # type: ignore[misc]
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert values == {"a": [4, 9, 11], "b": [5, 7, 12], "c": [6, 8, 10]}


def test_an_answer_that_ends_late_counts_by_its_share_of_the_time() -> None:
    answers = [Answered(0.0, 6.0, 60), Answered(6.0, 14.0, 40), Answered(9.0, 11.0, 10)]
    assert clients.tokens_within(answers, 10.0) == 60 + 20 + 5


def test_a_seed_gives_the_same_questions_within_their_bounds() -> None:
    first, again = (list(islice(clients.questions("a"), 200)) for _ in range(2))
    assert first == again != list(islice(clients.questions("b"), 200))
    words = [len(question.content.split()) for question in first]
    limits = [question.limit for question in first]
    assert (min(words) >= 20, max(words) <= 250) == (True, True)
    assert (min(limits) >= 16, max(limits) <= 64) == (True, True)
    assert len({question.content for question in first}) == 200  # no prompt that a cache knows


class Answering(BaseHTTPRequestHandler):
    """A server of chat completions that says what it is told to say."""

    asked: ClassVar[dict[str, list[str]]] = {}  # contents by path
    text: ClassVar[str] = "Once upon a time"
    tokens: ClassVar[int] = 4
    status: ClassVar[int] = 200

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.setdefault(self.path, []).append(asked["messages"][0]["content"])
        message = {"role": "assistant", "content": self.text}
        completion = {
            "choices": [{"message": message}],
            "usage": {"completion_tokens": self.tokens},
        }
        body = json.dumps(completion).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture
def answering() -> Iterator[str]:
    Answering.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_client_asks_until_the_time_is_over(answering: str) -> None:
    answers = clients.run(clients.ask_over_http(answering), 3, 0.2, "seed")
    assert len(answers) >= 3
    assert {answer.tokens for answer in answers} == {4}
    assert all(0 <= answer.started < 0.2 and answer.started < answer.ended for answer in answers)


def test_servers_get_the_same_questions_in_a_round_and_new_ones_in_the_next(
    answering: str,
) -> None:
    urls = {name: f"{answering}/{name}" for name in ("ours", "theirs")}
    effort = Effort(rounds=2, seconds=0.1, clients=(1, 2))
    loads = rounds(urls, effort)
    assert {key: len(values) for key, values in loads.items()} == {
        (name, number): 2 for name in urls for number in (1, 2)
    }
    assert all(load.rate > 0 and load.p95 > 0 for values in loads.values() for load in values)
    first, second = (list(dict.fromkeys(Answering.asked[f"/{name}"])) for name in urls)
    assert len(first) == len(Answering.asked["/ours"])  # no prompt that a cache knows
    assert len(second) == len(Answering.asked["/theirs"])
    for part in range(2):
        for number in (1, 2):
            opening = {
                next(clients.questions(f"round {part}, {number} clients, client {client}")).content
                for client in range(number)
            }
            assert opening <= set(first)
            assert opening <= set(second)


@pytest.mark.parametrize(
    ("text", "tokens", "status", "said"),
    [
        ("", 4, 200, "answered 4 of 20 tokens: ''"),
        ("Once", 0, 200, "answered 0 of 20 tokens"),
        ("Once", 21, 200, "answered 21 of 20 tokens"),
        ("Once", 4, 503, "answered 503"),
    ],
)
def test_an_answer_that_would_make_a_server_fast_is_refused(
    answering: str, monkeypatch: pytest.MonkeyPatch, text: str, tokens: int, status: int, said: str
) -> None:
    for name, value in {"text": text, "tokens": tokens, "status": status}.items():
        monkeypatch.setattr(Answering, name, value)
    with requests.Session() as session, pytest.raises(RuntimeError, match=said):
        clients.ask_over_http(answering)(session, Question("Hi", 20))


def test_without_their_environment_the_peers_say_the_command(tmp_path: Path) -> None:
    subjects = Subjects(peers=tmp_path / "none")
    try:
        with pytest.raises(NotInstalledError, match=r"^not installed: make peers$"):
            subjects.peer("llama_cpp")
    finally:
        subjects.close()


PEER = """
import json, sys
print("a line of native code")
print(json.dumps({"url": "http://here", "about": {"peer": "1"}}), flush=True)
for line in sys.stdin:
    limit = json.loads(line)["limit"]
    if limit == 0:
        sys.exit("no tokens were asked for")
    answer = {"first": 0.5, "between": 0.25, "tokens": limit, "prompt_tokens": 9}
    print(json.dumps(answer), flush=True)
"""


def test_a_peer_answers_line_by_line_and_its_end_is_told(tmp_path: Path) -> None:
    peer = Peer([sys.executable, "-c", PEER], tmp_path / "log")
    try:
        assert (peer.url, peer.about) == ("http://here", {"peer": "1"})
        times = peer.times("Hi", 7)
        assert (times.first, times.rate, times.tokens) == (0.5, 4.0, 7)
        with pytest.raises(RuntimeError, match="no tokens were asked for"):
            peer.times("Hi", 0)
    finally:
        peer.close()


def test_a_row_without_its_peer_says_so_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def line(subjects: Subjects, effort: Effort) -> list[Row]:
        assert effort.rounds == 3
        with pytest.raises(NotInstalledError) as absent:
            subjects.peer("openvino")
        left_out = LeftOut("decode", "openvino", str(absent.value))
        slow = comparison("decode", "raw loop", "tokens/s", ([1.0, 1.0], [2.0, 2.0]), at_least=0.98)
        return [slow, comparison("decode", "another", "tokens/s", ([1.0], [2.0])), left_out]

    monkeypatch.setitem(LINES, "decode", line)
    output = tmp_path / "results.json"
    words = ["--only", "decode", "--peers", str(tmp_path), "--output", str(output)]
    assert main(words) == 0
    shown = [shown for shown in capsys.readouterr().out.splitlines() if "│ decode" in shown]
    assert ["raw loop" in shown[0], "≥ 0.98" in shown[0], "missed" in shown[0]] == [True] * 3
    assert ["another" in shown[1], "≥" in shown[1], "missed" in shown[1]] == [True, False, False]
    assert "not installed: make peers" in shown[2]
    lines = json.loads(output.read_text())["lines"]
    assert [kept.get("reason") for kept in lines] == [None, None, "not installed: make peers"]
    assert lines[0]["machine"]["instruction_set"]


def test_a_short_call_claims_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def line(subjects: Subjects, effort: Effort) -> list[Row]:  # noqa: ARG001 - the line's shape
        assert effort.clients == (4, 8)
        return [comparison("decode", "raw loop", "tokens/s", ([1.0], [2.0]), at_least=0.98)]

    monkeypatch.setitem(LINES, "decode", line)
    output = tmp_path / "results.json"
    assert main(["--short", "--only", "decode", "--output", str(output)]) == 0
    assert not output.exists()
    shown = capsys.readouterr().out
    assert "too short for claims" in shown
    assert "missed" not in shown


def test_the_widest_instruction_set_is_named() -> None:
    assert instruction_set(["flags\t\t: fpu avx avx2 avx512f avx512_vnni"]) == "AVX-512 VNNI"
    assert instruction_set(["model name : AVX512", "flags : avx avx2"]) == "AVX2"
    assert instruction_set(["Features : fp asimd asimddp"]) == "NEON dot product"


def test_q8_keeps_norms_metadata_and_tokenizer_and_half_a_step_of_the_weights(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "q4.gguf", tmp_path / "q8.gguf"
    random = np.random.default_rng(0)
    weight = random.normal(size=(4, 64)).astype(np.float32)
    norm = random.normal(size=64).astype(np.float32)
    q4 = gguf.GGMLQuantizationType.Q4_1
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    writer.add_block_count(2)
    writer.add_token_list(["a", "b", "Ġc"])
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("weight", gguf.quants.quantize(weight, q4), raw_dtype=q4)
    writer.add_tensor("norm", norm)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    write_q8(source, target)

    before, after = gguf.GGUFReader(source), gguf.GGUFReader(target)

    def metadata(reader: Any) -> dict[str, Any]:
        return {
            name: field.contents()
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        }

    file_type = {"general.file_type": int(gguf.LlamaFileType.MOSTLY_Q8_0)}
    assert metadata(after) == metadata(before) | file_type
    tensors = {tensor.name: tensor for tensor in after.tensors}
    assert [tensor.tensor_type.name for tensor in tensors.values()] == ["Q8_0", "F32"]
    assert np.array_equal(tensors["norm"].data, norm)
    given = gguf.quants.dequantize(before.tensors[0].data, q4)
    kept = gguf.quants.dequantize(tensors["weight"].data, gguf.GGMLQuantizationType.Q8_0)
    step = np.abs(given.reshape(-1, 32)).max(axis=1, keepdims=True) / 127
    # half a step, and the rounding of the scale to float16
    assert (np.abs(given - kept).reshape(-1, 32) <= 0.57 * step).all()
