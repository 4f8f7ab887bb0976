"""What the documents tell a reader to type: the fenced blocks of a Markdown file, their commands.

A command is checked without being run: its entry point exists, its words compose to a config, its
options are known to the program. What can be run cheaply is run by the tests.
"""

import argparse
import ast
import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import PurePosixPath

import yaml

from steps.pipeline.arguments import translate
from steps.pipeline.compose import compose_config, compose_jobs
from tests.conftest import ROOT

FENCE = re.compile(r"^( *)```([\w-]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
# programs of other people, whose words nothing here can check
OTHERS = frozenset({
    "az", "chmod", "createdb", "docker", "export", "git", "helm", "jq", "kubectl", "mkdir",
    "openssl", "pip", "source",
})  # fmt: skip
WITHOUT_OVERRIDES = frozenset({"steps.ask", "steps.chat", "steps.check"})
EXTRAS = frozenset({"gateway"})  # commands of MLflow that only its extras bring


@dataclass(frozen=True)
class Block:
    """A fenced block; ``language`` is empty where the document names none."""

    document: str  # path from the project's root
    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """What is typed, a command a line; behind ``$`` where the block shows output as well."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):
            return [line[2:] for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.startswith("#")]


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text()
    return [
        Block(document, text.count("\n", 0, found.start()) + 1, found[2], found[3])
        for found in FENCE.finditer(text)
    ]


def simple_commands(line: str) -> list[list[str]]:
    """The words of each program that a line starts, without comments, assignments in front and
    redirections.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    redirected = False
    for word in lexer:
        if set(word) <= set("&|;"):
            found.append([])
        elif set(word) <= set("<>"):
            redirected = True
        elif redirected:
            redirected = False
        elif found[-1] or not ASSIGNMENT.match(word):
            found[-1].append(word)
    return [words for words in found if words]


def check(line: str) -> None:
    """Raise where a program of a command line would refuse its words."""
    for path, *words in simple_commands(line):
        program = re.sub(r"3\.\d+$", "3", PurePosixPath(path).name)
        if program not in OTHERS:
            assert program in CHECKS, f"{program!r} in {line!r}: a program that no test knows"
            CHECKS[program](words)


def _mlflow(words: Sequence[str]) -> None:
    if words[0] == "run":
        return _mlflow_run(words[1:])
    import click
    from mlflow.cli import cli

    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group):
        name = rest.pop(0)
        if name in EXTRAS:
            return None
        assert name in command.commands, f"mlflow {' '.join(words)}: no command {name!r}"
        command = command.commands[name]
    command.make_parser(click.Context(command)).parse_args(rest)
    return None


def _mlflow_run(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("uri")
    parser.add_argument("-e", dest="entry", default="main")
    parser.add_argument("-v", dest="version")
    parser.add_argument("--env-manager", choices=["local", "virtualenv", "uv", "conda"])
    parser.add_argument("-P", dest="parameters", action="append", default=[])
    given = parser.parse_args(list(words))
    points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert given.entry in points, f"{given.entry!r} is not an entry point of MLproject"
    pairs = [parameter.partition("=") for parameter in given.parameters]
    composes(tuple(word for name, _, value in pairs for word in (f"--{name}", value)))


@cache
def composes(words: tuple[str, ...]) -> None:
    """Check the words after the name of a step's script."""
    arguments = translate(words)
    if arguments.multirun:
        compose_jobs(arguments.overrides)
    else:
        compose_config(arguments.overrides)


def _python(words: Sequence[str]) -> None:
    option, name, *rest = words
    if name == "venv":
        return
    if option == "-c":
        ast.parse(name)
        return
    assert option == "-m", words
    assert find_spec(name), f"python -m {name}: there is no such module"
    if name.startswith("steps.") and name.count(".") == 1 and name not in WITHOUT_OVERRIDES:
        composes(tuple(rest))


def _make(words: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, equals, _ = word.partition("=")
        known = re.search(rf"\$[({{](?:value )?{name}[)}}]", makefile) if equals else None
        assert known or name in TARGET.findall(makefile), f"make {word}: not in the Makefile"


def _curl(words: Sequence[str]) -> None:
    if "-d" in words:
        json.loads(words[words.index("-d") + 1])


CHECKS: dict[str, Callable[[Sequence[str]], None]] = {
    "mlflow": _mlflow,
    "python": _python,
    "python3": _python,
    "make": _make,
    "curl": _curl,
}
