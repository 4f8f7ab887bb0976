"""What a request may ask for once the length of its prompt is known, and how long it may take."""

import os
import time

from .contract import Request
from .refusal import refusal


def fitted(request: Request, prompt_tokens: int, context_length: int) -> Request:
    """Refuse what does not fit; a default limit shrinks to what is left.

    Raises:
        MlflowException: saying how long the prompt is and what fits.
    """
    if prompt_tokens == 0:
        raise refusal("prompt", "no token", "a prompt of at least one token")
    left = context_length - prompt_tokens
    if left < 1:
        raise refusal(
            "messages" if request.prompt is None else "prompt",
            f"{prompt_tokens} tokens",
            f"at most {context_length - 1} tokens, as the context holds {context_length} with the answer",
        )
    for key, tokens in (("max_tokens", request.max_tokens if request.limited else 0), ("min_tokens", request.min_tokens)):
        if tokens > left:
            raise refusal(key, tokens, f"at most {left}, as the prompt has {prompt_tokens} tokens and the context holds {context_length}")
    return request if request.max_tokens <= left else request.within(left)


def deadline_of_caller() -> float:
    """When the caller stops waiting, on the monotonic clock: MLflow's scoring server answers 504 then and leaves the work running."""
    limit = os.environ.get("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "")
    serving = os.environ.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT") == "true"
    return time.monotonic() + float(limit) if serving and limit.isdecimal() else float("inf")
