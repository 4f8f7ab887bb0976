"""The canary: before an alias may point at a version, a process of its own loads it and uses it."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from steps.config import isolation
from steps.config.promotion import CanaryConfig
from steps.core import digest, processes
from steps.core.errors import StepError
from steps.core.files import temporary_folder
from steps.core.processes import Child, ChildStartError, Confinement
from steps.core.redaction import redact
from steps.core.visible import database_files
from steps.registry.client import ServerUnavailableError
from steps.registry.retries import first_line, is_missing_artifact, is_outage

log = logging.getLogger(__name__)

STEPS = Path(__file__).parents[1]
CHILD = STEPS / "registry" / "canary_child.py"
BESIDE = (STEPS / "evaluation" / "conformance", STEPS / "core" / "peak_rss.py")  # it imports these
POLL = 0.2  # seconds between two looks at the child's memory
TAIL = 1500  # characters of the child's log that a failure shows
LARGEST_RESULT = 1 << 20  # bytes: the model's own code may write anything there
LARGEST_MEMORY = 1 << 50  # bytes
LONGEST_NAME, LONGEST_DETAIL = 200, 2_000  # characters
MOST_ROWS = 100
# control characters and what UTF-8 has no bytes for
UNWRITABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Check:
    """One thing that the canary looked at."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Canary:
    """What became of one canary."""

    uri: str
    digest: str  # of the bytes that were fetched and loaded
    passed: bool
    checks: tuple[Check, ...]
    peak_rss_bytes: int
    seconds: float
    isolation: str  # "isolated", or what the kernel would not keep it from
    missing: tuple[str, ...] = ()  # of the isolation, one clause each

    @property
    def fault(self) -> str:
        """The checks that failed, in one line."""
        failed = [check for check in self.checks if not check.passed]
        return "; ".join(
            f"{check.name}: {(check.detail.strip() or 'failed').splitlines()[0]}"
            for check in failed
        )


def recorded(missing: Sequence[str]) -> dict[str, list[str]]:
    """What an entry's ``details`` hold of the isolation; nothing where all of it was had."""
    return {"isolation_missing": list(missing)} if missing else {}


def run(uri: str, expected_digest: str | None, config: CanaryConfig) -> Canary:
    """Fetch a version by its registry URI, compare its bytes, and let a fresh process load and use
    it.

    The process gets the fetched folder, an empty home and working directory, no ``PYTHON*``
    variable, no secret, no other files and processes, and no network: cut off by the kernel where
    it lets this user, and in any case by refusing sockets. A remote registry could not be reached
    that way, so the bytes are fetched from the registry URI first, by this process.

    Args:
        uri: ``models:/<name>/<version>``.
        expected_digest: ``sha256:…`` that the bytes must have; None where none was recorded.
        config: limits.

    Raises:
        ConfigError: ``promotion.canary.isolation`` is required and cannot be had here; nothing was
            fetched.
        StepError: the bytes cannot be fetched, or are not those that were judged.
    """
    isolation.heed("promotion.canary.isolation", config.isolation, processes.missing())
    with temporary_folder("slm-canary-") as root:
        try:
            folder = Path(
                mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(root / "model"))
            )
        except (MlflowException, OSError) as error:
            if is_outage(error) and not (
                isinstance(error, MlflowException) and is_missing_artifact(error)
            ):
                raise ServerUnavailableError(
                    f"{uri}: its files cannot be fetched, the server does not answer"
                    f" ({redact(first_line(error))})"
                ) from error
            raise StepError(
                f"{uri}: its files cannot be fetched ({redact(str(error))}); is the artifact store"
                " up, and may you read it?"
            ) from error
        fetched = digest.of_folder(folder)
        if expected_digest is not None and fetched != expected_digest:
            raise StepError(
                f"{uri}: the bytes are {fetched}, the evidence is about {expected_digest}"
                f"{digest.about_bytecode(folder)}; judge what is there (`mlflow run . -e evaluate"
                " --env-manager local`)"
                " or restore what was judged. No reason overrules this."
            )
        (root / "home").mkdir()
        (root / "out").mkdir()
        shutil.copy(CHILD, root / "canary.py")
        for source in BESIDE:
            (shutil.copytree if source.is_dir() else shutil.copy)(source, root / source.name)
        log.info("canary: loading and using %s in a process of its own", uri)
        result = _watch(uri, fetched, root, folder, config)
    outcome = "passed" if result.passed else f"failed: {result.fault}"
    log.info(
        "canary: %s %s (%.1f s, %.0f MB, %s)",
        uri,
        outcome,
        result.seconds,
        result.peak_rss_bytes / 1e6,
        result.isolation,
    )
    return result


