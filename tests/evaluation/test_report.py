"""report.json holds to its schema, and reads back."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from steps.evaluation.report import Report, validate
from tests.evaluation import sample

REPORT = sample.report()


def test_round_trip(tmp_path: Path) -> None:
    digest = REPORT.write(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    assert Report.from_json(text) == REPORT
    assert digest == REPORT.write(tmp_path / "again.json") and digest.startswith("sha256:")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "broken",
    [
        replace(REPORT, candidates=(replace(REPORT.candidates[0], status="perhaps"),)),
        replace(REPORT, candidates=(replace(REPORT.candidates[0], metrics={"Quality": 1.0}),)),
        replace(REPORT, candidates=(replace(REPORT.candidates[2], failure=None),)),
        replace(REPORT, candidates=(replace(REPORT.candidates[0], digest="abc"),)),
        replace(REPORT, created="yesterday"),
    ],
)
def test_what_breaks_the_schema_is_not_written(broken: Report, tmp_path: Path) -> None:
    with pytest.raises(jsonschema.ValidationError):
        broken.write(tmp_path / "report.json")
    assert not list(tmp_path.iterdir())


def test_not_a_number_is_no_metric() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(
            REPORT,
            candidates=(replace(REPORT.candidates[0], metrics={"quality/score": float("nan")}),),
        ).to_json()


def test_foreign_document_is_refused() -> None:
    document = json.loads(REPORT.to_json())
    with pytest.raises(jsonschema.ValidationError):
        validate(document | {"schema": "slm-promote/report/2"})
