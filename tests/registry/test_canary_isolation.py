"""What a canary is kept from, what says so where it is not, and that it ends with the promotion
that started it.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from steps.config.isolation import Isolation
from steps.config.promotion import CanaryConfig
from steps.core import processes
from steps.core.errors import ConfigError
from steps.registry import canary
from tests.conftest import ROOT
from tests.registry import scene
from tests.registry.commands import promote, register
from tests.registry.fixtures import Pair
from tests.registry.scene import version_of

REFUSED = dict.fromkeys(("network", "processes", "files"), "unshare: Operation not permitted")
MISSING = [f"{layer}: unshare: Operation not permitted" for layer in REFUSED]


@pytest.fixture
def no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose kernel refuses this user every namespace."""
    monkeypatch.setattr(processes, "absent", lambda: REFUSED)


@pytest.mark.usefixtures("tracking", "no_namespaces")
def test_isolation_can_be_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused in one line, before a byte is fetched."""
    monkeypatch.setattr(
        "mlflow.artifacts.download_artifacts", lambda **_: pytest.fail("it fetched the model")
    )
    with pytest.raises(ConfigError) as raised:
        canary.run("models:/canary/1", None, CanaryConfig(isolation=Isolation.required))
    said = str(raised.value)
    assert (
        said.startswith(
            "promotion.canary.isolation='required': expected a machine that can isolate a model"
        )
        and "\n" not in said
    )
    assert MISSING[0] in said and said.endswith("or pass promotion.canary.isolation=preferred")


@pytest.mark.usefixtures("tracking", "no_namespaces")
def test_a_canary_without_the_kernels_help_still_has_no_sockets_and_no_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri, digest = version_of("network")
    result = canary.run(uri, digest, CanaryConfig(timeout=60))
    assert (
        "the model wanted to look up ('192.0.2.1', 80)" in result.fault
        and list(result.missing) == MISSING
    )
    assert (
        "less isolation than there could be (network: unshare: Operation not permitted"
        in caplog.text
    )


def test_what_was_missing_is_in_the_history_and_in_promotion_json(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `register` and of `promote`; an entry of a machine that isolates says nothing."""

    def passed(uri: str, digest: str | None, _: object) -> canary.Canary:
        return canary.Canary(
            uri, digest or "", True, (), 0, 0.0, "; ".join(missing), tuple(missing)
        )

    monkeypatch.setattr(canary, "run", passed)
    recorded: list[dict[str, Any]] = []
    monkeypatch.setattr("mlflow.log_dict", lambda document, _: recorded.append(document))
    missing: list[str] = list(MISSING)
    with mlflow.start_run():
        register(pair.report_uri, scene.config())
        promote(scene.config("target=models:/parrot/1"))
        missing.clear()
        promote(scene.config("target=models:/parrot/2"))
    entries = scene.history().entries
    assert [entry.record.details.get("isolation_missing") for entry in entries] == [
        MISSING,
        MISSING,
        None,
    ]
    assert [document["isolation_missing"] for document in recorded] == [MISSING, MISSING, []]
    assert json.loads(json.dumps(recorded[0]))["isolation_missing"] == MISSING


PROMOTING = """
import sys
import time
from pathlib import Path
from steps.config.promotion import CanaryConfig
from steps.registry import canary
canary.run(sys.argv[1], None, CanaryConfig(timeout=600))
"""


def started(promoting: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """All processes below a promotion, once its canary is among them."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.1)
        family = psutil.Process(promoting.pid).children(recursive=True)
        # one that only tries what the machine allows
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("canary.py" in word for each in family for word in each.cmdline()[:3]):
                return family
    raise AssertionError("no canary was started")


def test_a_killed_promotion_takes_its_canary_along(tracking: str) -> None:
    """By SIGKILL, while the canary hangs: within seconds none of its processes is left."""
    uri, _ = version_of("hang")
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking}
    with subprocess.Popen(
        [sys.executable, "-c", PROMOTING, uri], cwd=ROOT, env=environment
    ) as promoting:
        try:
            family = started(promoting)
            assert len(family) == 3  # the canary, and the two that hold its namespace
        finally:
            promoting.kill()
        assert psutil.wait_procs(family, timeout=10)[1] == []


ROW = {"name": "loads", "passed": True, "detail": ""}


def written(checks: Any, peak: Any = 1) -> str:
    return json.dumps({"checks": checks, "peak_rss_bytes": peak})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"checks": [], "peak_rss_bytes": "much"}',
        written({}),
        written([{}]),
        written([["name", "passed", "detail"]]),
        written(["name passed detail"]),
        written([{**ROW, "name": {"a": 1}}]),
        written([{**ROW, "detail": [1]}]),
        written([{**ROW, "passed": 1}]),
        written([ROW] * 101),
        written([ROW], True),
        written([ROW], -1),
        written([ROW], 1.5),
        written([ROW], 1 << 50),
        written([ROW], 10**400),
    ],
    ids=range(17),
)
def test_what_is_no_result_of_a_canary_fails_it(text: str, tmp_path: Path) -> None:
    """The model's own code runs where the result is written, and may write anything there, or a
    link to a file of the promoter.
    """
    file = tmp_path / "result.json"
    file.write_text(text)
    assert canary.read_result(file) is None
    (tmp_path / "link.json").symlink_to(file)
    file.write_text('{"checks": [], "peak_rss_bytes": 1}')
    assert (
        canary.read_result(file) == ([], 1) and canary.read_result(tmp_path / "link.json") is None
    )


def test_what_a_canary_says_can_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "tiger-secret-1")
    odd = {
        "name": "\x1b[2J tiger-secret-1\n" + "N" * 9000,
        "passed": False,
        "detail": "\ud800\r tiger-secret-1\n" + "d" * 9000,
    }
    rows = [
        ROW,
        odd,
        {"name": "\ud800", "passed": False, "detail": "\n \n"},
        {"name": " ", "passed": False, "detail": "why\n\twhere"},
    ]
    (tmp_path / "result.json").write_text(written(rows))
    found = canary.read_result(tmp_path / "result.json")
    assert found is not None
    honest, first, second, third = found[0]
    assert honest == canary.Check("loads", True, "")
    assert first.name.startswith("\ufffd[2J *** NNN") and len(first.name) == 200
    assert first.detail.startswith("\ufffd\ufffd ***\nddd") and len(first.detail) == 2000
    assert (second.name, third) == (
        "\ufffd",
        canary.Check("a check without a name", False, "why\n\twhere"),
    )
    fault = canary.Canary(
        "models:/a/1", "sha256:0", False, tuple(found[0]), 1, 1.0, "isolated"
    ).fault
    assert fault.endswith("; \ufffd: failed; a check without a name: why") and fault.encode()
