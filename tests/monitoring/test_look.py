"""One look at a served version, on a SQLite store: what it finds, and what follows."""

import json
from collections.abc import Iterator
from typing import Any

import mlflow
import pytest

from steps.config.root import Config
from steps.core.errors import ConfigError, StepError
from steps.monitoring import table
from steps.monitoring.look import look
from steps.monitoring.result import Monitoring
from steps.registry import delivery
from steps.registry.client import RegistryClient, ServerUnavailableError
from steps.registry.result import RefusedError
from tests.monitoring import scene as monitored
from tests.monitoring.conftest import Evidence
from tests.registry import commands, scene
from tests.registry.doubles import SECRET, WebhookEndpoint

pytestmark = pytest.mark.usefixtures("served")
MANY = 14  # requests that are enough here


def looked(*overrides: str, config: Config | None = None) -> Monitoring:
    with mlflow.start_run():
        return look(config or monitored.config(*overrides), RegistryClient(5))


def states(found: Monitoring) -> dict[str, str]:
    return {figure.name: figure.state for figure in found.figures}


def tag(number: int = 2) -> str:
    return scene.version_tags(number).get("slm.monitor", "")


def moves() -> list[tuple[str, dict[str, Any]]]:
    """Kind and details of the history's entries that move an alias."""
    return [
        (entry.record.kind, dict(entry.record.details))
        for entry in scene.history().entries
        if entry.record.moves
    ]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookEndpoint]:
    monkeypatch.setenv("SLM_NOTIFICATIONS_SECRET", SECRET)
    endpoint = WebhookEndpoint((204,))
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


def told(receiver: WebhookEndpoint, config: Config) -> list[dict[str, Any]]:
    assert delivery.courier(config.notifications, SECRET).flush(10)
    return [event["data"] for event in receiver.events()]


def test_what_did_not_drift_is_measured_and_changes_nothing() -> None:
    monitored.write(monitored.answers(MANY))
    with mlflow.start_run() as run:
        found = look(monitored.config(), RegistryClient(5))
    said = states(found)
    assert said["time_to_first_token"] == said["inter_token"] == "within"
    assert said["answer_tokens"] == "within"
    assert said["format_validity"] == "too_few" and "drifted" not in said.values()
    assert (found.state, found.requests, found.processors) == ("undecided", MANY, ("A processor",))
    assert tag() == "" and [kind for kind, _ in moves()] == ["register", "register"]
    kept = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/monitor.json")
    assert (kept["schema"], kept["state"]) == ("slm-promote/monitor/1", "undecided")
    assert kept["evidence"]["uri"] == scene.version_tags(2)["slm.evaluation"]
    first = kept["figures"][0]
    assert (first["name"], first["requests"]) == ("time_to_first_token", MANY)
    assert first["tested"] == pytest.approx(1.0, abs=0.1) and first["evidence"] == 0.1
    page = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/monitor.md")
    assert "time to first token" in page and max(map(len, page.splitlines())) <= 80
    logged = mlflow.get_logged_model(found.model_id or "")
    named = {metric.key: metric.value for metric in logged.metrics or ()}
    assert named["monitor/time_to_first_token"] == pytest.approx(first["tested"])


def test_twice_the_time_is_a_tag_a_notification_and_no_rollback(
    receiver: WebhookEndpoint,
) -> None:
    config = monitored.config(f"notifications.url={receiver.url}")
    monitored.write(monitored.answers(MANY, slower=2.1))
    found = looked(config=config)
    assert [figure.name for figure in found.drifted] == ["time_to_first_token", "inter_token"]
    assert tag().startswith(f"{found.created[:10]}: time to first token 2.")
    assert "times the evidence's (" in tag() and "interval" in tag() and "band 1.5" in tag()
    assert scene.aliases()["champion"] == 2 and found.consequences.rollback == ""
    (event,) = told(receiver, config)
    assert (event["event"], event["version"], event["alias"]) == ("drifted", 2, "champion")
    assert event["reason"].startswith("time to first token 2.")
    assert event["evidence"] == scene.version_tags(2)["slm.evaluation"]
    # the same finding again: nobody is told twice
    again = looked(config=config)
    assert again.consequences.new == () and len(told(receiver, config)) == 1


