"""Whole evaluations of hand-written models: real processes, real store, no weights."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steps.config.evaluate import SpeedConfig
from steps.evaluation.evaluate import evaluate_models
from steps.evaluation.publish import log_report, prefixes
from steps.evaluation.report import Report
from steps.evaluation.worker_process import CandidateProcess
from tests.evaluation import sample
from tests.evaluation.settings import QUICK, config


@pytest.fixture(scope="module")
def evaluated(
    clerk: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Report, Path]:
    """One evaluation of candidates of every kind."""
    workdir = tmp_path_factory.mktemp("evaluated")
    moods = ("good", "crash", "hang", "glutton", "broken", "leaky")
    report = evaluate_models(
        [clerk(mood) for mood in moods],
        config(request_timeout=15.0, memory_limit_bytes=1_500_000_000),
        incumbent_uri=None,
        workdir=workdir,
    )
    return report, workdir


def test_failures_are_results(evaluated: tuple[Report, Path]) -> None:
    report, _ = evaluated
    good, crash, hang, glutton, broken, _leaky = report.candidates
    assert good.status == "evaluated" and good.failure is None
    for candidate, words in (
        (crash, "exit code 3"),
        (hang, "hung"),
        (glutton, "out of memory"),
        (broken, "no such weights"),
    ):
        assert candidate.status == "failed" and candidate.failure is not None
        assert words in candidate.failure.reason
        assert (
            candidate.verdict.decision == "hold" and candidate.verdict.gates[0].name == "evaluated"
        )
    assert crash.failure is not None and "about to die" in crash.failure.log_tail
    assert broken.failure is not None and "RuntimeError" in broken.failure.log_tail


def test_good_candidate_is_whole(evaluated: tuple[Report, Path]) -> None:
    good = evaluated[0].candidates[0]
    assert good.metrics["quality/score"] == 1.0
    assert good.quality.concurrent_items == 8
    broken = [row for row in good.conformance.rows if not row.passed and not row.limit]
    assert not broken
    for name in (
        "speed/load_s",
        "speed/ttft_p50_s",
        "speed/prompt_tokens",
        "speed/itl_p50_s",
        "speed/decode_tokens_per_second",
        "speed/throughput_4",
    ):
        assert good.metrics[name] > 0, name
    assert good.metrics["memory/peak_rss_bytes"] > 50_000_000


def test_broken_contract_holds(evaluated: tuple[Report, Path]) -> None:
    leaky = evaluated[0].candidates[-1]
    broken = {row.name for row in leaky.conformance.rows if not row.passed and not row.limit}
    assert broken == {"public model name", "stop strings"}
    gates = {gate.name: gate for gate in leaky.verdict.gates}
    assert leaky.verdict.decision == "hold" and gates["conformance"].passed is False
    assert "stop strings" in gates["conformance"].reason


def test_report_file_reads_back(evaluated: tuple[Report, Path]) -> None:
    report, workdir = evaluated
    text = (workdir / "report.json").read_text()
    assert Report.from_json(text) == report
    assert json.loads(text)["schema"] == "slm-promote/report/1"


def test_log_report(evaluated: tuple[Report, Path], scoring_store: str) -> None:
    import mlflow

    report, workdir = evaluated
    mlflow.set_experiment("scoring")
    with mlflow.start_run() as run:
        log_report(report, workdir)
    client = mlflow.MlflowClient(scoring_store)
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"report.json", "report.html", "pictures", "answers.json"}
    assert {file.path for file in client.list_artifacts(run.info.run_id, "pictures")} >= {
        "pictures/quality.png",
        "pictures/pareto.png",
    }
    on_run = client.get_run(run.info.run_id).data.metrics
    # the fifth of five, four of which failed
    assert on_run["transformers/quality/score"] == 1.0 and "onnx-5/quality/score" in on_run
    # what people compare by, and no more: the report has the rest
    assert "quality/latency_p50_s" in report.candidates[0].metrics
    assert not any("/skill/" in name or name.endswith("quality/latency_p50_s") for name in on_run)
    logged = client.get_logged_model(report.candidates[0].model_id)
    assert logged.metrics is not None
    assert {metric.key: metric.value for metric in logged.metrics}["quality/score"] == 1.0


def test_same_inputs_same_verdict_against_the_incumbent(
    clerk: Callable[[str], str], tmp_path: Path
) -> None:
    """A candidate that knows less than what serves now is not promoted, and a second evaluation
    says the same.
    """
    quick = config(speed=SpeedConfig(enabled=False), conformance=False)
    reports = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        reports.append(
            evaluate_models(
                [clerk("forgetful")], quick, incumbent_uri=clerk("good"), workdir=tmp_path / name
            )
        )
    first, second = reports
    candidate, incumbent = first.candidates
    assert (candidate.role, incumbent.role) == ("candidate", "incumbent")
    assert first.incumbent is not None and first.incumbent["model_id"] == incumbent.model_id
    assert candidate.metrics["quality/score"] < incumbent.metrics["quality/score"]
    assert len(first.notes) == 1 and first.notes[0].startswith(
        "8 items are too few to stake a promotion on: about 124"
    )
    gate = next(gate for gate in candidate.verdict.gates if gate.name == "quality vs incumbent")
    assert (
        candidate.verdict.decision == "hold"
        and gate.passed is False
        and "on 8 items" in gate.reason
    )
    for before, after in zip(first.candidates, second.candidates, strict=True):
        assert before.verdict == after.verdict
        assert [(item.id, item.answer, item.score) for item in before.quality.items] == [
            (item.id, item.answer, item.score) for item in after.quality.items
        ]
    # nothing is left to continue from
    assert not list((tmp_path / "first" / "answers").glob("*.jsonl"))


def asked(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[str]:
    """Counts the items that candidates are asked, and interrupts the evaluation when some of them
    are answered.
    """
    questions: list[str] = []
    calls: list[str] = []  # each of which ends with one answer
    real = CandidateProcess.ask

    def ask(self: CandidateProcess, command: str, **arguments: Any) -> Any:
        if command == "answer_next":
            if len(calls) == stop_after:
                raise KeyboardInterrupt
            calls.append(command)
            questions.extend(str(item["messages"]) for item in arguments["begin"])
        return real(self, command, **arguments)

    monkeypatch.setattr(CandidateProcess, "ask", ask)
    return questions


def test_an_interrupted_evaluation_goes_on(
    clerk: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three answers were given; the next evaluation asks for the other five, says so, and forgets
    them all.
    """
    cache = tmp_path / "answers"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        asked(patch, stop_after=3)
        evaluate_models(
            [clerk("good")], config(**QUICK), incumbent_uri=None, workdir=tmp_path, cache=cache
        )
    with monkeypatch.context() as patch:
        rest = asked(patch)
        report = evaluate_models(
            [clerk("good")], config(**QUICK), incumbent_uri=None, workdir=tmp_path, cache=cache
        )
    assert len(rest) == 5
    assert any(
        note.startswith("3 of 8 answers of transformers-") and "an earlier process" in note
        for note in report.notes
    )
    whole = evaluate_models(
        [clerk("good")],
        config(**QUICK, resume=False),
        incumbent_uri=None,
        workdir=tmp_path,
        cache=cache,
    )
    assert not any("earlier process" in note for note in whole.notes)
    texts = [
        [(item.id, item.answer) for item in evaluation.candidates[0].quality.items]
        for evaluation in (report, whole)
    ]
    assert texts[0] == texts[1] and not list(cache.glob("*"))


