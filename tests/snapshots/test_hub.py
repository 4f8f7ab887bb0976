"""The real client against a small hub on loopback that serves ``tiny_phi3``."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.config.model import ModelConfig
from steps.snapshots.errors import HubUnreachableError, SnapshotError
from steps.snapshots.fetch import fetch, request
from steps.snapshots.manifest import Snapshot
from steps.snapshots.store import Store
from steps.snapshots.store_folder import request_key
from tests.snapshots.conftest import configured
from tests.snapshots.hub_server import Hub, Repo, serve

REPO, COMMIT = "someone/tiny-phi3", "a" * 40
ONNX_REPO, ONNX_COMMIT = "someone/tiny-phi3-onnx", "b" * 40
WEIGHTS = "model.safetensors"
pytestmark = pytest.mark.usefixtures("hub")


def model(**overrides: object) -> ModelConfig:
    """A config of the served repository."""
    return configured(
        "smollm2_135m_hub", **({"repo": REPO, "revision": COMMIT, "licence": None} | overrides)
    )


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, which the client is pointed at; its cache is the test's own and no token is set."""
    from huggingface_hub import constants

    card, pickle = tmp_path / "README.md", tmp_path / "pytorch_model.bin"
    card.write_text("---\nlicense: apache-2.0\ntags: [test]\n---\n# Tiny\n")
    pickle.write_bytes(b"\x80\x04.")
    files = {path.name: path for path in tiny_folder.iterdir()} | {
        "README.md": card,
        "pytorch_model.bin": pickle,
        "modeling_phi3.py": card,
    }
    files["checkpoint-500/" + WEIGHTS] = pickle
    genai = tmp_path / "genai_config.json"
    genai.write_text('{"model": {"eos_token_id": 2}}')
    onnx = {
        "cpu/int4/genai_config.json": genai,
        "cpu/int4/model.onnx": tiny_folder / WEIGHTS,
        "cuda/genai_config.json": genai,
    }
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with serve(Hub({REPO: Repo(COMMIT, files), ONNX_REPO: Repo(ONNX_COMMIT, onnx)})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def test_takes_the_allowed_files_with_their_hashes(hub: Hub, store: Store, tiny: Snapshot) -> None:
    snapshot = fetch(model(), store)
    assert (snapshot.name, snapshot.requested, snapshot.revision, snapshot.licence) == (
        REPO,
        COMMIT,
        COMMIT,
        "apache-2.0",
    )
    assert set(tiny.files) < set(snapshot.files)
    assert {entry.path for entry in snapshot.files} == {entry.path for entry in tiny.files} | {
        "README.md"
    }
    assert hub.bodies("pytorch_model.bin") == hub.bodies("modeling_phi3.py") == 0
    assert {path.name for path in store.checkpoint(snapshot).iterdir()} == {
        entry.path for entry in snapshot.files
    }
    assert not list((store.root / "partial").iterdir())


def test_weights_of_a_folder_below_and_pickles_stay_there(hub: Hub, store: Store) -> None:
    fetch(model(allow_patterns=["*"]), store)
    assert hub.bodies("modeling_phi3.py") == 0
    assert hub.bodies("checkpoint-500/" + WEIGHTS) == hub.bodies("pytorch_model.bin") == 0


def test_a_pinned_snapshot_is_reused_without_asking(hub: Hub, store: Store) -> None:
    first = fetch(model(), store)
    hub.asked.clear()
    assert fetch(model(), store) == first
    assert hub.asked == []


def test_a_damaged_record_is_not_believed(
    hub: Hub, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = fetch(model(), store)
    record = next((store.root / "records").iterdir())
    record.write_text(record.read_text().replace("apache-2.0", "mit"))
    before = hub.bodies(WEIGHTS)
    assert fetch(model(), store) == snapshot
    assert "the store's record is damaged" in caplog.text
    assert hub.bodies(WEIGHTS) == before


def test_a_branch_is_resolved_recorded_and_warned_about(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = fetch(model(revision="main"), store)
    assert (snapshot.requested, snapshot.revision) == ("main", COMMIT)
    assert f"pin it with model.revision={COMMIT}" in caplog.text
    # a branch and its commit are the same bytes
    assert snapshot.digest == fetch(model(), store).digest


def test_a_branch_that_moved_is_fetched_anew(hub: Hub, store: Store) -> None:
    fetch(model(revision="main"), store)
    hub.repos[REPO].commit = "c" * 40
    before = hub.bodies(WEIGHTS)
    assert fetch(model(revision="main"), store).revision == "c" * 40
    assert hub.bodies(WEIGHTS) == before  # same bytes: the store has them


def test_a_branch_falls_back_to_the_store_when_the_hub_is_away(
    hub: Hub, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    first = fetch(model(revision="main"), store)
    hub.failing = True
    assert fetch(model(revision="main"), store) == first
    assert f"taking {COMMIT}, fetched earlier" in caplog.text


def test_the_prebuilt_onnx_folder_comes_along(store: Store) -> None:
    prebuilt = {"repo": ONNX_REPO, "revision": ONNX_COMMIT, "folder": "cpu/int4"}
    snapshot = fetch(model(onnx=prebuilt), store)
    assert [entry.path for entry in snapshot.onnx_files] == ["genai_config.json", "model.onnx"]
    folder = store.onnx(snapshot)
    assert folder is not None
    assert sorted(path.name for path in folder.iterdir()) == ["genai_config.json", "model.onnx"]
    assert snapshot.origin["onnx_revision"] == ONNX_COMMIT
    assert fetch(model(), store).digest != snapshot.digest


def test_the_prebuilt_onnx_folder_of_a_checkpoint_from_elsewhere(
    store: Store, checkpoint: Path
) -> None:
    prebuilt = {"repo": ONNX_REPO, "revision": ONNX_COMMIT, "folder": "cpu/int4"}
    snapshot = fetch(configured("local", path=str(checkpoint), onnx=prebuilt), store)
    assert (snapshot.source, snapshot.name) == ("folder", "checkpoint")
    assert [entry.path for entry in snapshot.onnx_files] == ["genai_config.json", "model.onnx"]


def test_a_wrong_onnx_folder_names_the_right_ones(hub: Hub, store: Store) -> None:
    with pytest.raises(SnapshotError, match=r"model\.onnx\.folder='gpu'.*\['cpu/int4', 'cuda'\]"):
        fetch(model(onnx={"repo": ONNX_REPO, "revision": ONNX_COMMIT, "folder": "gpu"}), store)
    assert hub.bodies(WEIGHTS) == hub.bodies("config.json") == 0  # said before anything was fetched


def test_a_repository_without_any_onnx_folder_says_so(store: Store) -> None:
    with pytest.raises(
        SnapshotError,
        match=r"model\.onnx\.folder='': holds no genai_config\.json in .*name another repository",
    ):
        fetch(model(onnx={"repo": REPO, "revision": COMMIT}), store)


def test_resumes_where_the_connection_was_cut(hub: Hub, store: Store, tiny: Snapshot) -> None:
    # the client writes in pieces of 10 MiB, and goes on after the last whole one
    hub.cut_after[WEIGHTS] = [11_000_000]
    snapshot = fetch(model(), store)
    assert set(tiny.files) < set(snapshot.files)
    ranges = [
        wanted
        for method, path, wanted in hub.asked
        if method == "GET" and path.endswith(f"/cdn/{COMMIT}/{WEIGHTS}")
    ]
    assert ranges == [None, f"bytes={10 * 1024 * 1024}-"]


def test_gated_without_a_token(hub: Hub, store: Store) -> None:
    hub.repos[REPO].gated = True
    with pytest.raises(
        SnapshotError,
        match=rf"model\.repo='{REPO}': is gated: the hub answered 401; accept its terms.*HF_TOKEN",
    ):
        fetch(model(), store)


def test_gated_with_the_token_from_the_environment(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos[REPO].gated = True
    monkeypatch.setenv("HF_TOKEN", hub.token)
    snapshot = fetch(model(), store)
    assert hub.token not in snapshot.to_json()


def test_gated_where_only_the_files_are(hub: Hub, store: Store) -> None:
    # as on the real hub: everybody may list what only some may read
    hub.repos[REPO].gated_files = True
    with pytest.raises(
        SnapshotError,
        match=rf"model\.repo='{REPO}': is gated: the hub answered 401; accept its terms.*HF_TOKEN",
    ):
        fetch(model(), store)
    assert hub.bodies(WEIGHTS) == 0


def test_a_thousand_json_files_cost_no_request(
    hub: Hub, store: Store, tmp_path: Path, tiny: Snapshot
) -> None:
    small = tmp_path / "data.json"
    small.write_text("{}")
    places = (
        "data/part-{}.json",
        "results_{}.json",
        "tokenizer-{}.json",
        "onnx/config_{}.json",
        "checkpoint-{}/config.json",
    )
    hub.repos[REPO].files |= {
        places[number % len(places)].format(number): small for number in range(1500)
    }
    snapshot = fetch(model(), store)
    assert {entry.path for entry in snapshot.files} == {entry.path for entry in tiny.files} | {
        "README.md"
    }
    # the commit and the list, twice each; then HEAD, GET and a redirect a file
    assert len(hub.asked) <= 10 + 3 * len(snapshot.files)


def test_only_the_shards_of_the_index_arrive(hub: Hub, store: Store, tmp_path: Path) -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}))
    files = hub.repos[REPO].files
    weights = files.pop(WEIGHTS)
    beside = [
        "consolidated.safetensors",
        "original/model.safetensors",
        "checkpoint-500/optimizer.safetensors",
        "onnx/model.safetensors",
    ]
    files |= dict.fromkeys([*shards, *beside], weights) | {"model.safetensors.index.json": index}
    snapshot = fetch(model(), store)
    assert [entry.path for entry in snapshot.files if entry.path.endswith(".safetensors")] == shards
    assert [hub.bodies(name) for name in beside] == [0] * len(beside)


def test_unknown_repository(store: Store) -> None:
    with pytest.raises(SnapshotError, match=r"model\.repo='someone/typo': is unknown to the hub"):
        fetch(model(repo="someone/typo"), store)


@pytest.mark.parametrize("revision", ["no-such-branch", "d" * 40])
def test_unknown_revision(store: Store, revision: str) -> None:
    with pytest.raises(
        SnapshotError, match=rf"model\.revision='{revision}': {REPO} has no such revision"
    ):
        fetch(model(revision=revision), store)


def test_changed_bytes_are_refused_and_the_rest_is_kept(hub: Hub, store: Store) -> None:
    hub.corrupt.add(WEIGHTS)
    with pytest.raises(
        SnapshotError, match=rf"{WEIGHTS} arrived as [0-9a-f]{{64}}, the hub lists it as"
    ):
        fetch(model(), store)
    hub.corrupt.clear()
    before = {name: hub.bodies(name) for name in ("tokenizer.json", WEIGHTS)}
    fetch(model(), store)
    assert hub.bodies("tokenizer.json") == before["tokenizer.json"]
    assert hub.bodies(WEIGHTS) == before[WEIGHTS] + 1


def test_changed_small_file_is_found_by_its_git_id(hub: Hub, store: Store) -> None:
    hub.corrupt.add("config.json")
    with pytest.raises(
        SnapshotError, match=r"config\.json arrived as [0-9a-f]{40}, the hub lists it as"
    ):
        fetch(model(), store)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client backs off for 23 seconds in all before it gives up; here it does not wait."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


@pytest.mark.usefixtures("impatient")
def test_no_network(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(
        HubUnreachableError,
        match=r"model\.repo='someone/tiny-phi3': the hub cannot be reached .* check the network",
    ):
        fetch(model(), store)


@pytest.mark.usefixtures("impatient")
def test_a_line_that_keeps_breaking(hub: Hub, store: Store) -> None:
    hub.cut_after[WEIGHTS] = [1000] * 6  # the client tries five times more after the first
    with pytest.raises(
        HubUnreachableError,
        match=(
            r"the hub cannot be reached \(.*\); .* files that arrived whole are kept: run the same"
            r" command again"
        ),
    ):
        fetch(model(), store)
    before = hub.bodies("tokenizer.json")
    assert store.damaged(fetch(model(), store).files) == []
    assert hub.bodies("tokenizer.json") == before == 1


def test_offline_by_the_clients_own_switch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    snapshot = fetch(model(), store)
    # what the variable sets when the client is imported
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(model(), store) == snapshot
    with pytest.raises(
        HubUnreachableError,
        match=r"model\.repo='someone/other': HF_HUB_OFFLINE forbids asking the hub",
    ):
        fetch(model(repo="someone/other"), store)


def test_what_a_killed_download_left_is_cleared(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    key = request_key(request(model()))
    stale = (
        store.partial(key)
        / "checkpoint"
        / ".cache"
        / "huggingface"
        / "download"
        / "x.12345678.incomplete"
    )
    stale.parent.mkdir(parents=True)
    stale.write_bytes(bytes(1000))
    download = huggingface_hub.snapshot_download

    def cleared(*arguments: object, **others: object) -> object:
        assert not stale.exists()
        return download(*arguments, **others)  # type: ignore[call-overload]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cleared)
    fetch(model(), store)
    assert not list((store.root / "partial").iterdir())


@pytest.mark.usefixtures("impatient")
def test_hub_that_fails(hub: Hub, store: Store) -> None:
    hub.failing = True
    with pytest.raises(HubUnreachableError, match=r"the hub is failing \(it answered 503\)"):
        fetch(model(), store)


def test_damage_in_the_store_fetches_only_what_is_damaged(
    hub: Hub, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = fetch(model(), store)
    tokenizer = next(entry for entry in snapshot.files if entry.path == "tokenizer.json")
    blob = store.blob(tokenizer.sha256)
    blob.chmod(0o644)
    content = bytearray(blob.read_bytes())
    content[1000] ^= 1
    blob.write_bytes(content)
    before = {name: hub.bodies(name) for name in ("tokenizer.json", WEIGHTS)}
    with caplog.at_level(logging.WARNING):
        assert fetch(model(), store) == snapshot
    assert "tokenizer.json: missing or changed in the store" in caplog.text
    assert hub.bodies("tokenizer.json") == before["tokenizer.json"] + 1
    assert hub.bodies(WEIGHTS) == before[WEIGHTS]
    assert (store.checkpoint(snapshot) / "tokenizer.json").samefile(blob)


def test_a_repository_that_no_file_describes_is_fetched_by_its_name(
    hub: Hub, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    from steps.pipeline.arguments import translate
    from steps.pipeline.compose import compose_config

    named = compose_config(translate(["--model", REPO]).overrides).model
    with caplog.at_level(logging.WARNING):
        snapshot = fetch(named, store)
    assert named.registered_name == "tiny-phi3"
    assert (snapshot.name, snapshot.requested, snapshot.revision) == (REPO, None, COMMIT)
    assert f"resolved to {COMMIT}; pin it with model.revision={COMMIT}" in caplog.text
    assert hub.bodies(WEIGHTS) == 1
