"""``python -m steps.check``: all faults at once, nothing is run."""

import json
from pathlib import Path

import pytest

from steps.check import check
from steps.core.errors import ConfigError
from tests.conftest import ROOT, Shell

META = "name: mine\nversion: 1\nlicence: MIT\ncontamination: none\n"


def item(name: str, **changes: object) -> str:
    whole = {
        "id": name,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "checks": [{"type": "contains_any", "values": ["Paris"]}],
        "tags": ["facts"],
    }
    return json.dumps(whole | changes)


def pack(folder: Path, *lines: str, meta: str = META) -> Path:
    folder.mkdir()
    (folder / "pack.yaml").write_text(meta)
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_pack_shows_every_broken_line(tmp_path: Path) -> None:
    folder = pack(
        tmp_path / "mine",
        item("whole"),
        item("typo", checks=[{"type": "contain_any", "values": ["x"]}]),
        "{",
        item("whole"),
        item("keys", max_token=4),
        meta="name: mine\n",
    )
    _, faults = check([f"pack={folder}"])
    assert [fault.partition(": expected ")[2][:40] for fault in faults] == [
        "a value for 'version', 'licence', 'contamination'"[:40],
        "the name of a check; unknown check 'cont",
        "one JSON object a line (Expecting proper",
        "an id of its own; 'whole' is taken by an",
        "only the keys ['checks', 'id', 'max_toke",
    ]
    assert "items.jsonl:2'" in faults[1] and "did you mean contains_any" in faults[1]
    assert "did you mean max_tokens?" in faults[4]


def test_files_packs_and_words_are_checked_together(tmp_path: Path) -> None:
    policy = tmp_path / "promotion" / "mine.yaml"
    policy.parent.mkdir()
    policy.write_text("defaults: [schema]\naproval: 1\napprovals: x\n")
    model = tmp_path / "mine.yaml"
    model.write_text("defaults: [schema]\nregistered_name: mine\nsource: hub\n")
    _, faults = check([str(policy), f"model={model}", "evaluate.max_itms=4", str(tmp_path)])
    assert len(faults) == 5
    assert f"{policy}:3: promotion.approvals='x': expected an integer" in faults
    assert any(fault.startswith(f"{model}: model.repo=None: expected a value") for fault in faults)
    assert any("did you mean promotion.approvals" in fault for fault in faults)
    assert any("evaluate.max_itms='4'" in fault for fault in faults)
    assert any("a shipped pack's name" in fault for fault in faults)
    assert not [fault for fault in faults if "\n" in fault]


@pytest.mark.parametrize(
    "words",
    [
        ["promotion=quality", "model=tiny_phi3", "pack=core"],
        ["model=Qwen/Qwen2.5-0.5B-Instruct", "evaluate=smoke"],
        ["conf/promotion/edge.yaml", "steps/evaluation/packs/smoke"],
        ["--model", "", "--overrides", "-m onnx=int4_cpu,fp32_cpu"],
    ],
)
def test_what_is_right_has_no_fault(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    looked, faults = check(words)
    assert looked and faults == []


def test_everything_that_is_shipped_is_right() -> None:
    looked, faults = check([])
    assert faults == []
    assert {"conf/promotion/edge.yaml", "conf/model/hub.yaml", "pack core"} <= {*looked}


def test_a_file_of_no_group_is_asked_back(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"write promotion=mine\.yaml for a policy"):
        check([str(tmp_path / "mine.yaml")])


def test_its_end_says_whether_anything_is_wrong(shell: Shell) -> None:
    words = ("python", "-X", "importtime", "-m", "steps.check")
    done = shell(*words, "pack=smoke", "model=tiny_phi3", cwd=ROOT)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert (done.returncode, done.stdout) == (0, "model=tiny_phi3: nothing wrong\n"
                                                 "pack smoke: nothing wrong\n")  # fmt: skip
    assert not imported & {"mlflow", "torch", "transformers", "onnxruntime"}
    done = shell("python", "-m", "steps.check", "evaluate.max_itms=4", "onnx=nope", cwd=ROOT)
    assert done.returncode == 1
    assert "onnx='nope': expected one of" in done.stderr
    assert "evaluate.max_itms='4'" in done.stderr and "2 wrong; nothing was run" in done.stderr
    assert shell("python", "-m", "steps.check", "nonsense", cwd=ROOT).returncode == 2
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = shell("python", "-m", "steps.check", "--store", "model=tiny_phi3", cwd=ROOT, **away)
    assert done.returncode == 1
    assert "check: error: MLflow at http://127.0.0.1:9 does not answer" in done.stderr


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("", "expected a folder that exists"),
        ("mine/", "holds no config.json and no weights"),
        ("mine", "expected a folder, not a file"),
        ("mine/model.gguf", "holds GGUF files only (model.gguf)"),
        ("mine/config.json", "holds no safetensors weights"),
    ],
)
def test_a_models_folder_must_have_a_checkpoint(made: str, said: str, tmp_path: Path) -> None:
    if made.endswith("/"):
        (tmp_path / made).mkdir()
    elif made:
        (tmp_path / made).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / made).write_text("{}")
    path = tmp_path / "mine"
    _, faults = check(["--model", str(path), "--overrides", ""])
    assert [said in fault for fault in faults] == [True], faults


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        ("https://huggingface.co/Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("hf://Qwen/Qwen3-0.6B/", "Qwen/Qwen3-0.6B"),
        ("Qwen/Qwen3-0.6B@v1", "Qwen/Qwen3-0.6B and model.revision=v1"),
        ("https://hf.co/Qwen/Qwen3-0.6B/tree/v1", "Qwen/Qwen3-0.6B and model.revision=v1"),
    ],
)
def test_an_address_of_a_repository_is_told_its_name(model: str, meant: str) -> None:
    _, faults = check([f"model={model}"])
    assert len(faults) == 1
    assert faults[0].endswith(f"expected owner/name, as the hub shows it; write {meant}")
