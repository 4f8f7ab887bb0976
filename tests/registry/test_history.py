"""The history on the screen: newest first, within 80 columns, in a few calls however long it is."""

import json
from typing import Any

import mlflow
import pytest

from steps.core.errors import StepError
from steps.registry.client import RegistryClient
from steps.registry.table import show_history
from tests.registry import registries, scene
from tests.registry.doubles import counted

NAME = "model-000"
TARGET = f"target=models:/{NAME}"


def test_long_history_in_few_calls(tracking: str, capsys: pytest.CaptureFixture[str]) -> None:
    registries.settled(tracking, models=1, entries=501)
    counter = counted(mlflow.MlflowClient())
    found = show_history(
        scene.config(TARGET), as_json=False, registry=RegistryClient(5, client=counter)
    )
    assert len(found["entries"]) == 501 and len(counter.made) == 5
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    numbers = [int(line.split()[0]) for line in lines if line[:4].strip().isdigit()]
    assert numbers == list(range(501, 451, -1))
    assert "… and 451 older: limit=501 shows all" in lines
    assert "not in line" not in "\n".join(lines)  # `candidate` is no move


def test_limit_and_long_words(tracking: str, capsys: pytest.CaptureFixture[str]) -> None:
    registries.settled(tracking, models=1, entries=3)
    long = {
        "reason": "word " * 100 + "x" * 200 + "\x1b[31m red",
        "evidence": f"runs:/{'0' * 32}/report.json",
        "actor": "rosa@example.org",
    }
    registries.write_entry(tracking, NAME, 3, **long)
    found = show_history(scene.config(TARGET), as_json=False, limit=2)
    assert [entry["entry"] for entry in found["entries"]] == [3, 4]
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out and max(map(len, out.splitlines())) <= 80
    assert out.index("   4  ") < out.index("   3  ") and "   2  " not in out
    assert (
        "promote by rosa@example.org" in out
        and f"evidence: runs:/{'0' * 32}/report.json" in out.replace("\n      ", "")
    )


def test_damaged_entry_is_one_line(tracking: str) -> None:
    registries.settled(tracking, models=1)
    mlflow.MlflowClient().set_model_version_tag(f"{NAME}.history", "1", "slm.record", "{")
    with pytest.raises(
        StepError,
        match=(
            r"^entry 1 of 'model-000\.history' cannot be read: its tag slm\.record is not a record"
            r" \(JSONDecodeError: .*restore the tag"
        ),
    ):
        show_history(scene.config(TARGET), as_json=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": "\ud800"}, "UnicodeEncodeError"),
        (
            {"moves": [["champion", None, 10**30]]},
            "ValueError: 10{30} is not the number of a version",
        ),
        ({"moves": [["champion", None, 0]]}, "ValueError: 0 is not the number of a version"),
    ],
)
def test_entry_of_what_no_server_has_is_one_line(
    tracking: str, changes: dict[str, Any], words: str
) -> None:
    registries.settled(tracking, models=1)
    client, journal = mlflow.MlflowClient(), f"{NAME}.history"
    record = json.loads(client.get_model_version(journal, "1").tags["slm.record"]) | changes
    client.set_model_version_tag(journal, "1", "slm.record", json.dumps(record))
    with pytest.raises(
        StepError, match=rf"^entry 1 of 'model-000\.history' cannot be read: .*\({words}"
    ):
        show_history(scene.config(TARGET), as_json=False)


def test_details_of_another_shape_are_shown_as_they_are(
    tracking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    registries.settled(tracking, models=1)
    registries.write_entry(tracking, NAME, 1, details={"isolation_missing": 5})
    registries.write_entry(tracking, NAME, 2, details={"isolation_missing": ["files", "network"]})
    show_history(scene.config(TARGET), as_json=False)
    out = capsys.readouterr().out
    assert (
        "its canary was not kept from: 5" in out
        and "its canary was not kept from: files; network" in out
    )