def test_what_is_back_in_its_band_is_tagged_so() -> None:
    monitored.write(monitored.answers(MANY, slower=2.1), hours_ago=2)
    looked()
    monitored.write(monitored.answers(12), hours_ago=0.1)
    few = looked("monitor.period_hours=0.5", "monitor.min_requests=13")
    assert few.consequences.out == ("time_to_first_token", "inter_token")
    assert "2." in tag()  # too few requests show nothing
    found = looked("monitor.period_hours=0.5")
    assert found.consequences.back == ("time_to_first_token", "inter_token")
    assert tag().endswith("time to first token, time between tokens within the band again")
    assert scene.version_tags(2)["slm.monitor.figures"] == "none"


def test_a_rollback_goes_through_the_history_and_is_not_repeated(
    receiver: WebhookEndpoint,
) -> None:
    overrides = ("monitor.rollback=true", f"notifications.url={receiver.url}")
    config = monitored.config(*overrides)
    monitored.write(monitored.answers(MANY, slower=2.1))
    found = looked(config=config)
    assert scene.aliases()["champion"] == 1
    kind, details = moves()[-1]
    entry = scene.history().entries[-1]
    assert (kind, found.consequences.entry) == ("rollback", entry.number)
    assert entry.record.reason.startswith("monitor: time to first token 2.")
    assert details["monitor"]["findings"] == [
        f"{found.digest} inter_token",
        f"{found.digest} time_to_first_token",
    ]
    assert [event["event"] for event in told(receiver, config)] == ["drifted", "rolled_back"]
    count = len(moves())
    # the champion is another version now, which nobody asked yet
    other = looked(*overrides)
    assert (other.version, other.state) == (1, "too_little")
    # a person puts version 2 back: the same finding does not move it again
    commands.promote(scene.config("target=models:/parrot/2"))
    assert scene.aliases()["champion"] == 2
    again = looked(*overrides)
    assert f"entry {entry.number} rolled back for the same finding" in again.consequences.rollback
    assert scene.aliases()["champion"] == 2 and len(moves()) == count + 1


def test_versions_that_are_both_slow_are_not_rolled_back_to_each_other() -> None:
    monitored.write(monitored.answers(MANY, slower=2.1), 2)
    monitored.write(monitored.answers(MANY, slower=2.1), 1)
    looked("monitor.rollback=true")
    assert scene.aliases()["champion"] == 1
    found = looked("monitor.rollback=true")
    assert (found.version, scene.aliases()["champion"]) == (1, 1)
    assert "no version had @champion before that is within its own bands" in (
        found.consequences.rollback
    )


def test_an_alias_that_was_moved_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from steps.monitoring import consequences

    monitored.write(monitored.answers(MANY, slower=2.1))
    real = consequences._before

    def moved_now(*given: Any) -> int | None:
        chosen = real(*given)
        mlflow.MlflowClient().set_registered_model_alias(scene.NAME, "champion", "1")
        return chosen

    monkeypatch.setattr(consequences, "_before", moved_now)
    found = looked("monitor.rollback=true")
    assert "points at version 1 now, not at 2" in found.consequences.rollback
    assert [kind for kind, _ in moves()].count("rollback") == 0


def test_a_dry_run_says_what_would_follow(receiver: WebhookEndpoint) -> None:
    config = monitored.config(
        "dry_run=true", "monitor.rollback=true", f"notifications.url={receiver.url}"
    )
    monitored.write(monitored.answers(MANY, slower=2.1))
    found = looked(config=config)
    assert found.consequences.rollback == "@champion would move back to version 1"
    assert found.consequences.tag and tag() == ""
    assert scene.aliases()["champion"] == 2 and told(receiver, config) == []
    assert "dry run: nothing was changed" in table.text(found)


def test_refusals_alone_are_told_and_not_rolled_back() -> None:
    monitored.write(monitored.answers(MANY, refused=True))
    found = looked("monitor.rollback=true")
    assert [figure.name for figure in found.drifted] == ["refusal_rate"]
    assert "refusal rate 100.0% (11.1% in the evidence)" in tag()
    assert "monitor.rollback_on has none" in found.consequences.rollback


def test_too_few_requests_are_one_clear_line_each() -> None:
    monitored.write(monitored.answers(3))
    found = looked()
    assert found.state == "too_little"
    said = table.text(found)
    assert "parrot/2 (@champion): not enough requests to say" in said
    assert "time to first token: 3 requests, 10 are needed (monitor.min_requests)" in said
    assert "no recorded prompt was asked: monitor.endpoint names no running server" in said


