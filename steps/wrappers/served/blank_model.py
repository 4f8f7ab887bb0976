"""An ONNX Runtime GenAI folder with a tokenizer and no weights, to try grammars with.

Its graph scores every token alike. It is written in ONNX's protobuf encoding (onnx.proto3 of the
ONNX repository) by hand, as the environment that serves a model has no ``onnx`` package.
"""

import json
import shutil
from pathlib import Path
from typing import Any

FLOAT, INT64 = 1, 7  # TensorProto.DataType
TENSOR_ATTRIBUTE_INT = 2  # AttributeProto.AttributeType.INT
CACHE = {
    "past": ("past_key_values.0.key", "past_key_values.0.value"),
    "present": ("present.0.key", "present.0.value"),
}
WEIGHTS = (".onnx", ".data", ".bin", ".safetensors")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _field(number: int, value: int | str | bytes) -> bytes:
    """One field of a message: a varint, or text and messages with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _value(name: str, kind: int, shape: tuple[str | int, ...]) -> bytes:
    """ValueInfoProto of an input or output; dimensions are numbers or names."""
    dimensions = b"".join(
        _field(1, _field(1 if isinstance(size, int) else 2, size)) for size in shape
    )
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dimensions)))


def _node(operator: str, inputs: tuple[str, ...], output: str, attributes: bytes = b"") -> bytes:
    """NodeProto with one output."""
    return (
        b"".join(_field(1, name) for name in inputs)
        + _field(2, output)
        + _field(3, output)
        + _field(4, operator)
        + attributes
    )


def blank_graph(vocabulary: int) -> bytes:
    """A decoder without weights, as the bytes of an ONNX file: every logit is 0, and the KV cache
    is left as it is.

    Args:
        vocabulary: entries of the vocabulary.
    """
    axis = _field(5, _field(1, "axis") + _field(3, 0) + _field(20, TENSOR_ATTRIBUTE_INT))
    nodes = [
        _node("Shape", ("input_ids",), "rows_and_tokens"),
        _node("Concat", ("rows_and_tokens", "vocabulary"), "logits_shape", axis),
        _node("ConstantOfShape", ("logits_shape",), "logits"),  # of float32 zeros
        *(
            _node("Identity", (past,), present)
            for past, present in zip(CACHE["past"], CACHE["present"], strict=True)
        ),
    ]
    size = (
        _field(1, 1)
        + _field(2, INT64)
        + _field(8, "vocabulary")
        + _field(9, vocabulary.to_bytes(8, "little"))
    )
    cached = ("batch", 1, "cached", 1)
    inputs = [
        _value("input_ids", INT64, ("batch", "tokens")),
        _value("attention_mask", INT64, ("batch", "all_tokens")),
        *(_value(name, FLOAT, cached) for name in CACHE["past"]),
    ]
    outputs = [
        _value("logits", FLOAT, ("batch", "tokens", vocabulary)),
        *(_value(name, FLOAT, cached) for name in CACHE["present"]),
    ]
    graph = b"".join(
        [
            *(_field(1, node) for node in nodes),
            _field(2, "blank"),
            _field(5, size),
            *(_field(11, value) for value in inputs),
            *(_field(12, value) for value in outputs),
        ]
    )
    # IR version 8, operator set 17
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 17))


def write_blank_model(source: Path, folder: Path) -> None:
    """Write a folder that ``onnxruntime_genai.Model`` loads in milliseconds.

    Args:
        source: the served ONNX folder; its tokenizer's files are linked, or copied where links are
            refused.
        folder: empty.
    """
    model: dict[str, Any] = json.loads((source / "genai_config.json").read_text("utf-8"))["model"]
    names = {
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    }
    given = {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}
    decoder: dict[str, Any] = {
        "session_options": {
            "log_id": "grammar-trial",
            "provider_options": [],
            "intra_op_num_threads": 1,
        },
        "filename": "model.onnx",
        "head_size": 1,
        "hidden_size": 1,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "num_key_value_heads": 1,
        "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask", **names},
        "outputs": {"logits": "logits", **given},
    }
    kept = {
        key: model[key]
        for key in ("bos_token_id", "eos_token_id", "pad_token_id", "vocab_size")
        if key in model
    }
    settings: dict[str, Any] = {
        "model": {**kept, "type": "llama", "context_length": 4096, "decoder": decoder},
        "search": {"max_length": 4096, "past_present_share_buffer": True},
    }
    (folder / "genai_config.json").write_text(json.dumps(settings), "utf-8")
    (folder / "model.onnx").write_bytes(blank_graph(int(model["vocab_size"])))
    for file in source.iterdir():
        if file.is_file() and file.suffix not in WEIGHTS and not (folder / file.name).exists():
            try:
                (folder / file.name).symlink_to(file.resolve())
            except OSError:
                shutil.copyfile(file, folder / file.name)
