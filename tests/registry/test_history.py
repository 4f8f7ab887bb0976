"""The history on the screen: newest first, within 80 columns, in a few calls however long it is."""

import mlflow
import pytest

from steps.pipeline.errors import StepError
from steps.registry.gateway import Gateway
from steps.registry.table import history
from tests.registry import registries, scene
from tests.registry.test_survey import Counter

NAME = "model-000"
TARGET = f"target=models:/{NAME}"


def test_long_history_in_few_calls(tracking: str, capsys: pytest.CaptureFixture[str]) -> None:
    registries.settled(tracking, models=1, entries=501)
    counter = Counter(mlflow.MlflowClient())
    found = history(scene.config(TARGET), as_json=False, gateway=Gateway(5, client=counter))  # type: ignore[arg-type]
    assert len(found["entries"]) == 501 and len(counter.made) == 5
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    numbers = [int(line.split()[0]) for line in lines if line[:4].strip().isdigit()]
    assert numbers == list(range(501, 451, -1))
    assert "… and 451 older: limit=501 shows all" in lines
    assert "not in line" not in "\n".join(lines)  # `candidate` is no move


def test_limit_and_long_words(tracking: str, capsys: pytest.CaptureFixture[str]) -> None:
    registries.settled(tracking, models=1, entries=3)
    long = {"reason": "word " * 100 + "x" * 200 + "\x1b[31m red", "evidence": f"runs:/{'0' * 32}/report.json", "actor": "rosa@example.org"}
    registries.write_entry(tracking, NAME, 3, **long)
    found = history(scene.config(TARGET), as_json=False, limit=2)
    assert [entry["entry"] for entry in found["entries"]] == [3, 4]
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out and max(map(len, out.splitlines())) <= 80
    assert out.index("   4  ") < out.index("   3  ") and "   2  " not in out
    assert "promote by rosa@example.org" in out and f"evidence: runs:/{'0' * 32}/report.json" in out.replace("\n      ", "")


def test_damaged_entry_is_one_line(tracking: str) -> None:
    registries.settled(tracking, models=1)
    mlflow.MlflowClient().set_model_version_tag(f"{NAME}.history", "1", "slm.record", "{")
    with pytest.raises(
        StepError,
        match=r"^entry 1 of 'model-000\.history' cannot be read: its tag slm\.record is not a record \(JSONDecodeError: .*restore the tag",
    ):
        history(scene.config(TARGET), as_json=False)