def _watch(uri: str, fetched: str, root: Path, folder: Path, config: CanaryConfig) -> Canary:
    started = time.monotonic()
    peak, trouble = 0, ""
    try:
        child = _start(root, folder, config)
    except ChildStartError as error:
        raise StepError(f"{uri}: its canary cannot be started: {error}") from error
    with child:
        while child.alive:
            peak = max(peak, child.resident())
            if peak > config.memory_limit_bytes:
                trouble = (
                    f"held {peak / 1e6:.0f} MB, more than"
                    f" promotion.canary.memory_limit_bytes={config.memory_limit_bytes}"
                )
            elif time.monotonic() - started > config.timeout:
                trouble = f"not done after promotion.canary.timeout={config.timeout:g} s"
            if trouble:
                break
            time.sleep(POLL)
        returncode = child.returncode
    checks: list[Check] = []
    if (result := read_result(root / "out" / "result.json")) is not None:
        checks += result[0]
        peak = max(peak, result[1])
        if not trouble and any(
            "MemoryError" in check.detail or "bad_alloc" in check.detail for check in checks
        ):
            trouble = (
                "asked for more memory than"
                f" promotion.canary.memory_limit_bytes={config.memory_limit_bytes} leaves it"
            )
    if trouble:
        checks.append(Check("stays within its limits", False, trouble))
    else:
        within = peak <= config.memory_limit_bytes
        checks.append(
            Check("stays within its limits", within, "" if within else f"held {peak / 1e6:.0f} MB")
        )
        clean = returncode == 0 and len(checks) > 1
        checks.append(
            Check(
                "exits cleanly",
                clean,
                "" if clean else f"exit code {returncode}; its log ends: {child.tail()[-TAIL:]}",
            )
        )
    return Canary(
        uri=uri,
        digest=fetched,
        passed=all(check.passed for check in checks),
        checks=tuple(checks),
        peak_rss_bytes=peak,
        seconds=round(time.monotonic() - started, 1),
        isolation="; ".join(child.missing) or "isolated",
        missing=child.missing,
    )


def _start(root: Path, folder: Path, config: CanaryConfig) -> Child:
    home, out = root / "home", root / "out"
    databases = {
        file
        for uri in (mlflow.get_tracking_uri(), mlflow.get_registry_uri())
        for file in database_files(uri)
    }
    return Child(
        [
            sys.executable,
            "-I",
            str(root / "canary.py"),
            str(folder),
            str(out / "result.json"),
            str(config.concurrency),
        ],
        environment=processes.environment(
            {
                "HOME": str(home),
                "TMPDIR": str(home),
                "MLFLOW_TRACKING_URI": f"sqlite:///{home}/none.db",
            }
        ),
        cwd=home,
        confinement=Confinement(
            readable=(folder, root / "canary.py", *(root / source.name for source in BESIDE)),
            writable=(home, out),
            secret=tuple(databases),
            memory_bytes=config.memory_limit_bytes,
        ),
    )


def read_result(path: Path) -> tuple[list[Check], int] | None:
    """The checks that the canary wrote and its peak in bytes, redacted and fit to be shown.

    None where it is missing or is not a canary's result, as the model's own code could write there
    too.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            result = json.loads(file.read(LARGEST_RESULT))
        peak, rows = result["peak_rss_bytes"], result["checks"]
        if (
            type(peak) is not int
            or not 0 <= peak < LARGEST_MEMORY
            or not isinstance(rows, list)
            or len(rows) > MOST_ROWS
        ):
            return None
        return [_check(row) for row in rows], peak
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _check(row: Mapping[str, Any]) -> Check:
    """One row of the result; TypeError or KeyError where it is not a row."""
    name, passed, detail = row["name"], row["passed"], row["detail"]
    if not (isinstance(name, str) and isinstance(passed, bool) and isinstance(detail, str)):
        raise TypeError("not a row of a canary")
    return Check(
        " ".join(_shown(name, LONGEST_NAME).split()) or "a check without a name",
        passed,
        _shown(detail, LONGEST_DETAIL),
    )


def _shown(text: str, longest: int) -> str:
    """A text that can be written and does nothing to a terminal."""
    whole = UNWRITABLE.sub("\ufffd", redact(text)).strip()
    return whole if len(whole) <= longest else whole[: longest - 1] + "…"
