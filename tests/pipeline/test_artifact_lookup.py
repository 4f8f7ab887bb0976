"""Finding what an earlier step made: by fingerprint, in a real store."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import mlflow
import pytest

from steps.config.root import Config, with_inputs
from steps.core import tags
from steps.core.errors import StepError
from steps.pipeline import artifact_lookup, definition
from steps.pipeline.compose import compose_config
from steps.pipeline.source import source_digest
from steps.pipeline.step import Step, StepRun
from steps.snapshots.manifest import Snapshot

pytestmark = pytest.mark.usefixtures("tracking")


def body(_config: Config, run: StepRun) -> str:
    return f"runs:/{run.run_id}/snapshot.json"


FETCH = Step(body, "fetch_model", "steps.fetch_model", reads=("model",), packages=("omegaconf",))
LOG = Step(
    body,
    "log_transformers",
    "steps.log_transformers",
    reads=("generation",),
    inputs=("snapshot_uri",),
    packages=("omegaconf",),
)


@pytest.fixture(autouse=True)
def two_light_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hand-off under test, with steps whose bodies cost nothing."""
    monkeypatch.setattr(
        artifact_lookup, "load", {"fetch_model": FETCH, "log_transformers": LOG}.__getitem__
    )
    yield


def finished(
    step: Step,
    config: Config,
    inputs: dict[str, str] | None = None,
    *,
    status: str = "FINISHED",
    artifact: bool = True,
) -> str:
    """A run of ``step`` as the pipeline leaves it; returns its output URI."""
    digests = {key: artifact_lookup.digest_of(uri) for key, uri in (inputs or {}).items()}
    mark = step.fingerprint(with_inputs(config, inputs or {}), digests)
    run = mlflow.start_run()
    uri = f"runs:/{run.info.run_id}/snapshot.json"
    if artifact:
        mlflow.log_text(
            Snapshot("generated", config.model.registered_name, None, "seed-0", None, ()).to_json(),
            "snapshot.json",
        )
    mlflow.set_tags(
        {
            tags.STEP: step.name,
            tags.MODEL: config.model.registered_name,
            tags.FINGERPRINT: mark.digest,
            tags.PARTS: json.dumps(dict(mark.parts)),
            tags.OUTPUT: uri,
        }
    )
    mlflow.end_run(status)
    return uri


def test_the_newest_finished_run_that_fits_is_taken() -> None:
    config = compose_config([])
    finished(FETCH, config)
    newest = finished(FETCH, config)
    finished(FETCH, compose_config(["model=tiny_phi3"]))
    output, _ = artifact_lookup.find_output(FETCH, config)
    assert output is not None
    assert output.uri == newest


@pytest.mark.parametrize("left", [{"status": "FAILED"}, {"status": "KILLED"}, {"artifact": False}])
def test_a_run_that_failed_or_lost_its_artifact_is_not_taken(left: dict[str, object]) -> None:
    config = compose_config([])
    finished(FETCH, config, **left)  # type: ignore[arg-type]
    assert artifact_lookup.find_output(FETCH, config)[0] is None


def test_a_step_may_refuse_what_is_there() -> None:
    config = compose_config([])
    finished(FETCH, config)
    stale = replace(FETCH, stale=lambda _config, _uri: "its folder changed")
    output, mark = artifact_lookup.find_output(stale, config)
    assert output is None
    assert mark is not None
    assert "snapshot.json, and since then its folder changed" in artifact_lookup.difference(
        stale, config, mark
    )


def test_inputs_are_looked_for_through_the_whole_chain() -> None:
    config = compose_config([])
    snapshot = finished(FETCH, config)
    logged = finished(LOG, config, {"snapshot_uri": snapshot})
    assert artifact_lookup.resolve_inputs(LOG, config, ()) == {"snapshot_uri": snapshot}
    output, _ = artifact_lookup.find_output(LOG, config)
    assert output is not None
    assert output.uri == logged


def test_a_run_is_reused_although_the_look_of_its_output_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "project" / "steps" / "room"
    (room / "page").mkdir(parents=True)
    (room / "scoring.py").write_text("x = 1\n")
    (room / "page" / "report.html.j2").write_text("<h1>Reprot</h1>")
    monkeypatch.setattr(
        definition, "source_digest", partial(source_digest, root=tmp_path / "project")
    )
    step = Step(
        body,
        "fetch_model",
        "steps.fetch_model",
        files=("steps/room",),
        presentation=("steps/room/page",),
    )
    config = compose_config([])
    made = finished(step, config)
    (room / "page" / "report.html.j2").write_text("<h1>Report</h1>")
    output, _ = artifact_lookup.find_output(step, config)
    assert output is not None and output.uri == made
    (room / "scoring.py").write_text("x = 2\n")
    output, mark = artifact_lookup.find_output(step, config)
    assert output is None and mark is not None
    assert artifact_lookup.difference(step, config, mark).startswith("source changed since run ")


