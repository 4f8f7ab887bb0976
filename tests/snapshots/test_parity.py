"""Parity: a folder that would be served with other text than its checkpoint's is refused, with the
first difference.

The folders here are copies of ``tiny_phi3``'s tokenizer files with a ``genai_config.json`` beside
them: all that parity reads.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    model = {
        "type": "phi3",
        "bos_token_id": 1,
        "eos_token_id": [2],
        "pad_token_id": 2,
        "context_length": 2048,
        "vocab_size": 49152,
    }
    (folder / "genai_config.json").write_text(json.dumps({"model": model, "search": {}}))
    return folder


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_equal_folders_pass(tiny_folder: Path, onnx_folder: Path) -> None:
    parity.check(tiny_folder, onnx_folder)


def test_the_checkpoint_itself_passes(tiny_folder: Path) -> None:
    parity.check(tiny_folder, tiny_folder)


def change_tokenizer(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit tokenizer.json."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_other_merges_give_other_token_ids(tiny_folder: Path, onnx_folder: Path) -> None:
    change_tokenizer(
        onnx_folder,
        lambda content: content["model"].update(merges=content["model"]["merges"][:1000]),
    )
    expected = (
        r"model='token ids': '.*' differs at token \d+: the checkpoint has \[.*\], what is served"
        r" \[.*\]; save the tokenizer anew"
    )
    with pytest.raises(SnapshotError, match=expected):
        parity.check(tiny_folder, onnx_folder)


def test_another_normalizer_gives_other_token_ids(tiny_folder: Path, onnx_folder: Path) -> None:
    change_tokenizer(onnx_folder, lambda content: content.update(normalizer={"type": "NFC"}))
    with pytest.raises(
        SnapshotError, match=r"model='token ids': 'e\u0301 combining, .*' differs at token 0"
    ):
        parity.check(tiny_folder, onnx_folder)


def test_another_decoder_gives_other_text(tiny_folder: Path, onnx_folder: Path) -> None:
    change_tokenizer(onnx_folder, lambda content: content.update(decoder={"type": "Fuse"}))
    with pytest.raises(
        SnapshotError,
        match=(
            r"model='decoded text': tokens \[.*\]… differ at character \d+: the checkpoint has"
            r" '.*', what is"
        ),
    ):
        parity.check(tiny_folder, onnx_folder)


def test_a_bos_that_only_one_side_adds(tiny_folder: Path, onnx_folder: Path) -> None:
    bos = [
        {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    special = {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}}
    adding = {"type": "TemplateProcessing", "single": bos, "pair": bos, "special_tokens": special}
    change_tokenizer(onnx_folder, lambda content: content.update(post_processor=adding))
    with pytest.raises(
        SnapshotError,
        match=(
            r"model='token ids': .* differs at token 0: the checkpoint has \[.*\], what is served"
            r" \[1, "
        ),
    ):
        parity.check(tiny_folder, onnx_folder)


def test_another_template(tiny_folder: Path, onnx_folder: Path) -> None:
    edit(onnx_folder / "chat_template.jinja", "<|im_end|>", "<|im_end|> ")
    with pytest.raises(
        SnapshotError,
        match=r"model='chat template': 1 messages differ at character \d+: .* renders '",
    ):
        parity.check(tiny_folder, onnx_folder)


@pytest.mark.parametrize("eos", [[0], [2, 0]])
def test_other_eos_ids(tiny_folder: Path, onnx_folder: Path, eos: list[int]) -> None:
    edit(
        onnx_folder / "genai_config.json",
        '"eos_token_id": [2]',
        f'"eos_token_id": {json.dumps(eos)}',
    )
    with pytest.raises(
        SnapshotError, match=r"model='EOS ids': the checkpoint ends on \[2\], the ONNX folder on \["
    ):
        parity.check(tiny_folder, onnx_folder)


def test_a_checkpoint_without_a_template(
    tiny_folder: Path, onnx_folder: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_folder, bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(
        SnapshotError,
        match=(
            r"model\.chat_template='.*': the tokenizer has no chat template; add"
            r" chat_template\.jinja"
        ),
    ):
        parity.check(bare, onnx_folder)


def test_a_template_that_cannot_be_rendered_as_served(tiny_folder: Path, onnx_folder: Path) -> None:
    (onnx_folder / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    with pytest.raises(
        SnapshotError,
        match=(
            r"model='chat template': the checkpoint renders 1 messages, what is served does not:"
            r" .*never"
        ),
    ):
        parity.check(tiny_folder, onnx_folder)


def test_a_template_that_refuses_every_conversation_proves_nothing(
    tiny_folder: Path, onnx_folder: Path, tmp_path: Path
) -> None:
    refusing = tmp_path / "refusing"
    shutil.copytree(tiny_folder, refusing)
    (refusing / "chat_template.jinja").chmod(0o644)
    (refusing / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    with pytest.raises(
        SnapshotError,
        match=(
            r"model\.chat_template='.*': it renders no conversation, not even one question: never"
        ),
    ):
        parity.check(refusing, onnx_folder)
