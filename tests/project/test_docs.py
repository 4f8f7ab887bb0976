"""Tests that the documents name are there."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def functions(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("document", ["docs/security.md"])
def test_named_tests_exist(document: str) -> None:
    named = NAMED.findall((ROOT / document).read_text())
    assert len(named) > 50
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or (name and name not in functions(ROOT / path))
    ]
    assert missing == []


def test_every_threat_has_a_test_or_says_why_not() -> None:
    rows = [
        line
        for line in (ROOT / "docs/security.md").read_text().splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    threats = [line for line in rows if not line.startswith("| who ")]
    assert threats
    without = [
        line[:80]
        for line in threats
        if "`tests/" not in line and "not enforceable" not in line and "documented in" not in line
    ]
    assert without == []
