"""lm-eval as an option: clear without it, and a local task scored with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steps.config.evaluate import EvaluateConfig
from steps.core.errors import ConfigError
from steps.evaluation import lm_eval_tasks
from steps.evaluation.evaluate import evaluate_models
from tests.evaluation.settings import QUICK, config

TASK = """task: sums
dataset_path: json
dataset_kwargs:
  data_files: {test: %s}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


class Answers:
    """A candidate that knows one sum of two."""

    def ask(self, command: str, **arguments: Any) -> Any:
        assert command == "answer" and arguments["max_tokens"] == 8
        return {"text": "7\nand so on" if "10 - 3" in arguments["messages"][0]["content"] else "7"}


def test_without_the_package_the_cure_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lm_eval_tasks, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install lm-eval"):
        lm_eval_tasks.check(["sums"], str(tmp_path))
    lm_eval_tasks.check([], None)
    with pytest.raises(ConfigError, match=r"evaluate\.lm_eval_path"):
        EvaluateConfig(lm_eval_tasks=["sums"])


def test_folder_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_eval_tasks, "find_spec", lambda _: object())
    with pytest.raises(ConfigError, match=r"evaluate\.lm_eval_path='/nowhere'"):
        lm_eval_tasks.check(["sums"], "/nowhere")


@pytest.mark.parametrize(
    ("text", "asked", "said"),
    [
        (TASK % "sums.jsonl", "products", r"evaluate\.lm_eval_tasks='products'.*\(sums\)"),
        (TASK % "sums.jsonl" + "broken: [", "sums", r"sums\.yaml'.*valid YAML"),
        (
            TASK.replace("generate_until", "multiple_choice") % "sums.jsonl",
            "sums",
            "not multiple_choice",
        ),
    ],
)
def test_what_cannot_run_is_said_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, asked: str, said: str
) -> None:
    monkeypatch.setattr(lm_eval_tasks, "find_spec", lambda _: object())
    (tmp_path / "sums.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        lm_eval_tasks.check([asked], str(tmp_path))


def test_a_good_task_is_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lm_eval_tasks, "find_spec", lambda _: object())
    (tmp_path / "sums.yaml").write_text(
        TASK % "sums.jsonl" + "process_docs: !function utils.clean\n"
    )
    (tmp_path / "notes.yaml").write_text("- a list\n")
    lm_eval_tasks.check(["sums"], str(tmp_path))


@pytest.fixture
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task of two sums, and no network for who scores it."""
    for key, value in (
        ("HF_HOME", str(tmp_path / "cache")),
        ("HF_HUB_OFFLINE", "1"),
        ("HF_DATASETS_OFFLINE", "1"),
    ):
        monkeypatch.setenv(key, value)
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"question": "10 - 3 =", "answer": "7"}, {"question": "3 + 3 =", "answer": "6"}]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sums.yaml").write_text(TASK % (folder / "sums.jsonl"))
    return folder


@pytest.mark.slow
def test_a_local_task_is_scored(sums: Path) -> None:
    figures = lm_eval_tasks.run(Answers(), ["sums"], str(sums), seed=0)
    assert figures["lm_eval/sums/exact_match"] == 0.5
    assert lm_eval_tasks.run(Answers(), ["sums"], str(sums), seed=0, limit=1) == {
        "lm_eval/sums/exact_match": 1.0
    }


@pytest.mark.slow
def test_an_evaluation_has_the_tasks_score(
    sums: Path, clerk: Callable[[str], str], tmp_path: Path
) -> None:
    """lm-eval itself asks a candidate's process, which knows one of the two."""
    settings = config(**QUICK, lm_eval_tasks=["sums"], lm_eval_path=str(sums))
    workdir = tmp_path / "work"
    workdir.mkdir()
    report = evaluate_models([clerk("good")], settings, incumbent_uri=None, workdir=workdir)
    (candidate,) = report.candidates
    assert candidate.failure is None
    assert candidate.metrics["lm_eval/sums/exact_match"] == 0.5
