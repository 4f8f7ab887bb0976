"""The chat contract: what a row may hold, and the checked request it becomes.

Names and ranges follow the OpenAI chat completion request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Protocol

from .grammars import Grammar, checked_grammar
from .invalid_request import absent, checked_text, invalid_request, plain, require_characters
from .request_messages import checked_messages
from .request_neutral import NEUTRAL, require_neutral, usage_wanted
from .request_scores import bias_in, logprobs_in
from .request_tools import checked_tools, forced_tools
from .request_values import boolean_in, integer_in, number_in, stops_in
from .template_capabilities import TemplateCapabilities
from .template_kwargs import KWARGS, checked_template_kwargs

ALIKE = 0.7  # difflib's ratio from which a key is suggested
LONGEST_KEY = 64  # characters of an unknown key that are compared with the known ones

MAX_CHOICES = 16  # answers one request may ask for

# temperatures below it take the most likely token: dividing scores by them leaves float32 behind
COLDEST = 1e-5

NARROWEST = 1e-6  # a top_p below one in the size of a vocabulary leaves the most likely token alone

# a score multiplied by more than a hundred is not a preference any more, and soon not a number
LEAST_REPETITION = 0.01


class CallGrammars(Protocol):
    """Makes grammars of forced tool calls (``call_form.ForcedCalls``)."""

    def grammar(
        self,
        tools: Sequence[Mapping[str, Any]],
        names: Sequence[str],
        *,
        several: bool,
        asked: Any,
    ) -> Grammar:
        """Hold an answer to calls of some of the tools."""


@dataclass(frozen=True)
class Defaults:
    """What a request gets where it does not say otherwise.

    Args:
        max_new_tokens: tokens an answer may have.
        temperature: 0 is greedy.
        capabilities: of the chat template; None where nothing is known of it.
        template_kwargs: variables for the template.
        scores: whether the engine shows the scores of tokens, for ``logit_bias`` and ``logprobs``.
        vocabulary: token ids are below it; None where nothing says.
        calls: makes grammars of forced tool calls; None where none can be forced.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    capabilities: TemplateCapabilities | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    scores: bool = False
    vocabulary: int | None = None
    calls: CallGrammars | None = None


@dataclass(frozen=True)
class Request:
    """One checked row: either ``prompt`` or ``messages``, and the settings it is answered with."""

    prompt: str | None
    messages: tuple[dict[str, Any], ...] | None
    tools: tuple[dict[str, Any], ...]
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    min_tokens: int
    stop: tuple[str, ...]
    seed: int | None
    n: int
    repetition_penalty: float  # divides or multiplies scores of tokens in prompt and answer
    frequency_penalty: float  # taken from a token's score for each time it was generated
    presence_penalty: float  # taken once when it was generated at all
    grammar: Grammar | None
    stream: bool
    include_usage: bool
    limited: bool  # whether the request itself says max_tokens
    # added to the scores of token ids
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    # likeliest tokens whose log probabilities are told beside the chosen one's; None tells none
    logprobs: int | None = None
    forced: bool = False  # whether the answer must call a tool, which the grammar holds it to
    parallel: bool = True  # whether it may call more than one
    # what the chat template is given beside messages and tools
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < COLDEST or self.top_k == 1 or self.top_p <= NARROWEST

    @property
    def penalised(self) -> bool:
        """Whether scores depend on how often a token was generated."""
        return self.frequency_penalty != 0 or self.presence_penalty != 0

    def penalties(self, counts: Mapping[int, int]) -> list[float]:
        """What is taken from the scores of tokens that were generated so many times."""
        return [self.presence_penalty + self.frequency_penalty * many for many in counts.values()]

    def within(self, limit: int) -> "Request":
        """The same request with at most ``limit`` new tokens."""
        return replace(self, max_tokens=limit)


LIMITS = ("max_tokens", "max_completion_tokens", "max_new_tokens")  # three names of one setting

KEYS = frozenset(
    {
        *("prompt", "messages", "tools", "tool_choice", "parallel_tool_calls"),
        *(KWARGS, "enable_thinking"),
        *("temperature", "top_p", "top_k", *LIMITS, "min_tokens", "stop", "seed", "n"),
        *("repetition_penalty", "frequency_penalty", "presence_penalty", "response_format"),
        *("logit_bias", "logprobs", "top_logprobs"),
        *("stream", "stream_options", "custom_inputs", *NEUTRAL),
    }
)


