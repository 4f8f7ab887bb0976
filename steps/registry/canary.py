"""The canary: before an alias may point at a version, a process of its own loads it and uses it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from steps.config.promotion import CanaryConfig
from steps.pipeline import digest
from steps.pipeline.errors import StepError
from steps.pipeline.redaction import SECRET_NAMES, redact
from steps.registry.gateway import ServerUnavailableError
from steps.registry.retries import first_line, is_missing_artifact, is_outage

log = logging.getLogger(__name__)

CHILD = Path(__file__).with_name("canary_child.py")
PEAK_RSS = Path(__file__).parents[1] / "pipeline" / "peak_rss.py"
POLL = 0.2  # seconds between two looks at the child's memory
TAIL = 1500  # characters of the child's log that a failure shows
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SYSTEMROOT")


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
    isolation: str  # "network namespace" where the kernel cut the network, else "sockets refused"

    @property
    def fault(self) -> str:
        """The checks that failed, in one line."""
        failed = [check for check in self.checks if not check.passed]
        return "; ".join(f"{check.name}: {(check.detail or 'failed').splitlines()[0]}" for check in failed)


def run(uri: str, expected_digest: str | None, config: CanaryConfig) -> Canary:
    """Fetch a version by its registry URI, compare its bytes, and let a fresh process load and use it.

    The process gets the fetched folder, an empty working directory, no ``PYTHON*`` variable, no secret, and no network: cut off by the
    kernel where ``unshare`` may make a network namespace, and in any case by refusing sockets. A remote registry could not be reached
    that way, so the bytes are fetched from the registry URI first, by this process.

    Args:
        uri: ``models:/<name>/<version>``.
        expected_digest: ``sha256:…`` that the bytes must have; None where nobody recorded one.
        config: limits.

    Raises:
        StepError: the bytes cannot be fetched, or are not those that were judged.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    with TemporaryDirectory(prefix="slm-canary-") as place:
        root = Path(place)
        try:
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(root / "model")))
        except (MlflowException, OSError) as error:
            if is_outage(error) and not (isinstance(error, MlflowException) and is_missing_artifact(error)):
                raise ServerUnavailableError(f"{uri}: its files cannot be fetched, nobody answers ({redact(first_line(error))})") from error
            raise StepError(
                f"{uri}: its files cannot be fetched ({redact(str(error))}); is the artifact store up, and may you read it?"
            ) from error
        found = digest.of_folder(folder)
        if expected_digest is not None and found != expected_digest:
            raise StepError(
                f"{uri}: the bytes are {found}, the evidence is about {expected_digest}; judge what is there (`mlflow run . -e evaluate`)"
                " or restore what was judged. No reason overrules this."
            )
        (root / "empty").mkdir()
        shutil.copy(CHILD, root / "canary.py")
        shutil.copy(PEAK_RSS, root / "peak_rss.py")
        log.info("canary: loading and using %s in a process of its own", uri)
        result = _watch(uri, found, root, folder, config)
    outcome = "passed" if result.passed else f"failed: {result.fault}"
    log.info("canary: %s %s (%.1f s, %.0f MB, %s)", uri, outcome, result.seconds, result.peak_rss_bytes / 1e6, result.isolation)
    return result


def _watch(uri: str, found: str, root: Path, folder: Path, config: CanaryConfig) -> Canary:
    command = [sys.executable, "-I", str(root / "canary.py"), str(folder), str(root / "result.json"), str(config.concurrency)]
    cut = _can_cut_network()
    if cut:
        command = ["unshare", "--user", "--map-current-user", "--net", *command]
    environment = {key: value for key in KEPT_VARIABLES if (value := os.environ.get(key)) and not SECRET_NAMES.search(key)}
    environment |= {"HOME": str(root / "empty"), "TMPDIR": str(root / "empty"), "MLFLOW_TRACKING_URI": f"sqlite:///{root}/empty/none.db"}
    started = time.monotonic()
    peak, trouble = 0, ""
    with (root / "log").open("wb") as output:
        process = subprocess.Popen(command, cwd=root / "empty", env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                peak = max(peak, _resident(process.pid))
                if peak > config.memory_limit_bytes:
                    trouble = f"held {peak / 1e6:.0f} MB, more than promotion.canary.memory_limit_bytes={config.memory_limit_bytes}"
                elif time.monotonic() - started > config.timeout:
                    trouble = f"not done after promotion.canary.timeout={config.timeout:g} s"
                if trouble:
                    break
                time.sleep(POLL)
        finally:
            _end(process)
    checks: list[Check] = []
    if (root / "result.json").is_file():
        result = json.loads((root / "result.json").read_text(encoding="utf-8"))
        checks += [Check(row["name"], row["passed"], redact(row["detail"])) for row in result["checks"]]
        peak = max(peak, int(result["peak_rss_bytes"]))
    tail = redact((root / "log").read_text(encoding="utf-8", errors="replace")[-TAIL:]).strip()
    if trouble:
        checks.append(Check("stays within its limits", False, trouble))
    else:
        within = peak <= config.memory_limit_bytes
        checks.append(Check("stays within its limits", within, "" if within else f"held {peak / 1e6:.0f} MB"))
        clean = process.returncode == 0 and len(checks) > 1
        checks.append(Check("exits cleanly", clean, "" if clean else f"exit code {process.returncode}; its log ends: {tail}"))
    return Canary(
        uri=uri,
        digest=found,
        passed=all(check.passed for check in checks),
        checks=tuple(checks),
        peak_rss_bytes=peak,
        seconds=round(time.monotonic() - started, 1),
        isolation="network namespace" if cut else "sockets refused",
    )


def _resident(pid: int) -> int:
    """Resident bytes of a process and its children; 0 once it is gone."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for each in (parent, *parent.children(recursive=True)):
            total += int(each.memory_info().rss)
    except psutil.NoSuchProcess:
        return total
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.kill()
    for each in family:
        if each.is_running():
            each.kill()
    process.wait()


@cache
def _can_cut_network() -> bool:
    """Whether this machine lets an ordinary user make a network namespace."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "--user", "--map-current-user", "--net", "true"], capture_output=True, check=False)
    return tried.returncode == 0
