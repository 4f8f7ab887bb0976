"""``--help`` of every entry point: what it does, its keys and what they mean."""

import importlib
import sys

import pytest

from steps.config import meanings, schema
from steps.pipeline import help as help_page
from steps.pipeline.compose import composed
from steps.pipeline.step import Step
from tests.conftest import ROOT, Shell

STEPS = (
    *("main", "fetch_model", "log_transformers", "log_onnx_wrapper", "evaluate", "register"),
    *("sweep", "promote", "rollback", "approve", "reject", "history", "export", "import_"),
    *("watch", "serve", "monitor"),
)


@pytest.mark.parametrize("name", STEPS)
def test_every_step_shows_its_keys_with_defaults_and_meanings(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"steps.{name}")
    step = getattr(module, name)
    assert isinstance(step, Step)
    monkeypatch.setitem(sys.modules, "__main__", module)
    shown = help_page.text(step, composed([]))
    assert (module.__doc__ or "").splitlines()[0] in shown
    assert "mlflow run . " in shown and "model=…" in shown
    assert len(shown.splitlines()) <= 100  # meanings are whole, and take a line or two each
    assert max(map(len, shown.splitlines())) <= 150
    assert not [line for line in shown.splitlines() if line.endswith(" …")]
    (example,) = [
        line for line in shown.splitlines() if line.startswith("    ") and "mlflow run" in line
    ]
    assert "  " not in example.strip()
    known = set(schema.keys())
    assert {key.rstrip("=") for key in step.own_keys()} <= known
    assert step.own_keys(), "a step says what it takes"


def test_a_default_is_what_the_config_gives_and_a_meaning_the_schemas_comment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    from steps.evaluate import evaluate

    words = help_page.text(evaluate, composed(["evaluate=smoke"])).splitlines()
    (line,) = [line for line in words if line.startswith("  max_items=")]
    assert line.split()[0] == "max_items=8"
    assert "items taken from the pack, spread over its skills; null" in line
    (line,) = [line for line in words if line.startswith("  isolation=")]
    assert "preferred, required" in line


def test_the_words_beside_a_field_go_before_those_above_it() -> None:
    assert meanings.meaning_of("snapshot_uri") == "runs:/<run>/snapshot.json"
    assert meanings.meaning_of("serve.port") == "0 takes a free one"
    assert meanings.meaning_of("onnx.serving.threads").startswith("intra-op threads; 0 takes")
    assert meanings.meaning_of("no.such.key") == ""


def test_it_is_fast_and_makes_no_run(shell: Shell) -> None:
    done = shell(
        "python", "-X", "importtime", "-m", "steps.promote", "--help", cwd=ROOT,
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )  # fmt: skip
    assert done.returncode == 0
    assert "  quality_floor=0.15 " in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"mlflow", "torch", "transformers", "pandas"}
