"""A step that `mlflow run` or another step started ends with whoever started it.

MLflow starts a step through a shell and does not end it when it is ended itself: a `watch` would go
on promoting and an evaluation would go on computing after its user has ended it.
"""

import logging
import os
import signal
import threading
import time

import psutil

log = logging.getLogger(__name__)

# MLflow sets it for what it starts, and the step takes it out when it claims the run
STARTED_BY_MLFLOW = "MLFLOW_RUN_ID"
SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"})
LOOK_SECONDS = 1.0


def end_with_parent() -> threading.Thread | None:
    """Send this process SIGTERM once one of those that started it is gone, as its user would.

    Returns:
        The thread that looks, or None where `mlflow run` did not start this process: what a person
        or a service manager starts is theirs.
    """
    if not os.environ.get(STARTED_BY_MLFLOW):
        return None
    watched = starters()
    thread = threading.Thread(
        target=_look, args=(watched, os.getppid()), name="end with the parent", daemon=True
    )
    thread.start()
    return thread


def starters() -> list[psutil.Process]:
    """The parent, behind shells the process that started them, and behind a `mlflow run` of another
    step that step.
    """
    chain: list[psutil.Process] = []
    try:
        parent = psutil.Process().parent()
        while parent is not None and parent.pid > 1:
            chain.append(parent)
            if parent.name() not in SHELLS and not _is_of_a_step(parent):
                break
            parent = parent.parent()
    except psutil.Error:  # one of them is ending: what was found so far says it too
        return chain
    return chain


def _is_of_a_step(process: psutil.Process) -> bool:
    """Whether it is a `mlflow run` that a step of ours started: MLflow does so for what it does not
    wait for.
    """
    starter = process.parent()
    return starter is not None and any(word.startswith("steps.") for word in starter.cmdline()[1:4])


def _look(watched: list[psutil.Process], parent: int) -> None:
    while os.getppid() == parent and all(map(_lives, watched)):
        time.sleep(LOOK_SECONDS)
    log.warning("whoever started this step is gone; ending")
    os.kill(os.getpid(), signal.SIGTERM)


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; a zombie has ended, though its exit code was not read yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