def test_a_server_that_fails_at_the_end_loses_nothing(
    clerk: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report is kept where the error says, and the answers for the next attempt."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def unreachable(report: Report, workdir: Path) -> None:
        assert (workdir / "report.json").is_file() and report.candidates
        raise ConnectionError("the server is gone")

    workdir = tmp_path / "work"
    workdir.mkdir()
    with pytest.raises(ConnectionError) as raised:
        evaluate_models(
            [clerk("good")],
            config(**QUICK),
            incumbent_uri=None,
            workdir=workdir,
            cache=tmp_path / "answers",
            log_to=unreachable,
        )
    (kept,) = tmp_path.glob("slm-evaluation-*")
    assert str(kept) in raised.value.__notes__[0]
    assert (
        Report.from_json((kept / "report.json").read_text()).candidates[0].metrics["quality/score"]
        == 1.0
    )
    assert len(list((tmp_path / "answers").glob("*.jsonl"))) == 1


def test_traces_come_last_and_may_fail(
    clerk: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def broken(*_: Any) -> None:
        order.append("traces")
        raise ConnectionError("the server is gone")

    monkeypatch.setattr("steps.evaluation.evaluate.trace_all", broken)
    settings = config(**QUICK, traces=True)
    report = evaluate_models(
        [clerk("good")],
        settings,
        incumbent_uri=None,
        workdir=tmp_path,
        log_to=lambda *_: order.append("report"),
    )
    assert order == ["report", "traces"] and report.candidates[0].status == "evaluated"
    assert not list((tmp_path / "answers").glob("*"))


def test_one_model_under_two_names_is_one_candidate(
    clerk: Callable[[str], str], scoring_store: str, tmp_path: Path
) -> None:
    import mlflow

    client = mlflow.MlflowClient(scoring_store)
    version = mlflow.register_model(clerk("good"), "clerk-twice").version
    client.set_registered_model_alias("clerk-twice", "champion", version)
    uris = [f"models:/clerk-twice/{version}", "models:/clerk-twice@champion"]
    report = evaluate_models(
        uris, config(**QUICK), incumbent_uri="models:/clerk-twice@champion", workdir=tmp_path
    )
    (only,) = report.candidates
    assert (only.uri, only.role) == (uris[0], "incumbent")
    assert report.incumbent == {"uri": uris[0], "model_id": only.model_id, "version": str(version)}


def test_more_than_fits_is_said_up_front(
    clerk: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10, total=10))
    report = evaluate_models([clerk("good")], config(**QUICK), incumbent_uri=None, workdir=tmp_path)
    assert "of memory were available" in report.notes[0]


def test_metric_names_do_not_depend_on_who_serves() -> None:
    one, two = sample.report().candidates[:2]
    assert prefixes([one, two]) == ["incumbent", "onnx"]
    assert prefixes([replace(one, role="candidate"), two, replace(two, role="incumbent")]) == [
        "transformers",
        "onnx",
        "incumbent",
    ]
    assert prefixes([two, one, two]) == ["onnx-1", "incumbent", "onnx-2"]
