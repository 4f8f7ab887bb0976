"""The first hour: README's commands, in their order, on a clone of the last commit with the
embedded model; then the notebook and the documents' further commands, on what they left.

That `make install` makes the environment from the lock is `test_environment`'s to show.
"""

import json
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.conftest import ROOT, Shell
from tests.project.documents import Block, blocks
from tests.project.reader import Reader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

NAME = "smollm2-135m-instruct"
LOCAL = "conf/local/default.yaml"
# fewer items and timings than README's command takes by itself, and enough of them for a verdict
CHEAPER = """# @package _global_
evaluate:
  max_items: 40
  fidelity: {tokens: 1088, window: 64, continuations: 2}
  speed: {rounds: 1, new_tokens: 12, concurrency: [1, 4]}
"""
# commands that go on until they are ended, and an address that answers when they are ready
SERVERS = {
    "make ui": "http://127.0.0.1:5000/health",
    "make serve": "http://127.0.0.1:8000/readyz",
    "mlflow models serve": "http://127.0.0.1:5001/ping",
}
# commands of README that are tried elsewhere, all checked by `test_docs`
ELSEWHERE = {
    "make test": "this is one of its tests",
    "mlflow run https://": "test_git_uri runs a git URL",
    "mlflow run . --env-manager local -P model=phi3_mini_4k": "7.6 GB from a hub",
    "make run MODEL=Qwen/": "1 GB from a hub; test_hub takes a repository",
    "mlflow run . --env-manager local -P model=/models/mine": "test_local takes a folder",
}
LOAD = """
import json, sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
response = model.predict({"messages": [{"role": "user", "content": "What is the capital of Germany?"}], "max_tokens": 32})
print(json.dumps(response))
"""  # noqa: E501


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Has typed README's first command."""
    clone = tmp_path_factory.mktemp("first-hour") / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    (clone / ".venv").symlink_to(ROOT / ".venv")  # `test_lock` compares it with the lock
    for marker in (".run", ".dev"):
        # newer than the clone's lock: or make would run pip in an environment that others use
        (clone / ".venv" / marker).touch()
    (clone / LOCAL).parent.mkdir(exist_ok=True)
    (clone / LOCAL).write_text(CHEAPER)
    reader = Reader(clone)
    reader.type("make run")
    yield reader
    reader.stop()


@pytest.fixture(scope="module")
def client(reader: Reader) -> MlflowClient:
    uri = f"sqlite:///{reader.folder}/mlflow.db"
    return MlflowClient(uri, uri)


def aliases(client: MlflowClient) -> dict[str, str]:
    return {alias: str(at) for alias, at in client.get_registered_model(NAME).aliases.items()}


def test_make_run_ends_with_a_champion_that_answers(
    reader: Reader, client: MlflowClient, shell: Shell, tmp_path: Path
) -> None:
    printed = reader.printed["make run"]
    assert "make ui" in printed
    assert 'make ask Q="What is the capital of Germany?"' in printed
    found = aliases(client)
    assert {"transformers", "onnx", "champion", "challenger"} <= set(found)
    answers = {}
    for alias in ("champion", "transformers"):
        uri = f"models:/{NAME}@{alias}"
        store = f"sqlite:///{reader.folder}/mlflow.db"
        asked = shell("python", "-c", LOAD, uri, cwd=tmp_path, MLFLOW_TRACKING_URI=store)
        assert asked.returncode == 0, asked.stderr[-3000:]
        (completion,) = json.loads(asked.stdout.splitlines()[-1])
        assert completion["model"] == NAME
        answers[alias] = completion["choices"][0]["message"]["content"]
    # a quantised champion of 135 million parameters may know less
    assert "Berlin" in answers["transformers"]
    assert answers["champion"].strip()


def walk(reader: Reader, read: Iterable[Block]) -> set[str]:
    """Do what blocks say, in their order; which of `SERVERS` and `ELSEWHERE` they had."""
    met: set[str] = set()
    for block in read:
        if block.language == "python":
            assert reader.python(block.text), block
        elif not block.language:
            reader.stop()
            for line in block.commands:
                command = line.partition(" #")[0].strip()
                known = [words for words in (*ELSEWHERE, *SERVERS) if command.startswith(words)]
                met |= set(known)
                if command in reader.printed or any(words in ELSEWHERE for words in known):
                    continue
                if " -e evaluate " in command:  # which says itself how much
                    (reader.folder / LOCAL).unlink(missing_ok=True)
                if known:
                    reader.start(command, SERVERS[known[0]])
                else:
                    reader.type(command)
                if command.startswith("curl "):  # which takes a refusal for an answer
                    answer = reader.printed[command]
                    assert json.loads(answer) and "error_code" not in answer, answer
    return met


def test_readmes_commands_hold_in_their_order(reader: Reader, client: MlflowClient) -> None:
    before = aliases(client)
    assert walk(reader, blocks("README.md")) == {*ELSEWHERE, *SERVERS}  # it has no other
    again = reader.printed["mlflow run . --env-manager local -P model=smollm2_135m"]
    assert again.count("reused from run") == 4
    assert all(said.strip() for command, said in reader.printed.items() if " ask " in command)
    # there and back: the version before is now the one that was tried in between
    now = aliases(client)
    assert now["champion"] == before["champion"]
    assert now["previous"] == before["challenger"]
    (history,) = (said for command, said in reader.printed.items() if " history " in command)
    assert "promote by" in history
    assert "rollback by" in history


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("docs/serving.md", "mlflow models serve"),
        ("docs/deployment.md", "from steps.core.processes import missing"),
        ("docs/team-setup.md", "$ mlflow run . -e history"),
    ],
)
def test_cheap_commands_of_the_documents_hold(reader: Reader, document: str, words: str) -> None:
    (block,) = [block for block in blocks(document) if words in block.text]
    reader.active = True  # as README's reader has left it
    walk(reader, [block])


def test_the_notebook_runs(
    reader: Reader, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    notebook = nbformat.read(reader.folder / "docs/quickstart.ipynb", as_version=4)
    place = {"metadata": {"path": str(reader.folder / "docs")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    said = [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    assert f"version {aliases(client)['champion']}, " in said[0]
    assert "promote on 40 items of core" in "\n".join(said)
