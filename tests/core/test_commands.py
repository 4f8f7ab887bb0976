"""Commands that a user copies into a shell."""

import shlex
import subprocess

import pytest

from steps.core.commands import mlflow_run
from steps.pipeline.arguments import translate


def words_of(command: str) -> list[str]:
    """What a POSIX shell makes of a command."""
    done = subprocess.run(
        ["sh", "-c", f"mlflow() {{ printf '%s\\n' \"$@\"; }}\n{command}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def overrides_of(command: str) -> tuple[str, ...]:
    """The overrides that an entry script makes of a command, as MLflow hands its `-P` on."""
    words = words_of(command)
    given = [words[at + 1].partition("=") for at, word in enumerate(words) if word == "-P"]
    return translate([part for key, _, value in given for part in (f"--{key}", value)]).overrides


def test_main_needs_no_name() -> None:
    assert mlflow_run() == "mlflow run . --env-manager local"
    assert mlflow_run("evaluate") == "mlflow run . -e evaluate --env-manager local"


def test_a_reader_sees_each_override_by_itself() -> None:
    assert mlflow_run(
        "evaluate",
        {"target": "models:/a b@c"},
        ["model=hub", "model.repo='Qwen/Qwen2.5-0.5B'", "reason='it is worse, they say'"],
    ) == (
        'mlflow run . -e evaluate --env-manager local -P target="models:/a b@c" -P model=hub'
        ' -P model.repo=Qwen/Qwen2.5-0.5B -P reason="it is worse, they say"'
    )
    assert mlflow_run(
        overrides=["+serve.split={champion:95,edge:5}", "model=hub", "model.repo='a/b'", "~monitor"]
    ) == (
        "mlflow run . --env-manager local -P model=hub -P model.repo=a/b"
        ' -P overrides="+serve.split={champion:95,edge:5} ~monitor"'
    )
    assert mlflow_run(overrides=["-m", "model=tiny_phi3", "model.seed=0,1"]) == (
        'mlflow run . --env-manager local -P overrides="-m model=tiny_phi3 model.seed=0,1"'
    )


@pytest.mark.parametrize(
    ("words", "one_each"),
    [
        (["model=tiny_phi3", "evaluate.seed=1"], True),
        (["model.path='/some where/x'", "model=local"], True),
        (["model.revision='7ae557604adf67be50417f59c2c2f167def9a775'"], True),
        (["evaluate.builds=[int4_cpu,'int8 cpu']"], True),
        (["reason='the gate is wrong, see (the) minutes'"], True),
        ([r"reason='it\'s worse'"], False),
        (["reason='$HOME `ls` !x'"], True),
        ([r"reason='a\\\\b'"], False),
        (["model.revision='123'", "model=hub"], False),
        (["+promotion.protected={champion:[rosa]}", "evaluate.seed=1"], False),
        (["~onnx.extra_options"], False),
        (["~onnx.extra_options", "onnx.extra_options.block_size=64"], False),
        (["+reason='a # b'", "+alias='x/y'", "+archive='12'"], False),
        (["generation.temperature=0", "generation.temperature=1"], False),
        (["onnx.serving={threads:2}", "onnx.serving.threads=1"], False),
        (["evaluate.max_items=null", "dry_run=true"], True),
    ],
)
def test_the_command_composes_to_the_same_values(words: list[str], one_each: bool) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    command = mlflow_run("evaluate", overrides=words)
    assert words_of(command) == shlex.split(command)[1:]
    parse = OverridesParser.create().parse_override

    def meant(overrides: tuple[str, ...]) -> list[tuple[str, object]]:
        parsed = [parse(word) for word in overrides]
        return sorted((one.get_key_element(), str(one.value())) for one in parsed)

    assert meant(overrides_of(command)) == meant(tuple(words))
    assert ("-P overrides=" not in command) is one_each
    assert "'\"'" not in command


@pytest.mark.parametrize("project", [(".",), ("https://example.org/project", "-v", "0" * 40)])
def test_the_project_may_be_a_commit_of_a_repository(project: tuple[str, ...]) -> None:
    command = mlflow_run("register", project=project)
    assert command == f"mlflow run {' '.join(project)} -e register --env-manager local"
