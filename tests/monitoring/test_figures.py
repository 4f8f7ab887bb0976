"""What of the live requests is compared with what of the evidence."""

import json
from dataclasses import replace
from typing import Any, cast

import pytest

from steps.config.monitor import BandsConfig, MonitorConfig
from steps.core.errors import ConfigError
from steps.evaluation.report import SCHEMA, CandidateReport, Report
from steps.monitoring import baseline, figures
from steps.monitoring.baseline import Baseline
from steps.monitoring.figures import Figure
from steps.monitoring.live import LiveAnswer
from tests.evaluation import sample
from tests.monitoring import scene

CONFIG = MonitorConfig(min_requests=20, resamples=200)


def reported(**changes: Any) -> tuple[Report, CandidateReport]:
    """A report as the monitor's tests make one, without a registry."""
    row = {"name": "response_format json_object", "passed": True, "limit": None, "detail": ""}
    one = {
        "uri": "models:/m-1",
        "model_id": "m-1",
        "variant": "onnx",
        "digest": "sha256:1",
        "status": "evaluated",
        "metrics": {"speed/prompt_tokens": 50.0, "speed/prompt_tokens_long": 450.0},
        "quality": {"items": scene.items()},
        "conformance": {"rows": [row], "complete": True},
        "series": scene.series(),
        **changes,
    }
    text = {
        "schema": SCHEMA,
        "registered_name": "slm",
        "machine": {"processor": scene.PROCESSOR},
        "candidates": [one],
        "created": "2026-11-20T12:00:00+00:00",
    }
    report = Report.from_json(json.dumps(text))
    return report, report.candidates[0]


def known() -> Baseline:
    return baseline.of(*reported())


def measured(
    answers: list[Any], config: MonitorConfig = CONFIG, of: Baseline | None = None
) -> dict[str, Figure]:
    live = [LiveAnswer(one, 1000 * place) for place, one in enumerate(answers)]
    return {figure.name: figure for figure in figures.measure(live, of or known(), config)}


def test_the_baseline_is_in_the_report() -> None:
    found = known()
    assert found.first_token == ((50.0, 0.1), (450.0, 0.5))
    assert found.inter_token_s == pytest.approx(0.02)
    assert found.slowdown == ((1.0, 1.0), (4.0, 2.0))  # 50 tokens a second alone, 100 of four
    assert (found.answer_tokens, found.error_rate, found.format_validity) == (10, 0, 1.0)
    # four of twenty decline, and two of these were to be declined
    assert found.refusal_rate == pytest.approx(2 / 18)
    assert (found.processor, found.items) == (scene.PROCESSOR, 20)


def test_a_first_token_is_expected_by_the_length_of_the_prompt() -> None:
    found = known()
    assert found.first_token_after(50) == found.first_token_after(30) == 0.1
    assert found.first_token_after(250) == pytest.approx(0.3)
    assert found.first_token_after(850) == pytest.approx(0.9)
    assert found.first_token_after(24) is None and found.first_token_after(901) is None


def test_a_token_is_expected_by_how_many_are_asked_at_once() -> None:
    found = known()
    assert found.inter_token_with(1) == pytest.approx(0.02)
    assert found.inter_token_with(4) == pytest.approx(0.04)
    assert found.inter_token_with(2) == pytest.approx(0.02 * (1 + 1 / 3))
    assert found.inter_token_with(5) is None


def test_a_report_without_answers_and_timings_has_no_baseline_and_says_so() -> None:
    bare = baseline.of(*reported(series={}, quality={}, conformance={"rows": []}, metrics={}))
    assert bare == Baseline(processor=scene.PROCESSOR)
    found = measured(scene.answers(30), of=bare)
    assert {figure.state for figure in found.values()} == {"not_measured"}
    assert found["inter_token"].why == "the evidence holds no such timings"


def test_json_items_count_where_the_contract_has_no_row() -> None:
    check = {"type": "json_valid", "passed": False, "detail": ""}
    items = scene.items()
    items[1]["checks"], items[2]["checks"] = [check], [{**check, "passed": True}]
    found = baseline.of(*reported(conformance={"rows": []}, quality={"items": items}))
    assert found.format_validity == 0.5


def test_a_real_report_has_a_baseline() -> None:
    report = sample.report()
    found = baseline.of(report, report.candidates[1])
    assert len(found.first_token) == 2 and found.refusal_rate == 0
    assert found.answer_tokens and found.processor == "A processor"


