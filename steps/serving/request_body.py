"""Read a request's body within its bounds, and what of it is the server's own."""

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from starlette.requests import Request

from steps.core import did_you_mean
from steps.serving.errors import ApiError, invalid, shown
from steps.wrappers.served.invalid_request import MAX_DEPTH

LIMITS = ("max_tokens", "max_completion_tokens", "max_new_tokens")  # names of one setting
MOST_PROMPTS = 64  # of one request
MOST_COMPARED = 32  # keys of a body that are compared with a missing one


async def body_of(request: Request, most: int) -> dict[str, Any]:
    """The JSON object that a request brings.

    Args:
        request: its body is read here.
        most: bytes that it may have.

    Raises:
        ApiError: 415 where it is compressed, 413 where it is larger, 400 where it is not a JSON
            object.
    """
    coding = request.headers.get("content-encoding", "identity")
    if coding.strip().lower() not in ("", "identity"):
        raise ApiError(
            415,
            f"Content-Encoding: {shown(coding)}: expected a body that is not compressed",
            code="unsupported_encoding",
        )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > most:
        raise _too_large(most)
    read = bytearray()
    async for piece in request.stream():
        read += piece
        if len(read) > most:
            raise _too_large(most)
    try:
        body = json.loads(bytes(read), parse_constant=_no_number)
    except RecursionError as error:
        raise ApiError(400, "the body is nested too deeply", code="invalid_json") from error
    except ValueError as error:  # also of integers with too many digits, and of bad UTF-8
        said = str(error).splitlines()[0][:200]
        raise ApiError(400, f"the body is not valid JSON: {said}", code="invalid_json") from error
    if too_deep(body):
        said = f"the body is nested more than {MAX_DEPTH} levels deep"
        raise ApiError(400, said, code="invalid_json")
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not a JSON object", code="invalid_json")
    return body


def too_deep(body: Any) -> bool:
    """Whether values lie within values deeper than a model takes them."""
    level = [body]
    for _ in range(MAX_DEPTH + 1):
        inner = [one for one in level if isinstance(one, dict | list)]
        level = [
            value for one in inner for value in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True


def _too_large(most: int) -> ApiError:
    return ApiError(
        413, f"the body is larger than serve.max_body_bytes={most}", code="body_too_large"
    )


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def streams(body: dict[str, Any]) -> bool:
    """Take ``stream`` out of a body.

    Raises:
        ApiError: it is neither true, false nor null.
    """
    stream = body.pop("stream", None)
    if stream is not None and not isinstance(stream, bool):
        raise invalid("stream", stream, "true or false")
    return bool(stream)


def wants_usage(body: dict[str, Any]) -> bool:
    """Take ``stream_options`` out of a body where it asks only for the token counts, which every
    stream is made with; what else it holds is the model's to refuse.
    """
    options = body.get("stream_options")
    if isinstance(options, Mapping):
        given = {key: value for key, value in options.items() if value is not None}
        wanted = given.get("include_usage", False)
        if not isinstance(wanted, bool):
            raise invalid("stream_options.include_usage", wanted, "true or false")
        for key, value in given.items():
            if key == "include_usage":
                continue
            if key not in ("include_obfuscation", "continuous_usage_stats") or value is not False:
                raise invalid(f"stream_options.{key}", value, "false, or nothing")
        del body["stream_options"]
        return wanted
    if options is not None:
        raise invalid("stream_options", options, "an object such as {'include_usage': true}")
    body.pop("stream_options", None)
    return False


def limit_tokens(body: dict[str, Any], most: int | None) -> None:
    """Hold a request to ``serve.max_tokens``, and give it that limit where it has none.

    Raises:
        ApiError: it asks for more.
    """
    if most is None:
        return
    given = {key: body[key] for key in LIMITS if body.get(key) is not None}
    for key, value in given.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and value > most:
            raise invalid(key, value, f"at most {most}, as serve.max_tokens says")
    if not given:
        body["max_tokens"] = most


def misspelt(key: str, body: Mapping[str, Any]) -> str | None:
    """The cure where a body has a key that looks like the one it lacks; only few and short keys are
    compared.
    """
    short = [name for name in islice(body, MOST_COMPARED) if len(name) <= 2 * len(key)]
    found = did_you_mean.close(key, short, 1)
    return f"did you mean {key} instead of {found[0]}?" if found else None


def prompts_of(body: dict[str, Any]) -> tuple[list[str], int]:
    """Take ``prompt`` and ``n`` out of a body of the completions endpoint.

    Returns:
        The prompts, and how many answers each gets.

    Raises:
        ApiError: they are not strings, or too many; log probabilities, which are a number here and
            which a prompt's answer does not have.
    """
    if body.get("logprobs") not in (None, False):
        raise invalid(
            "logprobs", body["logprobs"], "null; /v1/chat/completions tells log probabilities"
        )
    prompt = body.pop("prompt", None)
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not all(isinstance(text, str) for text in prompts):
        cure = misspelt("prompt", body) if prompt is None else None
        raise invalid("prompt", prompt, "a string, or a list of strings", cure)
    if not 0 < len(prompts) <= MOST_PROMPTS:
        raise invalid("prompt", f"{len(prompts)} prompts", f"from 1 to {MOST_PROMPTS}")
    many = body.pop("n", None)
    many = 1 if many is None else many
    number = isinstance(many, int | float) and not isinstance(many, bool)
    if not number or not 1 <= many <= MOST_PROMPTS or many != int(many):
        raise invalid("n", many, f"an integer from 1 to {MOST_PROMPTS}")
    if len(prompts) * int(many) > MOST_PROMPTS:
        raise invalid("n", many, f"at most {MOST_PROMPTS} answers in one request")
    return prompts, int(many)


def seeded(row: Mapping[str, Any], choice: int) -> dict[str, Any]:
    """The row of one of several answers to a prompt: each has a seed of its own."""
    seed = row.get("seed")
    if isinstance(seed, float) and seed.is_integer():
        seed = int(seed)
    if choice and isinstance(seed, int) and not isinstance(seed, bool):
        return {**row, "seed": (seed + choice) % 2**31}
    return dict(row)


def json_bytes(value: Any) -> bytes:
    """Compact JSON; what UTF-8 has no bytes for is escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()
