"""A report is reused only while everything that evaluate read is the same."""

from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from steps import evaluate as entry
from steps.core import tags
from steps.core.errors import ConfigError
from steps.evaluation.report import Report
from steps.pipeline.compose import compose_config

ITEM = (
    '{"id": "a", "messages": [{"role": "user", "content": "Hi"}], "checks": [{"type":'
    ' "contains_any", "values": ["x"]}], "tags": ["chat"]}'
)
META = "name: mine\nversion: '1'\nlicence: MIT\ncontamination: none\n"


def parts(*overrides: str) -> dict[str, str]:
    """The inputs of evaluate that no config key names."""
    return dict(entry.evaluate.also_reads(compose_config(["evaluate.incumbent=false", *overrides])))


def echo(model_input: list[str]) -> list[str]:
    return model_input


def log(digest: str) -> tuple[str, str]:
    """A logged model with this digest: its own URI and the one through its run."""
    with mlflow.start_run() as run:
        info = mlflow.pyfunc.log_model(name="echo", python_model=echo, pip_requirements=[])
    MlflowClient().set_logged_model_tags(str(info.model_id), {tags.DIGEST: digest})
    return f"models:/{info.model_id}", f"runs:/{run.info.run_id}/echo"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "pack.yaml").write_text(META)
    (folder / "items.jsonl").write_text(ITEM + "\n")
    return folder


def test_what_is_shipped_is_not_an_input() -> None:
    assert parts() == {}


@pytest.mark.parametrize("changed", ["pack.yaml", "items.jsonl"])
def test_a_changed_pack_is_another_input(pack: Path, changed: str) -> None:
    before = parts(f"evaluate.pack={pack}")
    file = pack / changed
    file.write_text(file.read_text() + "\n")
    assert before.keys() == {"evaluate.pack"}
    assert parts(f"evaluate.pack={pack}") != before


def test_changed_texts_are_another_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("one")
    before = parts("evaluate.fidelity.texts='~/texts'")
    (tmp_path / "texts" / "one.txt").write_text("two")
    assert parts("evaluate.fidelity.texts='~/texts'") != before


def test_no_such_texts(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"evaluate\.fidelity\.texts='.*nowhere': expected a folder that holds files",
    ):
        parts(f"evaluate.fidelity.texts={tmp_path}/nowhere")


@pytest.mark.usefixtures("tracking")
def test_an_alias_that_moves_is_another_input() -> None:
    client = MlflowClient()
    client.create_registered_model("mine")
    for digest in ("sha256:a", "sha256:b"):
        client.create_model_version("mine", log(digest)[0])
    read = []
    for version in "12":
        client.set_registered_model_alias("mine", "challenger", version)
        read.append(parts("evaluate.candidates=[models:/mine@challenger]"))
    assert read == [{"evaluate.candidates.0": "sha256:a"}, {"evaluate.candidates.0": "sha256:b"}]


@pytest.mark.usefixtures("tracking")
def test_a_candidate_may_be_named_through_its_run() -> None:
    _, through_run = log("sha256:a")
    assert parts(f"evaluate.candidates=['{through_run}']") == {"evaluate.candidates.0": "sha256:a"}


@pytest.mark.usefixtures("tracking")
@pytest.mark.parametrize(
    "uri", ["models:/nobody@champion", "models:/m-0", f"runs:/{'0' * 32}/model"]
)
def test_a_mistyped_candidate_is_one_line_that_names_it(uri: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"evaluate\.candidates='{uri}': expected a logged model"
    ):
        parts(f"evaluate.candidates=['{uri}']")


def test_report_is_signed_by_the_key_that_is_named(
    tmp_path: Path,
    tracking: str,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from steps.core import signatures
    from steps.pipeline.step import StepRun
    from tests.core import keys
    from tests.evaluation import sample

    def evaluate_models(*_: object, workdir: Path, **__: object) -> Report:
        (workdir / "report.json").write_text('{"a": 1}')
        mlflow.log_artifact(str(workdir / "report.json"))
        return sample.report("smoke", incumbent=False)

    private, public = keys.make(tmp_path, "ci")
    config = compose_config(
        [
            "evaluate.incumbent=false",
            "evaluate.candidates=[models:/m-1]",
            f"signing_key='{private}'",
        ]
    )
    monkeypatch.setattr("steps.evaluation.evaluate.evaluate_models", evaluate_models)
    with mlflow.start_run() as run:
        entry.evaluate.body(config, StepRun(run.info.run_id, {}, "sha256:0", ()))
    signature = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/report.json.sig").encode()
    assert signatures.verify(b'{"a": 1}', signature, [public]) == "ci"
    assert parts(f"signing_key='{private}'")["signing_key"].startswith("sha256:")
    with pytest.raises(ConfigError, match="signing_key="):
        parts(f"signing_key='{tmp_path}/nothing.pem'")