def test_only_lone_requests_of_a_similar_length_tell_of_the_first_token() -> None:
    answers = [
        *scene.answers(30),
        *scene.answers(20, slower=9, concurrency=2),
        *scene.answers(10, slower=9, prompt_tokens=2000),
        *scene.answers(5, first_token_s=None),
        *scene.answers(5, outcome="503"),
    ]
    found = measured(answers)["time_to_first_token"]
    assert (found.requests, found.left_out, found.state) == (30, 30, "within")


def test_requests_side_by_side_are_slower_and_no_drift() -> None:
    answers = scene.answers(40, slower=2, concurrency=4)
    found = measured(answers)["inter_token"]
    assert found.tested == pytest.approx(1.0, abs=0.1) and found.state == "within"
    alone = measured(scene.answers(40, slower=2))["inter_token"]
    assert alone.tested == pytest.approx(2.0, abs=0.2) and alone.state == "drifted"
    assert measured(scene.answers(40, tokens=7))["inter_token"].left_out == 40


def test_what_the_client_did_is_no_error_of_the_version() -> None:
    answers = [
        *scene.answers(60),
        *scene.answers(30, outcome="429"),
        *scene.answers(30, outcome="cancelled"),
    ]
    found = measured(answers)["error_rate"]
    assert (found.requests, found.live, found.left_out) == (60, 0, 60)
    failing = measured([*scene.answers(40), *scene.answers(20, outcome="503")])["error_rate"]
    assert failing.state == "drifted" and failing.tested == pytest.approx(1 / 3)
    assert "error rate 33.3% (0.0% in the evidence)" in failing.words


def test_formats_and_tokens_that_changed_are_found() -> None:
    broken = measured(scene.answers(60, format_valid=False))["format_validity"]
    assert (broken.state, broken.band_low, broken.band_high) == ("drifted", 0.95, None)
    assert measured(scene.answers(60, format_valid=True))["format_validity"].state != "drifted"
    endless = measured(scene.answers(60, tokens=64))["answer_tokens"]
    assert endless.state == "drifted" and "6.4 times" in endless.words
    empty = measured(scene.answers(60, tokens=1))["answer_tokens"]
    assert empty.state == "drifted" and "band 0.25 to 4" in empty.words


def test_more_figures_make_each_interval_wider() -> None:
    one = MonitorConfig(
        min_requests=20,
        resamples=200,
        bands=BandsConfig(
            inter_token=None,
            answer_tokens=None,
            error_rate=None,
            refusal_rate=None,
            format_validity=None,
        ),
    )
    answers = scene.answers(60)
    alone, among = measured(answers, one), measured(answers)
    assert list(alone) == ["time_to_first_token"]
    assert alone["time_to_first_token"].level == pytest.approx(0.95)
    # format_validity has no requests, and does not count
    assert among["time_to_first_token"].level == pytest.approx(0.99)


def test_a_number_of_requests_below_the_least_says_nothing() -> None:
    found = measured(scene.answers(19, slower=9))
    assert {figure.state for figure in found.values()} == {"too_few"}
    assert "19 requests, 20 are needed" in found["inter_token"].why


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoint": "localhost:8000"}, "monitor.endpoint='localhost:8000': expected an address"),
        ({"endpoint": "http://a:b@c"}, r"monitor.endpoint='\*\*\*'.*SLM_MONITOR_API_KEY"),
        ({"rollback_on": ["speed"]}, "monitor.rollback_on='speed': expected some of time_to_first"),
        ({"confidence": 1.0}, "monitor.confidence=1.0: expected a number between 0.5 and 1"),
        ({"min_requests": 3}, "monitor.min_requests=3: expected an integer of at least 10"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        MonitorConfig(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["time_to_first_token", "inter_token", "answer_tokens"])
def test_a_band_is_a_factor_above_one(name: str) -> None:
    with pytest.raises(ConfigError, match=f"monitor.bands.{name}=0.5: expected a factor above 1"):
        BandsConfig(**cast(Any, {name: 0.5}))


def test_too_few_requests_for_the_level_say_nothing_either() -> None:
    config = replace(CONFIG, min_requests=10, confidence=0.99)
    found = measured(scene.answers(10, format_valid=True), config)["inter_token"]
    assert (found.state, found.tested) == ("too_few", None)
    assert found.why == "10 values: too few for an interval of 99.8%"
