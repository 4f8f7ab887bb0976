"""Which files are the checkpoint's, from the names and the index alone."""

import json
from pathlib import Path

import pytest

from steps.snapshots import architectures
from steps.snapshots.errors import SnapshotError
from steps.snapshots.selection import INDEX, WEIGHTS, Place, small_files, weight_files

PLACE = Place("model.path", "x")
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
BESIDE = [
    "consolidated.safetensors",
    "adapter_model.safetensors",
    "original/model.safetensors",
    "checkpoint-500/model.safetensors",
    "onnx/model.safetensors",
    "pytorch_model.bin",
    "optimizer.pt",
    "model.onnx",
]


def index(folder: Path, *files: object) -> None:
    (folder / INDEX).write_text(
        json.dumps({"weight_map": {f"tensor.{number}": file for number, file in enumerate(files)}})
    )


def test_the_index_decides(tmp_path: Path) -> None:
    index(tmp_path, *SHARDS, SHARDS[0])
    assert sorted(weight_files(tmp_path, [INDEX, WEIGHTS, *SHARDS, *BESIDE], PLACE)) == SHARDS


def test_without_an_index_it_is_the_usual_name_or_the_only_one(tmp_path: Path) -> None:
    assert weight_files(tmp_path, [WEIGHTS, "model.fp16.safetensors", *BESIDE], PLACE) == {
        WEIGHTS: WEIGHTS
    }
    assert weight_files(tmp_path, ["mine.safetensors", *BESIDE], PLACE) == {
        WEIGHTS: "mine.safetensors"
    }


@pytest.mark.parametrize("names", [["a.safetensors", "b.safetensors"], SHARDS, SHARDS[:1]])
def test_several_without_an_index_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(SnapshotError, match=rf"model\.path='x': holds .*{INDEX}"):
        weight_files(tmp_path, names, PLACE)


@pytest.mark.parametrize(
    "strange",
    [
        "deep/model.safetensors",
        "../other.safetensors",
        "/etc/passwd.safetensors",
        "a\\b.safetensors",
        "pytorch_model.bin",
        7,
        "..",
    ],
)
def test_an_index_that_leaves_the_root_is_refused(tmp_path: Path, strange: object) -> None:
    index(tmp_path, SHARDS[0], strange)
    with pytest.raises(
        SnapshotError,
        match=(
            r"model\.safetensors\.index\.json names .*, which is not a safetensors file beside it"
        ),
    ):
        weight_files(tmp_path, [INDEX, *SHARDS, str(strange)], PLACE)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "\udcff"]
)
def test_what_is_not_an_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text, errors="surrogateescape")
    with pytest.raises(SnapshotError, match=r"model\.path='x': model\.safetensors\.index\.json "):
        weight_files(tmp_path, [INDEX, *SHARDS], PLACE)


def test_a_missing_shard_beside_whole_weights_names_both_ways_out(tmp_path: Path) -> None:
    index(tmp_path, *SHARDS)
    with pytest.raises(
        SnapshotError,
        match=(
            rf"names {SHARDS[1]}, which is not there; .* or delete the index if {WEIGHTS} is whole"
        ),
    ):
        weight_files(tmp_path, [INDEX, WEIGHTS, SHARDS[0]], PLACE)


def test_an_onnx_repository_is_sent_where_it_belongs(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nbase_model: someone/base\n---\n")
    names = (
        r"holds an ONNX build only \(cpu/genai_config\.json, cpu/model\.onnx\); take .* from,"
        r" someone/base, and"
    )
    with pytest.raises(SnapshotError, match=names):
        weight_files(
            tmp_path, ["README.md", "config.json", "cpu/genai_config.json", "cpu/model.onnx"], PLACE
        )


def test_patterns_leave_out_and_never_add(tmp_path: Path) -> None:
    names = [
        "config.json",
        "tokenizer.json",
        "README.md",
        "LICENSE.txt",
        "notes.txt",
        "train.json",
        "modeling.py",
        "a/config.json",
        WEIGHTS,
    ]
    assert small_files(names, ["*"]) == [
        "LICENSE.txt",
        "README.md",
        "config.json",
        "tokenizer.json",
    ]
    # as configs wrote them before
    assert small_files(names, ["*.safetensors", "*.json"]) == ["config.json", "tokenizer.json"]
    with pytest.raises(
        SnapshotError,
        match=rf"model\.allow_patterns=\['\*\.json'\]: leaves out {WEIGHTS}, .*; leave the key out",
    ):
        weight_files(tmp_path, names, Place("model.path", "x", ["*.json"]))
    with pytest.raises(
        SnapshotError, match=rf"model\.allow_patterns=\['\*s'\]: leaves out {INDEX}"
    ):
        # whose text nobody has fetched by then
        weight_files(tmp_path, [INDEX, *SHARDS], Place("model.path", "x", ["*s"]))


def test_the_installed_builder_tells_what_it_builds() -> None:
    known = architectures.buildable()
    assert known is not None
    assert {
        "LlamaForCausalLM",
        "Phi3ForCausalLM",
        "Qwen2ForCausalLM",
        "GraniteForCausalLM",
    } <= known
    assert not known & {"BertModel", "T5ForConditionalGeneration", "StableLmForCausalLM"}
    assert all(name.isidentifier() for name in known)
    assert (
        sum(
            architectures.text_generator(name) in known
            for name in ("llama", "mistral", "qwen3", "gemma2", "smollm3", "phi3")
        )
        == 6
    )
