"""Settings of a request that read or change the scores of tokens: ``logit_bias``, ``logprobs``."""

import re
from collections.abc import Mapping
from typing import Any

from .invalid_request import absent, invalid_request, require_count
from .request_values import boolean_in, integer_in

MAX_BIASES = 4_096
MAX_TOP_LOGPROBS = 20
TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")
NO_SCORES = (
    "this model runs on an engine that shows no scores of tokens; the transformers variant does,"
    " and the onnx variant on CPU"
)


def bias_in(value: Any, vocabulary: int | None, *, possible: bool) -> dict[int, float]:
    """Read ``logit_bias``: what is added to the scores of tokens, by their ids.

    Args:
        value: ids as text or integers, with numbers from -100 to 100; null ones say nothing.
        vocabulary: ids are below it; None where nothing says.
        possible: whether scores can be changed.

    Raises:
        MlflowException: an id that is none, a number out of range, or any bias where it is not
            possible.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise invalid_request(
            "logit_bias", value, "an object of token ids with numbers from -100 to 100"
        )
    require_count("logit_bias", value, MAX_BIASES, "token ids")
    biases: dict[int, float] = {}
    for key, bias in value.items():
        if isinstance(key, bool) or not TOKEN_ID.fullmatch(str(key)):
            raise invalid_request("logit_bias", key, f"{_ids_below(vocabulary)} as keys")
        token = int(key)
        if vocabulary is not None and token >= vocabulary:
            raise invalid_request(
                "logit_bias", token, f"{_ids_below(vocabulary)}, which is this model's vocabulary"
            )
        if absent(bias):
            continue
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise invalid_request(f"logit_bias.{token}", bias, "a number from -100 to 100")
        if bias:
            biases[token] = float(bias)
    if biases and not possible:
        raise invalid_request("logit_bias", dict(biases), "none", NO_SCORES)
    return biases


def _ids_below(vocabulary: int | None) -> str:
    return "token ids" if vocabulary is None else f"token ids from 0 to {vocabulary - 1}"


def logprobs_in(row: Mapping[str, Any], *, possible: bool) -> int | None:
    """Read ``logprobs`` and ``top_logprobs``: how many of the likeliest tokens are told beside each
    token of the answer; None where none of its log probabilities are told.

    Args:
        row: less what it does not say.
        possible: whether scores are shown.

    Raises:
        MlflowException: ``top_logprobs`` alone or out of range, a prompt, or an engine that shows
            no scores.
    """
    asked = boolean_in(row, "logprobs")
    top = integer_in(row, "top_logprobs", 0, 0, MAX_TOP_LOGPROBS)
    if top and not asked:
        raise invalid_request("top_logprobs", top, "0 without logprobs", "set logprobs to true")
    if asked and "prompt" in row:
        raise invalid_request(
            "logprobs", True, "false with a prompt, whose answer is its text", "ask by messages"
        )
    if asked and not possible:
        raise invalid_request("logprobs", True, "false", NO_SCORES)
    return top if asked else None
