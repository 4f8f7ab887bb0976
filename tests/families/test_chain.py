"""`mlflow run` of the whole chain on families, held for the quality of random weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tests.conftest import ROOT, Shell
from tests.families.table import Family, families
from tests.families.vocabularies import Vocabularies
from tests.families.weights import write_checkpoint

pytestmark = pytest.mark.slow
SMALL = (
    "evaluate=smoke onnx=fp32_cpu evaluate.max_items=4 evaluate.traces=false"
    " evaluate.speed.enabled=false"
)
NO_SPEED = "promotion.gates.absolute.ttft_p95_ceiling=null"  # it was not measured
ANY_QUALITY = "promotion.gates.absolute.quality_floor=null"


def chains() -> list[Any]:
    """Families of which a chain is run; `make test-slow` runs the first alone."""
    chosen = [family for family in families() if family.chain]
    return [
        pytest.param(
            family, id=family.name, marks=[pytest.mark.models] if family != chosen[0] else []
        )
        for family in chosen
    ]


@pytest.mark.parametrize("family", chains())
def test_chain(
    family: Family, vocabularies: Vocabularies, shell: Shell, tmp_path: Path, record_property: Any
) -> None:
    """The chain ends without an error, in a verdict whose every reason is in the weights."""
    checkpoint = tmp_path / "checkpoint"
    write_checkpoint(family, checkpoint, vocabularies)
    # one without a system role shows that nothing but quality holds it
    store, promoted = tmp_path / "store", not family.system
    name = "family-" + "".join(letter if letter.isalnum() else "-" for letter in family.name)
    words = (
        "mlflow",
        "run",
        str(ROOT),
        "--env-manager",
        "local",
        "-P",
        "model=local",
        "-P",
        f"model.path={checkpoint}",
    )
    overrides = f"{SMALL} {NO_SPEED} model.registered_name={name} {ANY_QUALITY if promoted else ''}"
    done = shell(*words, "-P", f"overrides={overrides}", cwd=tmp_path, SLM_STORE=str(store))
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-6000:]
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    # both: the registry's would be the one that another test of this process has set
    client = MlflowClient(uri, uri)
    (evaluated,) = [
        run for run in client.search_runs(["0"]) if run.data.tags["slm.step"] == "evaluate"
    ]
    report = json.loads(
        Path(
            client.download_artifacts(evaluated.info.run_id, "report.json", str(tmp_path))
        ).read_text()
    )
    verdicts = {judged["variant"]: judged["verdict"] for judged in report["candidates"]}
    assert sorted(verdicts) == ["onnx", "transformers"]
    failed = {
        variant: [
            f"{gate['name']}: {gate['reason']}"
            for gate in verdict["gates"]
            if gate["passed"] is not True and gate["name"] != "quality"
        ]
        for variant, verdict in verdicts.items()
    }
    assert failed == {"onnx": [], "transformers": []}
    decision = "promote" if promoted else "hold"
    assert {variant: verdict["decision"] for variant, verdict in verdicts.items()} == {
        "onnx": decision,
        "transformers": decision,
    }
    champion = dict(client.get_registered_model(name).aliases).get("champion")
    assert (champion is not None) == promoted
    record_property("cell", "promote (no quality floor)" if promoted else "hold: quality alone")
    shutil.rmtree(store)