def request_of(
    row: Mapping[str, Any], params: Mapping[str, Any] | None, defaults: Defaults
) -> Request:
    """Check one row; what it does not say comes from ``params``, then from ``defaults``.

    Raises:
        MlflowException: an unknown key, a value out of range, or a setting that cannot be honoured.
    """
    given = {key: value for key, value in row.items() if not absent(value)}
    # a row's limit goes before params' under any name
    own = {*given, *(LIMITS if any(key in given for key in LIMITS) else ())}
    for key, value in plain(dict(params or {})).items():
        if not absent(value) and value != [] and key not in own:
            given[key] = value
    unknown = sorted(set(given) - KEYS)
    if unknown:
        word = unknown[0][:LONGEST_KEY]
        near = get_close_matches(word, sorted(KEYS), 1, ALIKE)
        raise invalid_request(
            unknown[0],
            given[unknown[0]],
            f"one of the keys {sorted(KEYS)}",
            f"did you mean {near[0]}?" if near else None,
        )
    if given.get("custom_inputs"):
        raise invalid_request(
            "custom_inputs", given["custom_inputs"], "nothing, as this model has no custom inputs"
        )
    require_neutral(given)
    prompt, messages = given.get("prompt"), given.get("messages")
    if (prompt is None) == (messages is None):
        raise invalid_request(
            "messages, prompt",
            "both" if prompt is not None else "neither",
            "one of the two in each row",
        )
    if prompt is not None:
        if not isinstance(prompt, str) or not prompt:
            raise invalid_request("prompt", prompt, "a string that is not empty")
        require_characters("prompt", len(prompt))
        checked_text("prompt", prompt)
    tools = checked_tools(given.get("tools"), given.get("tool_choice"))
    if tools and prompt is not None:
        raise invalid_request("tools", "given", "none with a prompt, which is templated already")
    named = [key for key in (KWARGS, "enable_thinking") if key in given]
    if named and prompt is not None:
        raise invalid_request(
            named[0], given[named[0]], "nothing with a prompt, which is templated already"
        )
    template_kwargs = checked_template_kwargs(
        given.get(KWARGS), given.get("enable_thinking"), defaults.capabilities
    )
    limits = [key for key in LIMITS if key in given]
    if len({given[key] for key in limits if isinstance(given[key], int | float)}) > 1:
        raise invalid_request(" and ".join(limits), [given[key] for key in limits], "one limit")
    max_tokens = integer_in(given, limits[0], 0, 1) if limits else defaults.max_new_tokens
    min_tokens = integer_in(given, "min_tokens", 0, 0)
    if min_tokens > max_tokens:
        raise invalid_request("min_tokens", min_tokens, f"at most max_tokens, {max_tokens}")
    grammar = checked_grammar(given.get("response_format"))
    if grammar and tools:
        raise invalid_request(
            "response_format", given["response_format"], "'text' when tools are offered"
        )
    stop = stops_in(given.get("stop"))
    several = boolean_in({"parallel_tool_calls": True, **given}, "parallel_tool_calls")
    choice = given.get("tool_choice")
    names = forced_tools(choice, tools)
    if names:
        grammar = _grammar_of_calls(
            tools, names, several and choice == "required", choice, defaults
        )
    whole = "tool_choice" if names else "response_format"
    if grammar and stop:
        raise invalid_request(
            "stop",
            list(stop),
            f"none with {whole}",
            "it would cut the answer before it is whole; let the grammar end it",
        )
    if grammar and min_tokens:
        raise invalid_request(
            "min_tokens",
            min_tokens,
            f"0 with {whole}",
            "the grammar alone says when an answer is whole",
        )
    return Request(
        prompt=prompt,
        messages=None if messages is None else checked_messages(messages),
        tools=tools,
        temperature=number_in(given, "temperature", defaults.temperature, 0, 2),
        top_p=number_in(given, "top_p", 1.0, 0, 1),
        top_k=integer_in(given, "top_k", 0, 0),
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        stop=stop,
        seed=integer_in(given, "seed", 0, 0, 2**31 - 1) if "seed" in given else None,
        n=integer_in(given, "n", 1, 1, MAX_CHOICES),
        repetition_penalty=number_in(given, "repetition_penalty", 1.0, LEAST_REPETITION, 10),
        frequency_penalty=number_in(given, "frequency_penalty", 0.0, -2, 2),
        presence_penalty=number_in(given, "presence_penalty", 0.0, -2, 2),
        grammar=grammar,
        stream=boolean_in(given, "stream"),
        include_usage=usage_wanted(given.get("stream_options", {})),
        limited=bool(limits),
        logit_bias=bias_in(given.get("logit_bias"), defaults.vocabulary, possible=defaults.scores),
        logprobs=logprobs_in(given, possible=defaults.scores),
        forced=bool(names),
        parallel=several,
        template_kwargs={} if messages is None else {**defaults.template_kwargs, **template_kwargs},
    )


def _grammar_of_calls(
    tools: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    several: bool,
    choice: Any,
    defaults: Defaults,
) -> Grammar | None:
    """The grammar of forced calls; None where the template has no tools, which it says itself."""
    if defaults.capabilities is not None and defaults.capabilities.tools is None:
        return None
    if defaults.calls is None:
        raise invalid_request("tool_choice", choice, "'auto' or 'none' without a chat template")
    return defaults.calls.grammar(tools, names, several=several, asked=choice)