def test_a_given_input_is_taken_as_it_is() -> None:
    config = with_inputs(compose_config([]), {"snapshot_uri": "runs:/abc/snapshot.json"})
    assert artifact_lookup.resolve_inputs(LOG, config, ()) == {
        "snapshot_uri": "runs:/abc/snapshot.json"
    }


def test_a_missing_input_names_what_changed_and_the_command() -> None:
    finished(FETCH, compose_config(["model.seed=1"]))
    with pytest.raises(
        StepError,
        match=(
            r"config\.model changed since run [0-9a-f]{32}\); make one: mlflow run \. -e"
            r" fetch_model"
        ),
    ):
        artifact_lookup.resolve_inputs(LOG, compose_config([]), ("evaluate.seed=1",))


def test_runs_of_the_default_experiment_are_pointed_at_and_the_commands_are_this_experiments() -> (
    None
):
    config = compose_config(["model=tiny_phi3"])
    mlflow.set_experiment("Default")
    finished(FETCH, config)
    mlflow.set_experiment("mine")
    with (
        mlflow.start_run(),  # as `python -m steps.…` makes it
        pytest.raises(StepError) as caught,
    ):
        artifact_lookup.resolve_inputs(LOG, config, ("model=tiny_phi3",))
    said = str(caught.value)
    assert "in the experiment 'mine' fits" in said
    assert "the experiment 'Default' has finished runs of it: pass experiment=Default);" in said
    assert said.endswith("make one: python -m steps.fetch_model model=tiny_phi3")


def test_the_newest_run_of_the_same_config_is_what_is_explained() -> None:
    config = compose_config([])
    gone = finished(FETCH, config, artifact=False)
    finished(FETCH, compose_config(["model.homepage=other"]))
    with pytest.raises(StepError, match=rf"\(what run [0-9a-f]{{32}} made is gone: {gone}\)"):
        artifact_lookup.resolve_inputs(LOG, config, ())


def test_a_chain_of_missing_inputs_is_a_chain_of_commands() -> None:
    score = Step(
        body, "evaluate", "steps.evaluate", inputs=("transformers_uri",), packages=("omegaconf",)
    )
    words = ("model=local", "model.path='/some where/x'", "model.licence=MIT")
    commands = [
        rf"mlflow run \. -e {name} --env-manager local -P model=local"
        r' -P model\.path="/some where/x" -P model\.licence=MIT'
        for name in ("fetch_model", "log_transformers")
    ]
    with pytest.raises(
        StepError, match=rf"\(fetch_model first\); make one: {' && '.join(commands)}$"
    ):
        artifact_lookup.resolve_inputs(score, compose_config([]), words)


@pytest.mark.parametrize("path", ["/some where/x", "/models/mine", "it's"])
def test_the_command_gives_the_words_as_they_were_given(path: str) -> None:
    from steps.pipeline.arguments import translate
    from tests.core.test_commands import overrides_of

    words = translate(["--model.path", path, "--model", "local"]).overrides
    with pytest.raises(StepError) as caught:
        artifact_lookup.resolve_inputs(LOG, compose_config([*words]), words)
    command = str(caught.value).partition("make one: ")[2]
    assert compose_config(overrides_of(command)).model.path == path
    assert path != "/models/mine" or not {*"'\""} & {*command}  # what needs no quotes has none


def test_an_unreadable_input_is_one_error_that_names_it() -> None:
    for uri in (
        "runs:/00000000000000000000000000000000/snapshot.json",
        "models:/m-0",
        "models:/nobody@champion",
        "/a/path",
    ):
        with pytest.raises(StepError, match=r"cannot be read|is not an input URI"):
            artifact_lookup.digest_of(uri)


def test_every_producer_is_an_entry_point() -> None:
    import importlib

    for name in artifact_lookup.PRODUCERS.values():
        module = importlib.import_module(f"steps.{name}")
        assert isinstance(module, ModuleType)
        assert isinstance(getattr(module, name), Step)
