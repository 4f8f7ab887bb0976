"""The lock: complete, exact, satisfying requirements.in, and read by MLflow from conda.yaml."""

import importlib
import keyword
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from steps.pipeline.step import Step
from tests.conftest import ROOT


def requirements(path: Path) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def pinned(path: Path) -> dict[str, Version]:
    versions: dict[str, Version] = {}
    for requirement in requirements(path):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        assert "*" not in specifier.version, requirement
        versions[canonicalize_name(requirement.name)] = Version(specifier.version)
    return versions


LOCK = pinned(ROOT / "requirements.txt")


def test_the_lock_satisfies_what_is_asked_for() -> None:
    for requirement in requirements(ROOT / "requirements.in"):
        assert requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_the_lock_holds_every_transitive_package() -> None:
    for name in LOCK:
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed = canonicalize_name(requirement.name)
                assert needed in LOCK, f"{name} needs {requirement}"
                assert requirement.specifier.contains(LOCK[needed], prereleases=True), (
                    f"{name} needs {requirement}"
                )


def test_this_environment_is_the_lock() -> None:
    for name, version in LOCK.items():
        assert Version(metadata.version(name)).public == version.public, name


def test_the_development_lock_agrees() -> None:
    for name, version in pinned(ROOT / "requirements-dev.txt").items():
        assert LOCK.get(name, version) == version, name


def test_conda_yaml_as_mlflow_parses_it() -> None:
    from mlflow.utils.environment import _PythonEnv

    environment = _PythonEnv.from_conda_yaml(str(ROOT / "conda.yaml"))
    assert environment.python == "3.11.7"
    assert environment.dependencies == ["-r requirements.txt"]
    assert [item for item in environment.build_dependencies if item.startswith("pip")]


ENTRY_POINTS = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_mlproject_entry_points_have_a_script_and_a_step_of_that_name(name: str) -> None:
    from mlflow.projects._project_spec import load_project

    entry = load_project(str(ROOT)).get_entry_point(name)
    script = f"{name}_" if keyword.iskeyword(name) else name
    assert f"python -m steps.{script} " in entry.command
    assert {kind.type for kind in entry.parameters.values()} == {"string"}
    body = getattr(importlib.import_module(f"steps.{script}"), script)
    assert isinstance(body, Step)
    assert (body.name, body.module) == (name, f"steps.{script}")
    # one only reads, the other runs for ever
    assert body.makes_run == (name not in ("history", "serve"))


def test_every_step_is_an_entry_point() -> None:
    # `make ask`, `make chat` and what checks words need no run
    scripts = {path.stem.rstrip("_") for path in (ROOT / "steps").glob("[!_]*.py")}
    assert scripts - {"ask", "chat", "check"} == set(ENTRY_POINTS)
