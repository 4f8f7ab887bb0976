"""The embeddings of a tied model, read from its head; and the graph of the last position."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steps.config.onnx import OnnxConfig, Precision
from steps.evaluation.logits import compare
from steps.snapshots import onnx_build
from steps.snapshots.last_position import write_last_position
from steps.snapshots.shared_embeddings import share_embeddings
from steps.snapshots.store import Store
from steps.wrappers.served.limits import limits_of_onnx
from steps.wrappers.served.onnx_graph import LAST_POSITION, OnnxGraph
from tests.wrappers.subjects import Folders, folders_of

IDS = [random.Random(3).randrange(3, 40_000) for _ in range(60)]
INT8 = {"block_size": "64", "is_symmetric": "false"}


def built(folders: Folders, **options: str) -> Path:
    config = OnnxConfig(precision=Precision.int8, extra_options={**INT8, **options})
    return onnx_build.build(folders.checkpoint, config, Store(), folders.digest)


def logits(folder: Path, name: str = "model.onnx") -> Any:
    """Of all positions, (tokens, vocabulary), or of the last."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
    feed = {
        "input_ids": np.asarray([IDS], np.int64),
        "attention_mask": np.ones((1, len(IDS)), np.int64),
    }
    for value in session.get_inputs():
        if value.name not in feed:
            size = 64 if isinstance(value.shape[3], str) else value.shape[3]
            feed[value.name] = np.zeros((1, value.shape[1], 0, size), np.float32)
    return session.run(["logits"], feed)[0][0]


@pytest.fixture(scope="module")
def smollm() -> Folders:
    return folders_of("smollm2_135m")


def test_a_tied_model_keeps_one_matrix(smollm: Folders) -> None:
    plain, shared = built(smollm, shared_embeddings="false"), built(smollm)
    sizes = [(folder / "model.onnx.data").stat().st_size for folder in (plain, shared)]
    assert sizes[1] < 0.6 * sizes[0]
    values = compare(logits(plain), logits(shared), IDS)
    assert np.mean(values["kl"]) < 0.02, "nats, on random tokens"
    assert np.mean(values["agree"]) > 0.9


def test_an_untied_or_unquantised_model_is_left_alone(smollm: Folders, tmp_path: Path) -> None:
    import onnx

    config = OnnxConfig(precision=Precision.fp32)
    folder = onnx_build.build(smollm.checkpoint, config, Store(), smollm.digest)
    assert share_embeddings(folder / "model.onnx") is False
    source = tmp_path / "source"  # onnx reads no weights that have several hard links
    shutil.copytree(built(smollm, shared_embeddings="false"), source)
    graph = onnx.load(source / "model.onnx")
    for tensor in graph.graph.initializer:
        if tensor.name == "model.embed_tokens.weight":
            other = -onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(other, tensor.name))
    onnx.save_model(graph, tmp_path / "model.onnx", save_as_external_data=True,
                    location="model.onnx.data")  # fmt: skip
    before = (tmp_path / "model.onnx.data").stat().st_size
    assert share_embeddings(tmp_path / "model.onnx") is False
    assert (tmp_path / "model.onnx.data").stat().st_size == before


@pytest.mark.parametrize("options", [{}, {"shared_embeddings": "false"}])
def test_the_graph_of_the_last_position_gives_its_scores(
    smollm: Folders, options: dict[str, str]
) -> None:
    folder = built(smollm, **options)
    assert (folder / LAST_POSITION).stat().st_size < 10**6
    whole, last = logits(folder), logits(folder, LAST_POSITION)
    assert last.shape == (1, whole.shape[1])
    np.testing.assert_allclose(last[0], whole[-1], rtol=0, atol=1e-4)
    assert OnnxGraph(folder, 2, limits_of_onnx(folder)).vocabulary == whole.shape[1]


def test_a_graph_without_a_head_has_none_of_the_last_position(tmp_path: Path) -> None:
    import onnx

    made = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["states"], ["logits"])],
        "headless",
        [onnx.helper.make_tensor_value_info("states", 1, ["batch", "tokens", 8])],
        [onnx.helper.make_tensor_value_info("logits", 1, ["batch", "tokens", 8])],
    )
    onnx.save(onnx.helper.make_model(made), tmp_path / "model.onnx")
    write_last_position(tmp_path / "model.onnx")
    assert not (tmp_path / LAST_POSITION).exists()
