"""What a request may ask for once the length of its prompt is known, and how long it may take."""

import os
from collections.abc import Sequence

from .invalid_request import behind_server, invalid_request
from .limits import Limits
from .request import Request


def require_embedded(ids: Sequence[int], request: Request, limits: Limits) -> None:
    """Refuse token ids that the model has no embedding for: a tokenizer may name tokens of a larger
    relative's, such as Gemma's for images.

    Raises:
        MlflowException: naming the first of them.
    """
    foreign = next(
        (token for token in ids if limits.vocabulary is not None and token >= limits.vocabulary),
        None,
    )
    if foreign is not None:
        field = "messages" if request.prompt is None else "prompt"
        raise invalid_request(
            field,
            f"token {foreign}",
            f"tokens below {limits.vocabulary}, which is all that this model reads",
        )


def require_short(field: str, characters: int, longest: int) -> None:
    """Refuse a text with more characters than fit, before counting its tokens takes seconds.

    Raises:
        MlflowException: saying how long it is.
    """
    if characters > longest:
        raise invalid_request(
            field,
            f"{characters} characters",
            f"at most {longest} characters, as no text that fits the context has more",
        )


def fitted(request: Request, prompt_tokens: int, limits: Limits) -> Request:
    """Refuse what does not fit; a default limit shrinks to what is left.

    Raises:
        MlflowException: saying how long the prompt is and what fits.
    """
    context_length = limits.context_length
    because = f"; {limits.capped}" if limits.capped else ""
    if prompt_tokens == 0:
        raise invalid_request("prompt", "no token", "a prompt of at least one token")
    left = context_length - prompt_tokens
    if left < 1:
        raise invalid_request(
            "messages" if request.prompt is None else "prompt",
            f"{prompt_tokens} tokens",
            f"at most {context_length - 1} tokens, as the context holds {context_length} with the"
            f" answer{because}",
        )
    for key, tokens in (
        ("max_tokens", request.max_tokens if request.limited else 0),
        ("min_tokens", request.min_tokens),
    ):
        if tokens > left:
            raise invalid_request(
                key,
                tokens,
                f"at most {left}, as the prompt has {prompt_tokens} tokens and the context holds"
                f" {context_length}{because}",
            )
    request = request if request.max_tokens <= left else request.within(left)
    border = limits.rope_border
    if request.grammar and border and prompt_tokens <= border < prompt_tokens + request.max_tokens:
        # the engine computes such a text anew at the border, and begins its grammar anew as well
        if request.limited or prompt_tokens == border:
            expected = (
                f"at most {border - prompt_tokens} with {request.grammar.field}, as this text began"
                f" below {border} tokens and may not cross them"
            )
            raise invalid_request("max_tokens", request.max_tokens, expected)
        return request.within(border - prompt_tokens)
    return request


def deadline_of(arrived: float, timeout: float) -> float:
    """When a request's time is up, on the monotonic clock.

    Args:
        arrived: when it came, on the same clock.
        timeout: seconds that it may take from then on; behind MLflow's scoring server no more than
            that one waits, as it answers 504 then and leaves the work running.
    """
    limit = os.environ.get("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "")
    patience = float(limit) if behind_server() and limit.isdecimal() else timeout
    return arrived + min(timeout, patience)
