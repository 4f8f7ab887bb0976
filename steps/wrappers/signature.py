"""The signature both variants are logged with, and an input example that fits it."""

from typing import Any

INPUT_EXAMPLE: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of Germany?"}],
    "temperature": 0.0,
    "max_tokens": 16,
}

# settings that a payload or `predict` may give as params as well
NUMBERS = (
    *("temperature", "max_tokens", "min_tokens", "n", "top_p", "top_k", "seed"),
    *("repetition_penalty", "frequency_penalty", "presence_penalty"),
)


def chat_signature() -> Any:
    """Build the signature: the columns of an OpenAI chat request with ``messages`` optional,
    ``prompt``, and its numbers as params.

    MLflow drops columns that a signature does not name, and turns integer columns with gaps into
    floats that it then refuses. Marked as checked by the model itself (the mark MLflow gives to
    models with type hints), the rows reach ``predict`` as they were sent, and it refuses what it
    does not know.

    ``predict_stream`` is held to the columns all the same, and a payload's numbers to the params.
    So that both take the same rows, columns are of any type (null is not an integer for MLflow) and
    params are doubles (5.0 is none either); the model checks them.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.llm import CHAT_MODEL_OUTPUT_SCHEMA
    from mlflow.types.schema import AnyType, Array

    from steps.wrappers.served.request import KEYS

    columns: list[ColSpec | TensorSpec] = [
        # with a list among the columns MLflow takes a mapping as one row
        ColSpec(Array(AnyType()), "messages", required=False),
        ColSpec(DataType.string, "prompt", required=False),
        *(
            ColSpec(AnyType(), name, required=False)
            for name in (*NUMBERS, *sorted(KEYS - {"messages", "prompt", *NUMBERS}))
        ),
    ]
    # `stop` is none: a string or a list of strings, and a param has one shape
    params = [ParamSpec(name, DataType.double, default=None) for name in NUMBERS]
    signature = ModelSignature(
        inputs=Schema(columns), outputs=CHAT_MODEL_OUTPUT_SCHEMA, params=ParamSchema(params)
    )
    signature._is_signature_from_type_hint = True
    return signature