def test_without_traces_it_says_how_there_would_be_some() -> None:
    found = looked()
    (note,) = found.notes
    assert "no experiment 'slm-serving'" in note and "serve.trace_sample" in note


def test_old_traces_and_those_of_other_bytes_do_not_count() -> None:
    monitored.write(monitored.answers(2), hours_ago=30)
    monitored.write(monitored.answers(3), hours_ago=1)
    client = mlflow.MlflowClient()
    place = client.get_experiment_by_name("slm-serving")
    assert place is not None
    newest = client.search_traces(locations=[place.experiment_id], max_results=1)[0]
    client.set_trace_tag(newest.info.trace_id, "slm.digest", "sha256:other")
    found = looked()
    assert found.requests == 2
    assert found.notes == ("1 traces are about other bytes than the version's and do not count",)
    assert looked("monitor.max_requests=1").notes[0].startswith("only the newest 1 sampled")


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (("target=models:/nobody",), StepError, "no such registered model"),
        (("target=models:/parrot@nope",), StepError, "no such alias; there are: @challenger"),
        (
            ("target=models:/parrot/2", "monitor.rollback=true"),
            ConfigError,
            r"monitor.rollback=True: expected a target with an alias, not models:/parrot/2; pass",
        ),
        (
            ("target=models:/parrot@previous", "monitor.rollback=true"),
            ConfigError,
            "target='previous': expected an alias",
        ),
        (
            ("report_uri=runs:/00000000000000000000000000000000/report.json",),
            StepError,
            "no report could be read there",
        ),
    ],
)
def test_what_cannot_be_monitored_is_one_line(
    overrides: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        looked(*overrides)
    assert "\n" not in str(caught.value)


def test_a_version_by_number_is_monitored_too() -> None:
    monitored.write(monitored.answers(MANY, slower=2.1))
    found = looked("target=models:/parrot/2")
    assert (found.alias, found.state) == (None, "drifted") and tag()


def test_without_evidence_that_counts_it_says_what_makes_some(served: Evidence) -> None:
    client = mlflow.MlflowClient()
    client.create_model_version(scene.NAME, f"models:/{served.onnx}", model_id=served.onnx)
    for run in mlflow.search_runs(output_format="list"):
        client.set_tag(run.info.run_id, "slm.step", "put away")
    with pytest.raises(StepError, match=r"there is no evidence .*evaluate it: mlflow run") as told:
        looked("target=models:/parrot/3")
    assert "\n" not in str(told.value)


def test_evidence_whose_timings_cannot_be_read_is_one_line() -> None:
    client = mlflow.MlflowClient()
    uri = scene.version_tags(2)["slm.evaluation"]
    report = mlflow.artifacts.load_dict(uri)
    for one in report["candidates"]:
        one["series"]["speed"]["streams"]["32"] = [{"ttft_s": "soon"}]
    with mlflow.start_run() as run:
        mlflow.log_text(json.dumps(report), "report.json")
    other = f"runs:/{run.info.run_id}/report.json"
    for key, value in (("slm.evaluation", other), ("slm.evidence_digest", "")):
        client.set_model_version_tag(scene.NAME, "2", key, value)
    with pytest.raises(StepError, match=r"timings or answers cannot be read \(.*evaluate") as told:
        looked(f"report_uri={other}")
    assert "\n" not in str(told.value)


def test_evidence_about_other_bytes_is_refused() -> None:
    client = mlflow.MlflowClient()
    client.set_model_version_tag(scene.NAME, "2", "slm.digest", "sha256:other")
    with pytest.raises(RefusedError, match="The evidence is about other bytes"):
        looked()


def test_a_registry_that_is_away_is_one_line() -> None:
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    mlflow.set_registry_uri("http://127.0.0.1:9")
    with pytest.raises(ServerUnavailableError, match="no answer from the tracking server") as told:
        look(monitored.config(), RegistryClient(0.1))
    assert "\n" not in str(told.value)


def test_the_table_fits_eighty_columns_and_the_file_is_plain_json() -> None:
    monitored.write(monitored.answers(MANY, slower=2.1))
    found = looked("monitor.rollback=true")
    lines = table.text(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert json.loads(json.dumps(found.to_json()))["consequences"]["new"] == [
        "time_to_first_token",
        "inter_token",
    ]
