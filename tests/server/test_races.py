"""Promoters that race against a real server on PostgreSQL, each in its own process: one wins, the
others are told to whom they lost.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlflow
import pytest

from steps.registry.client import RegistryClient
from steps.registry.journal import Journal
from tests.conftest import ROOT, clean_environment
from tests.registry import scene

pytestmark = pytest.mark.server
RACERS = 3


class Racer:
    """One promoter."""

    def __init__(self, uri: str, name: str, own: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.racer", name, own],
            cwd=ROOT,
            env=clean_environment(MLFLOW_TRACKING_URI=uri),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the racer ended with {self.process.wait()}"
        heard: dict[str, Any] = json.loads(line)
        return heard


@contextmanager
def racers(uri: str, name: str, how_many: int = RACERS) -> Iterator[list[Racer]]:
    started = [Racer(uri, name, f"racer-{index}") for index in range(how_many)]
    try:
        for each in started:
            assert each.hear() == {"ready": True}
        yield started
    finally:
        for each in started:
            each.process.kill()
            each.process.wait()


def make_versions(name: str, how_many: int) -> None:
    """Versions of one small logged model: what they are does not matter here."""
    client = mlflow.MlflowClient()
    client.create_registered_model(name)
    with mlflow.start_run():
        model = mlflow.initialize_logged_model(name="stone")
        mlflow.finalize_logged_model(model.model_id, "READY")
    for _ in range(how_many):
        client.create_model_version(name, f"models:/{model.model_id}", model_id=model.model_id)


def check(name: str, journal: Journal) -> None:
    """No lost update, no hole, no previous champion that never was one; replayed here by other code
    than the store's.
    """
    assert journal.holes == ()
    champion, served = None, set()
    previous = None
    for entry in journal.entries:
        if not entry.holds:
            continue
        for move in entry.record.moves:
            if move.alias == "champion":
                assert move.before == champion, f"entry {entry.number} overwrote {champion} unseen"
                previous, champion = champion, move.after
                served.add(champion)
    actual = RegistryClient(10).aliases(name)
    assert actual is not None and actual["champion"] == champion
    assert actual.get("previous") == previous and (previous is None or previous in served)


def run_rounds(uri: str, name: str, rounds: int) -> Journal:
    make_versions(name, RACERS + 1)
    with racers(uri, name) as field:
        for number in range(rounds):
            before = (RegistryClient(10).aliases(name) or {}).get("champion")
            others = [version for version in range(1, RACERS + 2) if version != before]
            for racer, version in zip(field, others, strict=False):
                racer.tell(f"look {version}")
            assert {racer.hear()["champion"] for racer in field} == {before}
            for racer in field:
                racer.tell("go")
            results = [racer.hear() for racer in field]
            winners = [index for index, result in enumerate(results) if result["won"]]
            assert len(winners) == 1, f"round {number}: {results}"
            assert (RegistryClient(10).aliases(name) or {})["champion"] == others[winners[0]]
            for result in results:
                assert result["won"] or f"promote by racer-{winners[0]}" in result["why"], result
    journal = scene.history(name)
    assert sum(entry.holds for entry in journal.entries) == rounds
    return journal


@pytest.mark.parametrize(
    "rounds", [2, pytest.param(8, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_racing_registrations_make_one_version_each(remote: str, rounds: int) -> None:
    with mlflow.start_run():
        slow, fast = scene.log_model("transformers"), scene.log_model("onnx")
    with racers(remote, "unused") as field:
        for number in range(rounds):
            name = f"registered-{rounds}-{number}"
            uri = scene.report_by_a_run(
                [
                    scene.candidate(slow, "transformers", scene.GOOD),
                    scene.candidate(fast, "onnx", scene.FAST),
                ],
                name=name,
            )
            for racer in field:
                racer.tell(f"register {uri}")
            results = [racer.hear() for racer in field]
            assert sum(bool(result["won"] and result["entry"]) for result in results) == 1, results
            versions = RegistryClient(10).versions(name)
            assert sorted(version.model_id or "" for version in versions) == sorted([slow, fast]), (
                "registered twice"
            )
            journal = scene.history(name)
            assert sum(entry.holds for entry in journal.entries) == 1
            assert dict(journal.aliases) == RegistryClient(10).aliases(name)


def test_a_few_racing_rounds(remote: str) -> None:
    check("race-short", run_rounds(remote, "race-short", 10))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rounds", [20, pytest.param(200, marks=pytest.mark.volume)])
def test_racing_rounds(remote: str, rounds: int) -> None:
    check(f"race-{rounds}", run_rounds(remote, f"race-{rounds}", rounds))


@pytest.mark.parametrize(
    "rounds",
    [8, pytest.param(70, marks=[pytest.mark.slow, pytest.mark.volume, pytest.mark.timeout(1800)])],
)
def test_unsynchronised_promoters(remote: str, rounds: int) -> None:
    name = f"free-for-all-{rounds}"
    make_versions(name, 4)
    with racers(remote, name) as field:
        for index, racer in enumerate(field):
            racer.tell(f"run {rounds} {index + 1} 4")
        done = [result for racer in field for result in racer.hear()["done"]]
    journal = scene.history(name)
    entries = {result["entry"] for result in done if result["won"] and result["entry"]}
    assert {entry.number for entry in journal.entries if entry.holds} == entries
    assert all(
        "came first" in result["why"] or "not where" in result["why"]
        for result in done
        if not result["won"]
    )
    check(name, journal)
