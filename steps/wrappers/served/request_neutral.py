"""Fields that clients send by habit and that change no answer here: taken where they ask for
nothing, refused where they ask for something.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .invalid_request import absent, invalid_request


@dataclass(frozen=True)
class Neutral:
    """A field that nothing reads.

    Args:
        fits: whether a value asks for nothing.
        expected: such values, in words.
        cure: how what it would ask for is asked for.
    """

    fits: Callable[[Any], bool]
    expected: str
    cure: str | None = None


def says_nothing(value: Any) -> bool:
    """Whether a value is null, false or empty, or holds nothing else."""
    if isinstance(value, Mapping):
        return all(map(says_nothing, value.values()))
    return absent(value) or value is False or value in ("", [])


def _one_of(*values: Any) -> Callable[[Any], bool]:
    """Whether a value is one of some, also in type: 1 is not true."""
    return lambda given: any(type(given) is type(value) and given == value for value in values)


def _number(neutral: int) -> Callable[[Any], bool]:
    return lambda given: not isinstance(given, bool) and given == neutral


LABEL = Neutral(lambda given: isinstance(given, str), "a string")
NOTHING = "null, as this model does not do that"
NEUTRAL: Mapping[str, Neutral] = {
    **dict.fromkeys(("model", "user", "prompt_cache_key", "safety_identifier"), LABEL),
    "store": Neutral(_one_of(False), "false, as this server stores no answers"),
    "metadata": Neutral(lambda given: isinstance(given, Mapping), "an object, or null"),
    "service_tier": Neutral(
        _one_of("auto", "default"), "'auto' or 'default', as this server has one tier"
    ),
    "prompt_cache_retention": Neutral(
        _one_of("in_memory", "in-memory"), "'in_memory', as prompts are kept in memory alone"
    ),
    "prompt_cache_options": Neutral(
        says_nothing, NOTHING, "prefix_cache_bytes in the model_config says how much is kept"
    ),
    "modalities": Neutral(_one_of(["text"]), "['text'], as this model writes text alone"),
    "verbosity": Neutral(_one_of("medium"), "'medium'", "say in a message how long to be"),
    "reasoning_effort": Neutral(
        says_nothing, "null", "chat_template_kwargs holds the switches of this model's template"
    ),
    **dict.fromkeys(
        ("audio", "prediction", "moderation", "web_search_options"), Neutral(says_nothing, NOTHING)
    ),
    "functions": Neutral(says_nothing, "null", "offer them as tools"),
    "function_call": Neutral(
        lambda given: says_nothing(given) or given in ("none", "auto"),
        "'none' or 'auto'",
        "tool_choice can name a tool",
    ),
    # of other servers for open models
    "best_of": Neutral(_number(1), "1"),
    "min_p": Neutral(_number(0), "0", "top_p leaves unlikely tokens out"),
    **dict.fromkeys(("echo", "ignore_eos"), Neutral(_one_of(False), "false")),
    "skip_special_tokens": Neutral(_one_of(True), "true"),
}
# of messages: what clients send back of an answer
NEUTRAL_IN_MESSAGES = frozenset(
    {
        *("annotations", "audio", "function_call"),
        *("provider_specific_fields", "thinking_blocks", "images"),
    }
)


def require_neutral(row: Mapping[str, Any]) -> None:
    """Refuse a field that nothing reads where it asks for something.

    Raises:
        MlflowException: naming the field and what asks for nothing.
    """
    for key, neutral in NEUTRAL.items():
        if key in row and not neutral.fits(row[key]):
            raise invalid_request(key, row[key], neutral.expected, neutral.cure)


def usage_wanted(options: Any) -> bool:
    """Read ``stream_options``: whether a stream ends with its counts of tokens.

    Raises:
        MlflowException: another option, or one that asks for what a stream does not have.
    """
    expected = "{'include_usage': true | false}"
    if not isinstance(options, Mapping):
        raise invalid_request("stream_options", options, expected)
    given = {key: value for key, value in options.items() if not absent(value)}
    for key, value in given.items():
        field = f"stream_options.{key}"
        if key in ("include_obfuscation", "continuous_usage_stats"):
            if value is not False:
                raise invalid_request(field, value, "false, as a stream holds no such thing")
        elif key != "include_usage":
            raise invalid_request("stream_options", options, expected)
        elif not isinstance(value, bool):
            raise invalid_request(field, value, "true or false")
    return bool(given.get("include_usage", False))
