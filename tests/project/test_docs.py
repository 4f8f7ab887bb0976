"""What the documents say is there: tests that they name, commands and blocks that they show."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from click import ClickException
from omegaconf import OmegaConf

from steps.config.model import ModelConfig, Source
from steps.core.errors import ConfigError
from tests.conftest import ROOT
from tests.project.documents import blocks, check
from tests.project.reader import ACTIVATION

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


DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_are_what_their_programs_take(document: str) -> None:
    """README's are run as well, by test_fresh_clone."""
    for block in blocks(document):
        if block.language == "":
            for line in block.commands:
                check(line)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_are_in_their_language(document: str) -> None:
    for block in blocks(document):
        if block.language == "python":
            ast.parse(block.text)
        elif block.language == "yaml":
            assert list(yaml.safe_load_all(block.text)), block
        elif block.language == "json":
            for line in block.text.splitlines():
                json.loads(line)
        else:
            assert block.language in ("", "ini", "nginx", "text"), block


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("mlflow run . -e promot --env-manager local", "'promot' is not an entry point"),
        ("mlflow run . -P overrides='evaluate.max_itms=4'", "max_itms"),
        ("mlflow run . -P evaluate=smok", "smok"),
        ("A=b mlflow models serv -m models:/x/1", "no command 'serv'"),
        ("mlflow models serve -m models:/x/1 --prt 5", "prt"),
        ("python -m steps.evaluat x=1", "no such module"),
        ("python -m steps.serve target=models:/x && python -m steps.serve serv.port=1", "serv"),
        ("make runs", "not in the Makefile"),
        ("make run MODLE=x", "not in the Makefile"),
        ("curl -s localhost -d '{\"a\": }'", "Expecting value"),
        ("pyhton -m steps.main", "a program that no test knows"),
    ],
)
def test_a_wrong_command_is_found(line: str, said: str) -> None:
    with pytest.raises((AssertionError, ConfigError, ClickException, ValueError), match=said):
        check(line)


def test_a_fence_is_read_as_a_reader_does() -> None:
    (first, *_) = [block for block in blocks("docs/deploy.md") if "docker run" in block.text]
    assert first.commands[2].endswith("serve.api_keys_file=/run/secrets/slm/api_keys")
    shown = next(block for block in blocks("docs/team-setup.md") if block.text.startswith("$ "))
    assert len(shown.commands) == 1  # and no line of its output


def test_readme_activates_the_environment_before_it_needs_it() -> None:
    typed = [line for block in blocks("README.md") if not block.language for line in block.commands]
    needing = [at for at, line in enumerate(typed) if line.startswith(("mlflow ", "python "))]
    assert typed.index(ACTIVATION) < min(needing)


def test_readmes_model_file_is_one() -> None:
    (text,) = [block.text for block in blocks("README.md") if "registered_name:" in block.text]
    given = yaml.safe_load(text)
    assert given.pop("defaults") == ["schema"]
    model = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), given))
    assert isinstance(model, ModelConfig)
    assert model.source is Source.hub
