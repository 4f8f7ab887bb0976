"""Texts of the commands that messages and tags tell a user to run."""

import shlex
from collections.abc import Mapping, Sequence


def mlflow_run(
    entry_point: str = "main",
    parameters: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    *,
    project: Sequence[str] = (".",),
) -> str:
    """The `mlflow run` command of an entry point, quoted for a shell.

    Args:
        entry_point: ``main`` is MLflow's default and is left out.
        parameters: values of ``-P`` by name.
        overrides: in Hydra's grammar; they go into the one parameter ``overrides``.
        project: what is run: the folder, or a URL with ``-v`` and a commit.
    """
    given = {**(parameters or {}), **({"overrides": shlex.join(overrides)} if overrides else {})}
    words = ["mlflow", "run", *project]
    if entry_point != "main":
        words += ["-e", entry_point]
    words += ["--env-manager", "local"]
    for name, value in given.items():
        words += ["-P", f"{name}={value}"]
    return shlex.join(words)
