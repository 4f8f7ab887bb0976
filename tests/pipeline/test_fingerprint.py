"""The same fingerprint exactly when a step would make the same thing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from steps.config.root import ROOT, Config
from steps.pipeline.compose import compose_config
from steps.pipeline.fingerprint import Fingerprint, fingerprint
from steps.pipeline.source import closure, source_digest


def mark(
    config: Config, snapshot: str = "sha256:a", packages: tuple[str, ...] = ("omegaconf",)
) -> Fingerprint:
    inputs = {"snapshot": snapshot}
    return fingerprint(
        config,
        reads=("model", "onnx"),
        inputs=inputs,
        source="sha256:s",
        packages=packages,
    )


def test_what_a_step_does_not_read_changes_nothing() -> None:
    assert mark(compose_config([])).digest == mark(compose_config(["evaluate.seed=7"])).digest


@pytest.mark.parametrize(
    ("other", "part"),
    [
        (lambda: mark(compose_config(["onnx=fp32_cpu"])), "config.onnx"),
        (lambda: mark(compose_config(["model=tiny_phi3"])), "config.model"),
        (lambda: mark(compose_config([]), snapshot="sha256:b"), "input.snapshot"),
        (lambda: mark(compose_config([]), packages=("hydra-core",)), "package.hydra-core"),
    ],
)
def test_the_part_that_differs_is_named(other: object, part: str) -> None:
    assert callable(other)
    base, changed = mark(compose_config([])), other()
    assert base.digest != changed.digest
    assert part in base.differs_from(changed.parts)


def project(root: Path) -> Path:
    (root / "steps" / "room").mkdir(parents=True)
    (root / "steps" / "__init__.py").touch()
    (root / "steps" / "room" / "__init__.py").touch()
    (root / "steps" / "entry.py").write_text(
        "def f():\n    from steps.room import part\n    return part\n"
    )
    (root / "steps" / "room" / "part.py").write_text("from steps.room.deep import x\n")
    (root / "steps" / "room" / "deep.py").write_text("x = 1\n")
    (root / "steps" / "room" / "other.py").write_text("y = 1\n")
    (root / "steps" / "logged.txt").write_text("a")
    return root


def test_the_closure_follows_imports_and_stops_at_what_is_not_imported(tmp_path: Path) -> None:
    root = project(tmp_path)
    names = {
        path.relative_to(root).as_posix()
        for path in closure("steps.entry", ("steps/logged.txt",), root=root)
    }
    assert names == {
        "steps/entry.py",
        "steps/room/__init__.py",
        "steps/room/part.py",
        "steps/room/deep.py",
        "steps/logged.txt",
    }


@pytest.mark.parametrize(
    ("file", "changes"), [("room/deep.py", True), ("logged.txt", True), ("room/other.py", False)]
)
def test_only_a_change_inside_the_closure_changes_the_digest(
    tmp_path: Path, file: str, changes: bool
) -> None:
    root = project(tmp_path)
    before = source_digest("steps.entry", ("steps/logged.txt",), root=root)
    with (root / "steps" / file).open("a") as stream:
        stream.write("# changed\n")
    assert (source_digest("steps.entry", ("steps/logged.txt",), root=root) != before) is changes


def test_relative_imports_are_followed(tmp_path: Path) -> None:
    root = project(tmp_path)
    (root / "steps" / "room" / "__init__.py").write_text("from .other import y\n")
    (root / "steps" / "room" / "other.py").write_text("from . import deep\ny = 1\n")
    names = {path.name for path in closure("steps.room", root=root)}
    assert names == {"__init__.py", "other.py", "deep.py"}


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("presentation/report.html.j2", False),
        ("presentation/html_report.py", False),
        ("presentation/figures.py", False),
        ("quality.py", True),
        ("conformance/settings.py", True),
        ("packs/core/items.jsonl", True),
    ],
)
def test_how_a_report_looks_does_not_count_for_evaluate(
    tmp_path: Path, file: str, changes: bool
) -> None:
    """The step's own declaration, over a copy of the project in which one file changes."""
    from steps.pipeline.artifact_lookup import load

    shutil.copytree(ROOT / "steps", tmp_path / "steps")
    step = load("evaluate")

    def digest() -> str:
        return source_digest(step.module, step.files, step.presentation, tmp_path)

    before = digest()
    with (tmp_path / "steps" / "evaluation" / file).open("a") as stream:
        stream.write("\n")
    assert (digest() != before) is changes


def test_the_wrapper_that_is_logged_counts_for_the_step_that_logs_it() -> None:
    from steps.pipeline.artifact_lookup import load

    step = load("log_onnx_wrapper")
    names = {path.name for path in closure(step.module, step.files)}
    assert {
        "log_onnx_wrapper.py",
        "onnx_model.py",
        "scheduler.py",
        "onnx_build.py",
        "parity.py",
    } <= names
    assert not names & {"launcher.py", "root.py", "evaluate.py"}


@pytest.mark.parametrize(
    ("name", "files", "packages", "reads"),
    [
        (
            "log_transformers",
            {"provenance.py", "onnx.py"},
            {"accelerate", "jinja2", "joblib", "numpy", "pandas"},
            {"model.homepage"},
        ),
        (
            "log_onnx_wrapper",
            {"provenance.py"},
            {"jinja2", "joblib", "numpy", "pandas", "onnx-ir"},
            {"model.homepage"},
        ),
        ("evaluate", {"peak_rss.py"}, {"scipy"}, {"evaluate"}),
    ],
)
def test_all_that_shapes_an_output_counts(
    name: str, files: set[str], packages: set[str], reads: set[str]
) -> None:
    from steps.pipeline.artifact_lookup import load

    step = load(name)
    assert files <= {path.name for path in closure(step.module, step.files)}
    assert packages <= set(step.packages)
    assert reads <= set(step.reads)
    assert len(set(step.packages)) == len(step.packages)


def test_entry_scripts_import_nothing_heavy() -> None:
    scripts = [path.stem for path in (ROOT / "steps").glob("[!_]*.py")]
    code = f"import sys, {', '.join(f'steps.{script}' for script in scripts)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"mlflow", "torch", "transformers", "pandas", "numpy", "onnxruntime"} & set(
        done.stdout.split()
    )
