"""Every logged variant holds the chat contract, loaded in a fresh process from another folder."""

import json
from collections.abc import Callable

import pytest

from steps.config.root import ROOT
from tests.wrappers.conftest import Logged

TRY = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("conformance", sys.argv[1])
table = importlib.util.module_from_spec(spec)
sys.modules["conformance"] = table
spec.loader.exec_module(table)
import mlflow
rows = table.conformance(mlflow.pyfunc.load_model(sys.argv[2]))
print("ROWS", json.dumps([vars(row) for row in rows]))
"""

# What a variant may say it cannot do; anything else must hold.
LIMITS: dict[str, set[str]] = {"onnx": set(), "transformers": {"response_format json_object"}}


@pytest.mark.parametrize(
    "variant",
    [
        "int4",
        "transformers",
        pytest.param("int8", marks=pytest.mark.slow),
        pytest.param("fp32", marks=pytest.mark.slow),
    ],
)
def test_the_contract_holds(
    logged: Logged, in_fresh_process: Callable[..., str], variant: str
) -> None:
    printed = in_fresh_process(
        TRY,
        str(ROOT / "steps/evaluation/conformance/__init__.py"),
        logged.uris[variant],
        timeout=550,
    )
    rows = json.loads(printed[printed.index("ROWS ") + 5 :])
    allowed = LIMITS["transformers" if variant == "transformers" else "onnx"]
    broken = [
        row for row in rows if not row["passed"] and not (row["limit"] and row["name"] in allowed)
    ]
    assert not broken
    assert len(rows) >= 26
