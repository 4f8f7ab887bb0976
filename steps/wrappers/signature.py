"""The signature both variants are logged with, and an input example that fits it."""

from typing import Any

INPUT_EXAMPLE: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0.0,
    "max_tokens": 16,
}


def chat_signature() -> Any:
    """Build the signature: the columns of an OpenAI chat request with ``messages`` optional,
    ``prompt``, and its numbers as params.

    MLflow drops columns that a signature does not name, and turns integer columns with gaps into
    floats that it then refuses. Marked as checked by the model itself (the mark MLflow gives to
    models with type hints), the rows reach ``predict`` as they were sent, and it refuses what it
    does not know.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.llm import CHAT_MODEL_OUTPUT_SCHEMA
    from mlflow.types.schema import AnyType, Array, Object, Property

    message = Object(
        [
            Property("role", DataType.string),
            Property("content", AnyType(), required=False),  # text, or a list of text parts
            Property("name", DataType.string, required=False),
            Property("refusal", DataType.string, required=False),
            Property("reasoning_content", DataType.string, required=False),
            Property("tool_calls", AnyType(), required=False),
            Property("tool_call_id", DataType.string, required=False),
        ]
    )
    numbers = {
        "temperature": DataType.double,
        "max_tokens": DataType.long,
        "min_tokens": DataType.long,
        "n": DataType.long,
        "top_p": DataType.double,
        "top_k": DataType.long,
        "seed": DataType.long,
        "repetition_penalty": DataType.double,
        "frequency_penalty": DataType.double,
        "presence_penalty": DataType.double,
    }
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(Array(message), "messages", required=False),
        ColSpec(DataType.string, "prompt", required=False),
        *(ColSpec(kind, name, required=False) for name, kind in numbers.items()),
        # a string or a list of strings, which is why it is not a param: those have one shape
        ColSpec(AnyType(), "stop", required=False),
        ColSpec(DataType.boolean, "stream", required=False),
        ColSpec(AnyType(), "stream_options", required=False),
        ColSpec(AnyType(), "response_format", required=False),
        ColSpec(AnyType(), "tools", required=False),
        ColSpec(DataType.string, "tool_choice", required=False),
        ColSpec(AnyType(), "chat_template_kwargs", required=False),
        ColSpec(DataType.boolean, "enable_thinking", required=False),
        ColSpec(DataType.long, "max_completion_tokens", required=False),
        ColSpec(DataType.long, "max_new_tokens", required=False),
        ColSpec(DataType.boolean, "logprobs", required=False),
        ColSpec(DataType.string, "model", required=False),
        ColSpec(DataType.string, "user", required=False),
        ColSpec(AnyType(), "custom_inputs", required=False),
    ]
    params = [ParamSpec(name, kind, default=None) for name, kind in numbers.items()]
    signature = ModelSignature(
        inputs=Schema(columns), outputs=CHAT_MODEL_OUTPUT_SCHEMA, params=ParamSchema(params)
    )
    signature._is_signature_from_type_hint = True
    return signature
