"""What a prepared ONNX folder says of itself: windows of its graph beside the checkpoint's, and the
context that follows.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from steps.snapshots.decoder_layers import windows_of, without_rope
from steps.snapshots.model_builder import adapt, finish
from steps.snapshots.onnx_folder import capped, graph_windows
from steps.wrappers.served.limits import Limits

LIMITS = Limits(eos_token_ids=(2,), context_length=4096, windows=(512,))
STATED = {"context_length": 4096, "decoder": {}}
BOUNDED = {"sliding_window": {"window_size": 512, "layers": []}}


def graph(path: Path, windows: list[int], *, rotary: int = 1) -> Path:
    """A graph with one attention node for each window, and nothing else that would run."""
    import onnx

    nodes = [
        onnx.helper.make_node(
            "GroupQueryAttention",
            [
                "q",
                "k",
                "v",
                f"past_key_values.{layer}.key",
                f"past_key_values.{layer}.value",
                "lengths",
                "total",
                "cos",
                "sin",
            ],
            [f"out{layer}"],
            domain="com.microsoft",
            local_window_size=window,
            do_rotary=rotary,
        )
        for layer, window in enumerate(windows)
    ]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [])), path)
    return path


def test_windows_are_read_from_the_graph(tmp_path: Path) -> None:
    import onnx

    assert graph_windows(graph(tmp_path / "model.onnx", [512, -1])) == [512, None]
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), tmp_path / "other.onnx"
    )
    assert graph_windows(tmp_path / "other.onnx") is None


@pytest.mark.parametrize(
    ("wanted", "built", "config", "length", "reason"),
    [
        ([512, None], [512, None], STATED, 4096, None),
        ([None, None], None, STATED, 4096, None),
        (
            [512, 512],
            [None, None],
            STATED,
            512,
            "lacks the checkpoint's sliding window of 512 tokens",
        ),
        (
            [512, None],
            [None, None],
            STATED,
            512,
            "lacks the checkpoint's sliding window of 512 tokens",
        ),
        (
            [None, None],
            [256, 256],
            STATED,
            256,
            "lacks the checkpoint's sliding window of 256 tokens",
        ),
        ([512, 512], None, STATED, 512, "lacks the checkpoint's sliding window of 512 tokens"),
        (
            [None, None],
            [None, None],
            {**STATED, "context_length": 1024},
            1024,
            "was built for 1024 tokens",
        ),
        (
            [512, None],
            [512, None],
            {**STATED, "decoder": {"sliding_window": {"window_size": 512, "layers": [0]}}},
            4096,
            None,
        ),
        (
            [None],
            [None],
            {**STATED, "decoder": {"sliding_window": {"window_size": 512, "layers": []}}},
            512,
            "KV cache .* ends at 512 tokens",
        ),
    ],
)
def test_the_context_ends_where_the_graph_is_no_longer_right(
    wanted: list[int | None],
    built: list[int | None] | None,
    config: dict[str, object],
    length: int,
    reason: str | None,
) -> None:
    import re

    limits = capped(LIMITS, wanted, built, {"model": config})
    assert replace(limits, capped=None) == replace(LIMITS, context_length=length)
    assert limits.capped is None if reason is None else re.search(reason, str(limits.capped))


@pytest.mark.parametrize(
    ("fields", "windows"),
    [
        ({"sliding_window": 64}, [64, 64]),  # nothing says which layers, so all have it
        (
            {"sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]},
            [None, 64],
        ),
        (
            {"sliding_window": None, "layer_types": ["full_attention", "full_attention"]},
            [None, None],
        ),
        ({"sliding_window": 262_144}, [None, None]),  # wider than the context
        ({}, [None, None]),
    ],
)
def test_windows_of_a_config(fields: dict[str, object], windows: list[int | None]) -> None:
    assert (
        windows_of(SimpleNamespace(num_hidden_layers=2, max_position_embeddings=4096, **fields))
        == windows
    )


def test_what_the_builder_is_told() -> None:
    nested = {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    config = SimpleNamespace(
        num_hidden_layers=2, max_position_embeddings=4096, sliding_window=64, rope_parameters=nested
    )
    adapt(config)
    assert config.layer_types == ["sliding_attention"] * 2
    assert (config.rope_theta, config.rope_local_base_freq, config.rope_parameters["type"]) == (
        1e6,
        1e4,
        "default",
    )

    yarn = SimpleNamespace(
        num_hidden_layers=1,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "yarn", "factor": 4.0},
    )
    adapt(yarn)
    assert (yarn.rope_parameters["beta_fast"], yarn.rope_parameters["beta_slow"]) == (32, 1)


def test_layers_without_rotary_embeddings_have_none_in_the_graph(tmp_path: Path) -> None:
    import onnx

    config = SimpleNamespace(
        no_rope_layers=[1, 0],
        architectures=["SmolLM3ForCausalLM"],
        num_hidden_layers=2,
        max_position_embeddings=64,
    )
    adapt(config)
    assert without_rope(config) == [1] and config.architectures == ["LlamaForCausalLM"]
    path = graph(tmp_path / "model.onnx", [-1, -1])
    finish(path, config)
    nodes = onnx.load(path).graph.node
    rotary = [
        next(attribute.i for attribute in node.attribute if attribute.name == "do_rotary")
        for node in nodes
    ]
    assert rotary == [1, 0] and list(nodes[1].input[7:]) == ["", ""]
    with pytest.raises(RuntimeError, match="were not found in the graph"):
        finish(graph(tmp_path / "short.onnx", [-1]), config)


def test_the_border_of_longrope_is_transformers_own(tmp_path: Path) -> None:
    """Phi-3's config class has a length where config.json is silent."""
    import json

    from steps.wrappers.capabilities import limits_of
    from steps.wrappers.served.limits import limits_of_checkpoint

    factors = [1.0] * 8
    config = {
        "model_type": "phi3",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "eos_token_id": 2,
        "max_position_embeddings": 131072,
        "rope_scaling": {"type": "longrope", "short_factor": factors, "long_factor": factors},
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert limits_of_checkpoint(tmp_path).rope_border is None
    assert limits_of(tmp_path).rope_border == 4096
