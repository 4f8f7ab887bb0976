"""Constants of the rotary embeddings in a graph, held against what transformers computes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steps.snapshots.rotary_caches import Rotary, correct

LENGTH, WIDTH = 128, 16


def config(kind: str = "qwen2", **fields: Any) -> Any:
    from transformers import CONFIG_MAPPING

    shape = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return CONFIG_MAPPING[kind](**shape, vocab_size=64, max_position_embeddings=LENGTH, **fields)


def yarn() -> Any:
    rope = {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "rope_theta": 1e4,
    }
    return config(rope_parameters=rope)


def gemma() -> Any:
    """Two kinds of layers, of which only the global one is scaled."""
    scaled = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    rope = {
        "full_attention": scaled,
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    types = ["sliding_attention", "full_attention"]
    return config(
        "gemma3_text", head_dim=WIDTH, sliding_window=64, layer_types=types, rope_parameters=rope
    )


def graph(path: Path, caches: list[tuple[str, Any]], *, external: bool = False) -> Path:
    """One attention node for each pair of names, whose constants hold the values given."""
    import onnx
    from onnx import helper, numpy_helper

    nodes, tensors = [], []
    for layer, (name, (cos, sin)) in enumerate(caches):
        tensors += [
            numpy_helper.from_array(cos, f"cos_{name}"),
            numpy_helper.from_array(sin, f"sin_{name}"),
        ]
        inputs = [
            "q",
            "k",
            "v",
            "past_k",
            "past_v",
            "lengths",
            "total",
            f"cos_{name}",
            f"sin_{name}",
        ]
        node = helper.make_node(
            "GroupQueryAttention",
            inputs,
            [f"out{layer}"],
            f"/model/layers.{layer}/attn/GroupQueryAttention",
        )
        nodes.append(node)
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], tensors))
    onnx.save(
        model, path, save_as_external_data=external, location="model.onnx.data", size_threshold=0
    )
    return path


def constants(path: Path) -> dict[str, Any]:
    import onnx
    from onnx import numpy_helper

    return {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer
    }


def wrong() -> Any:
    return (np.zeros((LENGTH, WIDTH // 2), np.float32), np.ones((LENGTH, WIDTH // 2), np.float32))


@pytest.mark.parametrize("external", [False, True])
def test_constants_that_are_wrong_are_replaced(tmp_path: Path, external: bool) -> None:
    path = graph(tmp_path / "model.onnx", [("cache", wrong())], external=external)
    assert correct(path, yarn()) == 2
    # YaRN's attention factor, 0.1 ln(4) + 1, scales both; position 0 is rotated by nothing
    assert constants(path)["cos_cache"][0] == pytest.approx(0.1 * np.log(4) + 1) and constants(
        path
    )["sin_cache"][0] == pytest.approx(0)
    assert correct(path, yarn()) == 0


def test_each_type_of_layer_has_its_own(tmp_path: Path) -> None:
    path = graph(tmp_path / "model.onnx", [("local", wrong()), ("global", wrong())])
    assert correct(path, gemma()) == 4
    stored = constants(path)
    assert stored["cos_local"][1, 0] == pytest.approx(np.cos(1.0)) and stored["cos_global"][
        8, 0
    ] == pytest.approx(np.cos(1.0))


def test_what_is_right_stays_as_it_is(tmp_path: Path) -> None:
    caches = Rotary(yarn()).caches(0, LENGTH)
    assert caches is not None
    half = tuple(values.astype(np.float16) for values in caches)
    path = graph(tmp_path / "model.onnx", [("cache", half)])
    before = path.read_bytes()
    assert correct(path, yarn()) == 0 and path.read_bytes() == before


def test_another_shape_is_not_guessed_at(tmp_path: Path) -> None:
    narrow = tuple(values[:, :4] for values in wrong())
    with pytest.raises(
        RuntimeError, match=r"cos_cache has the shape \(128, 4\), and transformers' is \(128, 8\)"
    ):
        correct(graph(tmp_path / "model.onnx", [("cache", narrow)]), yarn())
