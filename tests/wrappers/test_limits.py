"""Limits of a checkpoint from its JSON files, of an ONNX folder from what was found, and what a
request gets of them.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from steps.wrappers.served.limits import Limits, limits_of_checkpoint, limits_of_onnx
from steps.wrappers.served.request import Defaults, request_of
from steps.wrappers.served.request_limits import fitted, require_embedded

CONFIG: dict[str, Any] = {"max_position_embeddings": 4096, "eos_token_id": 1}


def checkpoint(folder: Path, *, config: dict[str, Any], **files: Any) -> Path:
    for name, content in {"config": {**CONFIG, **config}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_end_tokens_are_the_union_of_what_three_files_say(tmp_path: Path) -> None:
    added = {"added_tokens": [{"id": 9, "content": "<|turn|>"}], "model": {"vocab": {"</s>": 7}}}
    folder = checkpoint(
        tmp_path,
        config={},
        generation_config={"eos_token_id": [2, 3]},
        tokenizer_config={"eos_token": "<|turn|>"},
        tokenizer=added,
    )
    assert limits_of_checkpoint(folder).eos_token_ids == (1, 2, 3, 9)
    # in the vocabulary alone
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}}')
    assert limits_of_checkpoint(folder).eos_token_ids == (1, 2, 3, 7)
    (folder / "tokenizer_config.json").write_text(
        '{"eos_token": "<e>", "added_tokens_decoder": {"5": {"content": "<e>"}}}'
    )
    assert limits_of_checkpoint(folder).eos_token_ids == (1, 2, 3, 5)


def test_a_checkpoint_without_an_end_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"eos_token_id: expected a token that ends answers"):
        limits_of_checkpoint(checkpoint(tmp_path, config={"eos_token_id": None}))


def test_a_config_without_a_context_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"config\.json: max_position_embeddings=None: expected the context in tokens",
    ):
        limits_of_checkpoint(checkpoint(tmp_path, config={"max_position_embeddings": None}))
    assert (
        limits_of_checkpoint(
            checkpoint(tmp_path, config={"max_position_embeddings": None, "n_positions": 512})
        ).context_length
        == 512
    )


@pytest.mark.parametrize(
    ("config", "border", "windows", "borders"),
    [
        ({}, None, (), ()),
        (
            {"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 1024},
            1024,
            (),
            (1024,),
        ),
        (
            {
                "rope_parameters": {
                    "rope_type": "longrope",
                    "original_max_position_embeddings": 1024,
                }
            },
            1024,
            (),
            (1024,),
        ),
        # nothing lies past it
        ({"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 4096}, None, (), ()),
        (
            {"rope_scaling": {"rope_type": "llama3", "original_max_position_embeddings": 1024}},
            None,
            (),
            (),
        ),
        ({"sliding_window": 512}, None, (512,), (512,)),
        ({"sliding_window": 512, "use_sliding_window": False}, None, (), ()),
        ({"sliding_window": 512, "layer_types": ["full_attention"]}, None, (), ()),
        (
            {"sliding_window": 512, "layer_types": ["full_attention", "sliding_attention"]},
            None,
            (512,),
            (512,),
        ),
        ({"sliding_window": 4096}, None, (), ()),
    ],
)
def test_borders(
    tmp_path: Path,
    config: dict[str, Any],
    border: int | None,
    windows: tuple[int, ...],
    borders: tuple[int, ...],
) -> None:
    limits = limits_of_checkpoint(checkpoint(tmp_path, config=config))
    assert (limits.rope_border, limits.windows, limits.borders) == (border, windows, borders)


def test_an_onnx_folder_says_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "genai_config.json").write_text(
        '{"model": {"eos_token_id": 4, "context_length": 512}}'
    )
    assert limits_of_onnx(tmp_path) == Limits((4,), 512)
    limits = Limits((1, 2), 512, rope_border=64, windows=(32,), capped="the graph ends there")
    (tmp_path / "capabilities.json").write_text(json.dumps({"limits": limits.to_json()}))
    assert limits_of_onnx(tmp_path) == limits


def test_a_capped_context_says_why() -> None:
    limits = Limits((1,), 100, capped="the graph lacks a window")
    request = request_of({"prompt": "x", "max_tokens": 60}, None, Defaults())
    with pytest.raises(
        MlflowException,
        match=(
            r"max_tokens=60: expected at most 50, .* the context holds 100; the graph lacks a"
            r" window"
        ),
    ):
        fitted(request, 50, limits)
    with pytest.raises(
        MlflowException,
        match=(
            r"at most 99 tokens, as the context holds 100 with the answer; the graph lacks a window"
        ),
    ):
        fitted(request, 100, limits)


def test_a_token_without_an_embedding_is_refused() -> None:
    request = request_of({"prompt": "x"}, None, Defaults())
    require_embedded([1, 9], request, Limits((1,), 100, vocabulary=10))
    with pytest.raises(
        MlflowException, match=r"prompt='token 10': expected tokens below 10"
    ) as caught:
        require_embedded([1, 10], request, Limits((1,), 100, vocabulary=10))
    assert caught.value.get_http_status_code() == 400


def test_a_grammar_does_not_cross_the_border_of_the_rotary_embeddings() -> None:
    """The text is computed anew there, and a grammar would begin anew in mid-answer."""
    limits = Limits((1,), 1000, rope_border=100)
    row = {"prompt": "x", "response_format": {"type": "json_object"}}
    limited = request_of({**row, "max_tokens": 30}, None, Defaults())
    with pytest.raises(
        MlflowException, match=r"max_tokens=30: expected at most 10 with response_format"
    ):
        fitted(limited, 90, limits)
    assert (
        fitted(limited, 70, limits).max_tokens == 30
        and fitted(limited, 101, limits).max_tokens == 30
    )
    assert fitted(request_of(row, None, Defaults()), 90, limits).max_tokens == 10
