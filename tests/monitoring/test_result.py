"""What is written and printed, with figures as wide as they come."""

import json
from dataclasses import replace

import pytest
from jsonschema import ValidationError

from steps.monitoring import result, table
from steps.monitoring.figures import Figure
from steps.monitoring.recorded import Recorded, RecordedAnswer
from steps.monitoring.result import Consequences, EvidenceUsed, Monitoring

FIGURES = (
    Figure("time_to_first_token", "ratio", "drifted", 0.1534, 0.0731, 2.1, 1.8, 2.4, 0.992,
           None, 1.5, 2000, 12),
    Figure("inter_token", "ratio", "within", 12.5, 11.25, 1.11, 1.01, 1.2, 0.992, None, 1.5, 2000),
    Figure("answer_tokens", "ratio", "drifted", 9999, 15, 666.6, 555.5, 777.7, 0.992,
           0.25, 4, 2000),
    Figure("error_rate", "share", "undecided", 0.015, 0, 0.015, 0.0123, 0.0234, 0.992, None, 0.02,
           2000),
    Figure("refusal_rate", "share", "within", 0.1666, 0.1555, 0.1666, 0.1234, 0.2345, 0.992,
           0.0055, 0.3055, 2000),
    Figure("format_validity", "share", "too_few", evidence=1, requests=3, why="3 requests, 50 are"
           " needed (monitor.min_requests)"),
    Figure("same_answers", "count", "within", 7, 8, 7, band_low=6, requests=8, why="on a chip"),
)  # fmt: skip
FOUND = Monitoring(
    name="a-registered-model-of-a-very-long-name-as-some-people-have-them",
    version=12,
    alias="champion",
    model_id="m-1",
    digest="sha256:1",
    created="2026-11-27T04:00:00+00:00",
    since="2026-11-26T04:00:00+00:00",
    requests=2000,
    experiment="slm-serving",
    processors=("Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz", "AMD EPYC 7763 64-Core Processor"),
    evidence=EvidenceUsed("runs:/" + "0" * 32 + "/report.json", "sha256:2", "", 128, "AMD EPYC"),
    figures=FIGURES,
    recorded=Recorded((RecordedAnswer("sum-1", False, 12, 40),), "", "AMD EPYC", "AMD EPYC"),
    confidence=0.95,
    consequences=Consequences(tag="2026-11-27: " + FIGURES[0].words, rollback="none: a reason"),
)


def test_no_line_is_longer_than_eighty_columns_and_no_row_is_broken() -> None:
    lines = table.text(FOUND).splitlines()
    assert max(map(len, lines)) <= 80
    rows = {figure.label: line for figure in FIGURES for line in lines
            if line.startswith(f"{figure.label} ")}  # fmt: skip
    assert rows["time to first token"].split()[4:] == (
        ["153", "ms", "73.1", "ms", "2.10x", "(1.80-2.40)", "<=1.50", "2000", "DRIFT"]
    )
    assert rows["time between tokens"].endswith("2000 ok")
    assert rows["format validity"].split()[-2:] == ["3", "few"]
    assert rows["recorded answers"].split()[2:] == ["7", "8", ">=6", "8", "ok"]


def test_it_says_in_words_what_drifted_what_is_missing_and_what_followed() -> None:
    said = " ".join(table.text(FOUND).split())
    for words in (
        "(@champion): out of its band",
        "drift: time to first token 2.1 times the evidence's (99.2% interval 1.8 to 2.4, band 1.5)",
        "format validity: 3 requests, 50 are needed",
        "recorded prompts: 0 of 1 answers are the evidence's; on AMD EPYC",
        "sum-1: the first 12 of 40 characters are the same",
        "tag: 2026-11-27: time to first token",
        "rollback: none: a reason",
    ):
        assert words in said


def test_the_published_schema_is_that_of_the_dataclasses_and_holds() -> None:
    assert json.loads(result.SCHEMA_FILE.read_text()) == result.schema()
    assert FOUND.to_json()["state"] == "drifted"
    wrong = replace(FOUND, figures=(replace(FIGURES[0], name="speed"),))
    with pytest.raises(ValidationError, match="'speed' is not one of"):
        wrong.to_json()


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (("drifted", "within"), "drifted"),
        (("undecided", "within"), "undecided"),
        (("within", "too_few"), "within"),
        (("too_few", "not_measured"), "too_little"),
        ((), "too_little"),
    ],
)
def test_the_whole_is_as_its_worst_figure(states: tuple[str, ...], state: str) -> None:
    figures = tuple(Figure("error_rate", "share", one) for one in states)
    assert replace(FOUND, figures=figures).state == state
