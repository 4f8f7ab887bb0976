"""Parity: an ONNX folder that reads or writes otherwise than its checkpoint is refused, with the first difference.

The folders here are copies of ``tiny_phi3``'s tokenizer files with a ``genai_config.json`` beside them: all that parity reads.
"""

import json
import shutil
from pathlib import Path

import pytest

from steps.snapshots import parity
from steps.snapshots.errors import SnapshotError


@pytest.fixture
def onnx_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """What a build of ``tiny_phi3`` would hold, without the graph."""
    folder = tmp_path / "onnx"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tiny_folder / name, folder / name)
    model = {"type": "phi3", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "context_length": 2048, "vocab_size": 49152}
    (folder / "genai_config.json").write_text(json.dumps({"model": model, "search": {}}))
    return folder


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_equal_folders_pass(tiny_folder: Path, onnx_folder: Path) -> None:
    parity.check(tiny_folder, onnx_folder)


def test_other_merges_give_other_token_ids(tiny_folder: Path, onnx_folder: Path) -> None:
    path = onnx_folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["merges"] = content["model"]["merges"][:1000]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        SnapshotError, match=r"onnx='token ids': '.*' differs at token \d+: the checkpoint has \[.*\], the ONNX folder \[.*\]; build"
    ):
        parity.check(tiny_folder, onnx_folder)


def test_another_template(tiny_folder: Path, onnx_folder: Path) -> None:
    edit(onnx_folder / "chat_template.jinja", "<|im_end|>", "<|im_end|> ")
    with pytest.raises(
        SnapshotError, match=r"onnx='chat template': 1 messages, generation prompt True, differ at character \d+: .* renders '"
    ):
        parity.check(tiny_folder, onnx_folder)


@pytest.mark.parametrize("eos", [0, [2, 0], [0]])
def test_other_eos_ids(tiny_folder: Path, onnx_folder: Path, eos: int | list[int]) -> None:
    edit(onnx_folder / "genai_config.json", '"eos_token_id": 2', f'"eos_token_id": {json.dumps(eos)}')
    with pytest.raises(SnapshotError, match=r"onnx='EOS ids': the checkpoint ends on \[2\], the ONNX folder on \["):
        parity.check(tiny_folder, onnx_folder)


def test_a_checkpoint_without_a_template(tiny_folder: Path, onnx_folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_folder, bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(SnapshotError, match=r"model='bare': its tokenizer has no chat template; add chat_template\.jinja"):
        parity.check(bare, onnx_folder)


def test_a_tokenizer_that_the_runtime_cannot_read(tiny_folder: Path, onnx_folder: Path) -> None:
    (onnx_folder / "tokenizer.json").write_text("{}")
    with pytest.raises(SnapshotError, match=r"onnx='tokenizer': onnxruntime-genai cannot read it: "):
        parity.check(tiny_folder, onnx_folder)


def test_a_template_that_the_runtime_cannot_render(tiny_folder: Path, onnx_folder: Path) -> None:
    (onnx_folder / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    with pytest.raises(SnapshotError, match=r"onnx='chat template': the checkpoint renders 1 messages, onnxruntime-genai does not: "):
        parity.check(tiny_folder, onnx_folder)


def test_a_template_that_refuses_every_conversation_proves_nothing(tiny_folder: Path, onnx_folder: Path, tmp_path: Path) -> None:
    refusing = tmp_path / "refusing"
    shutil.copytree(tiny_folder, refusing)
    (refusing / "chat_template.jinja").chmod(0o644)
    (refusing / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    with pytest.raises(SnapshotError, match=r"model='refusing': its chat template renders no conversation, not even one question: never"):
        parity.check(refusing, onnx_folder)


def test_eos_ids_as_generate_chooses_them(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"eos_token_id": 1}')
    assert parity.eos_ids(tmp_path) == {1}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    assert parity.eos_ids(tmp_path) == {2, 3}
