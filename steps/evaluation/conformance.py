"""The chat contract as a table, and one function that tries every row of it on a loaded model.

Plain data and plain calls: imports nothing of ``steps``, so that the worker of an evaluation, the
tests of the wrappers and a canary
can load this one file.

    rows = conformance(mlflow.pyfunc.load_model("models:/…"))
"""

import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

QUESTION = "Name the days of the week."
TOKENS = 10  # length of most answers here: long enough to stop in, short enough for a slow model
# even a confident model has more than one answer
OPEN_QUESTION = "Write the first lines of a story about anything you like."
OPEN = {"temperature": 1.5, "max_tokens": 24}
# past the context of most small models; what a model says of its own goes before it
OVERLONG_WORDS = 40_000
PAST_BORDER = 48  # tokens that a prompt reaches past a border, more than a chat template's own


class BrokenError(Exception):
    """The model does not hold a row."""


class LimitError(Exception):
    """The model refuses, clearly, what a row may be refused."""


@dataclass(frozen=True)
class Row:
    """How a model did on one row; ``limit`` is the model's own words where it declares the row
    beyond it.
    """

    name: str
    passed: bool
    limit: str | None
    detail: str


def frame(*rows: dict[str, Any]) -> Any:
    """Rows as users send them."""
    import pandas as pd

    return pd.DataFrame(list(rows))


def completions(response: Any) -> list[dict[str, Any]]:
    """The completions of a response: one dictionary a row."""
    if not isinstance(response, list) or not all(isinstance(each, dict) for each in response):
        raise BrokenError(
            f"predict returned {type(response).__name__}, expected a list with one completion a row"
        )
    return response


def chat(model: Any, row: dict[str, Any]) -> dict[str, Any]:
    """One completion for one row."""
    found = completions(model.predict(frame(row)))
    if len(found) != 1:
        raise BrokenError(f"{len(found)} completions for one row")
    return found[0]


def text(completion: dict[str, Any], choice: int = 0) -> str:
    """Text of a completion's choice: its reasoning, where the model reasons, and what it says
    then.
    """
    message = completion["choices"][choice]["message"]
    return str(message.get("reasoning_content") or "") + str(message.get("content") or "")


def piece(choice: dict[str, Any]) -> str:
    """Text of a streamed choice, as ``text``."""
    return str(choice["delta"].get("reasoning_content") or "") + str(
        choice["delta"].get("content") or ""
    )


def capabilities(model: Any) -> dict[str, Any]:
    """What a logged model says of itself: ``limits`` and ``template``; empty for models that were
    logged by others.
    """
    metadata: dict[str, Any] = model.metadata.metadata or {}
    return dict(metadata.get("capabilities") or {})


def brief(model: Any) -> dict[str, Any]:
    """Settings that switch a model's reasoning off, where its template has a switch."""
    thinking = (capabilities(model).get("template") or {}).get("thinking") or {}
    switch = thinking.get("switch")
    return {"chat_template_kwargs": {switch: False}} if switch else {}


def user(content: str) -> list[dict[str, str]]:
    """A conversation of one question."""
    return [{"role": "user", "content": content}]


class Subject:
    """The model under test and answers that several rows need."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def ask(self, content: str = QUESTION, **settings: Any) -> dict[str, Any]:
        return chat(
            self.model,
            {
                "messages": user(content),
                "temperature": 0.0,
                "max_tokens": TOKENS,
                **brief(self.model),
                **settings,
            },
        )

    @property
    def limits(self) -> dict[str, Any]:
        return dict(capabilities(self.model).get("limits") or {})

    @cached_property
    def greedy(self) -> dict[str, Any]:
        return self.ask()

    @property
    def columns(self) -> set[str]:
        schema = self.model.metadata.get_input_schema()
        return (
            set(schema.input_names()) if schema is not None and schema.has_input_names() else set()
        )

    @property
    def streams(self) -> bool:
        return bool(self.model.metadata.flavors["python_function"].get("streamable", False))

    def refusal(self, call: Callable[[], Any]) -> str:
        """Message of the clear error that ``call`` must end in: a 400 over HTTP, never a 500."""
        from mlflow.exceptions import MlflowException

        try:
            response = call()
        except MlflowException as error:
            if _status(error) != 400:
                raise BrokenError(
                    f"refused with {error.error_code} (HTTP {_status(error)}), expected a 400:"
                    f" {error}"
                ) from error
            return f"{error}"
        raise BrokenError(f"accepted: {str(response)[:120]}")


def _status(error: Any) -> int:
    """HTTP status that a scoring server answers with for an ``MlflowException``."""
    return int(error.get_http_status_code())


def expect(condition: bool, detail: str) -> None:
    if not condition:
        raise BrokenError(detail)


def shape(subject: Subject) -> str:
    answer = subject.greedy
    missing = {"id", "object", "created", "model", "choices", "usage"} - set(answer)
    expect(not missing, f"missing keys {sorted(missing)}")
    expect(answer["object"] == "chat.completion", f"object is {answer['object']!r}")
    choice = answer["choices"][0]
    expect(
        choice["index"] == 0 and choice["message"]["role"] == "assistant",
        f"choice is {str(choice)[:100]}",
    )
    expect(
        isinstance(answer["created"], int) and isinstance(answer["id"], str) and bool(answer["id"]),
        "id or created has the wrong type",
    )
    json.dumps(answer)
    return "id, object, created, model, choices, usage"


def public_name(subject: Subject) -> str:
    name: str = subject.greedy["model"]
    expect(isinstance(name, str) and bool(name), f"model is {name!r}")
    expect(not re.search(r"^[/~.]|^[A-Za-z]:\\|^file:", name), f"model leaks a path: {name!r}")
    return name


def dictionary(subject: Subject) -> str:
    row = {
        "messages": user(QUESTION),
        "temperature": 0.0,
        "max_tokens": TOKENS,
        **brief(subject.model),
    }
    found = completions(subject.model.predict(row))
    expect(
        len(found) == 1 and text(found[0]) == text(subject.greedy),
        "a dictionary is answered differently from a frame of one row",
    )
    return "a dictionary is answered as a frame of one row"


def greedy_repeats(subject: Subject) -> str:
    again = subject.ask()
    expect(text(again) == text(subject.greedy), f"{text(again)!r} is not {text(subject.greedy)!r}")
    return "the same text twice at temperature 0"


def seed(subject: Subject) -> str:
    first, second = (text(subject.ask(OPEN_QUESTION, **OPEN, seed=7)) for _ in range(2))
    expect(first == second, f"the same seed gave {first!r} and {second!r}")
    others = {text(subject.ask(OPEN_QUESTION, **OPEN, seed=value)) for value in (8, 9, 10)}
    expect(others != {first}, "four seeds gave one text")
    return "same seed, same text; other seeds, other texts"


def top_p(subject: Subject) -> str:
    nearly = text(subject.ask(temperature=1.0, top_p=1e-6, seed=3))
    expect(
        nearly == text(subject.greedy),
        f"top_p near 0 gave {nearly!r}, greedy {text(subject.greedy)!r}",
    )
    return "top_p near 0 equals greedy"


def top_k(subject: Subject) -> str:
    one = text(subject.ask(temperature=1.0, top_k=1, seed=3))
    expect(one == text(subject.greedy), f"top_k=1 gave {one!r}, greedy {text(subject.greedy)!r}")
    return "top_k=1 equals greedy"


def max_tokens(subject: Subject) -> str:
    short = subject.ask(max_tokens=3)
    expect(
        short["usage"]["completion_tokens"] <= 3,
        f"{short['usage']['completion_tokens']} tokens for max_tokens=3",
    )
    expect(
        text(subject.greedy).startswith(text(short).rstrip("\ufffd")),
        "a shorter limit changed the text",
    )
    return "max_tokens holds"


def finish_reason(subject: Subject) -> str:
    for limit in (1, 4, TOKENS):
        answer = subject.ask(max_tokens=limit)
        used, reason = answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]
        # EOS may be the very last token that was allowed
        wanted = {"stop"} if used < limit else {"length", "stop"}
        expect(reason in wanted, f"{used} of {limit} tokens end with {reason!r}")
    cut = subject.ask("Count from one to one hundred in words.", max_tokens=4)["choices"][0][
        "finish_reason"
    ]
    expect(cut == "length", f"a cut answer ends with {cut!r}")
    return "length on a token limit, stop otherwise"


def usage(subject: Subject) -> str:
    for limit in (2, TOKENS):
        found = subject.ask(max_tokens=limit)["usage"]
        expect(found["prompt_tokens"] > 0 and found["completion_tokens"] >= 0, f"usage is {found}")
        expect(
            found["prompt_tokens"] + found["completion_tokens"] == found["total_tokens"],
            f"usage does not add up: {found}",
        )
    longer = subject.ask(QUESTION + " Start with Monday, please.", max_tokens=2)["usage"][
        "prompt_tokens"
    ]
    expect(
        longer > subject.greedy["usage"]["prompt_tokens"],
        "a longer prompt does not count more tokens",
    )
    return "prompt + completion = total"


def stop(subject: Subject) -> str:
    whole = str(subject.greedy["choices"][0]["message"].get("content") or "")
    if not whole and text(subject.greedy):
        raise LimitError(
            f"stop strings end what follows the reasoning, and {TOKENS} tokens were reasoning alone"
        )
    middle = whole[len(whole) // 3 :].strip() or whole[len(whole) // 3 :]
    word = middle[: max(2, len(middle) // 2)]
    expect(bool(word), f"no text to stop in: {whole!r}")
    cut = subject.ask(stop=[word])
    expect(
        text(cut) == whole[: whole.index(word)], f"stop={word!r} left {text(cut)!r} of {whole!r}"
    )
    expect(
        cut["choices"][0]["finish_reason"] == "stop",
        f"finish_reason is {cut['choices'][0]['finish_reason']!r}",
    )
    return f"text ends before {word!r}"


def several(subject: Subject) -> str:
    answer = subject.ask(n=2, temperature=0.8, seed=5, max_tokens=8)
    expect(
        [choice["index"] for choice in answer["choices"]] == [0, 1],
        f"n=2 gave {len(answer['choices'])} choices",
    )
    found = answer["usage"]
    expect(
        found["prompt_tokens"] + found["completion_tokens"] == found["total_tokens"],
        f"usage does not add up: {found}",
    )
    ended = any(choice["finish_reason"] == "stop" for choice in answer["choices"])
    expect(ended or found["completion_tokens"] == 16, f"usage counts one choice: {found}")
    return "n=2 gives two choices, both counted"


def ends_rightly(answer: dict[str, Any], limit: int) -> bool:
    """Whether an answer used its limit, or ended by itself before."""
    used = int(answer["usage"]["completion_tokens"])
    return used == limit or (used < limit and answer["choices"][0]["finish_reason"] == "stop")


def batch(subject: Subject) -> str:
    limits = [2, 9, 5]
    question = user("Count from one to one hundred in words.")
    rows = [
        {"messages": question, "temperature": 0.0, "max_tokens": limit, **brief(subject.model)}
        for limit in limits
    ]
    answers = completions(subject.model.predict(frame(*rows)))
    used = [answer["usage"]["completion_tokens"] for answer in answers]
    expect(len(used) == len(limits), f"{len(limits)} rows got {len(used)} answers")
    held = all(ends_rightly(answer, limit) for answer, limit in zip(answers, limits, strict=True))
    expect(held, f"rows with max_tokens {limits} used {used}")
    return "each row keeps its own settings, in order"


def unicode(subject: Subject) -> str:
    content = "Repeat: čeština, 日本語, العربية, e\u0301, 👩🏽‍🚀, \u200b\ufeff"
    answer = subject.ask(content)
    text(answer).encode("utf-8")
    expect(answer["usage"]["prompt_tokens"] > 20, f"usage is {answer['usage']}")
    return "accepted and answered"


def empty_content(subject: Subject) -> str:
    answer = subject.ask("", max_tokens=4)
    expect(answer["usage"]["prompt_tokens"] > 0, "no prompt tokens")
    return "an empty text is answered"


def turns(subject: Subject) -> str:
    """Prompts with and without each part; a longer system message stands for none, as a template
    may put in one of its own.
    """

    def tokens(system: str | None, history: bool) -> int:
        before = (
            [*user("My name is Ada."), {"role": "assistant", "content": "Hello Ada."}]
            if history
            else []
        )
        first = [{"role": "system", "content": system}] if system is not None else []
        messages = [*first, *before, *user("What is my name?")]
        answer = chat(subject.model, {"messages": messages, "temperature": 0.0, "max_tokens": 1})
        return int(answer["usage"]["prompt_tokens"])

    expect(tokens(None, False) < tokens(None, True), "history is not in the prompt")
    try:
        whole = tokens("You are brief.", True)
    except Exception as error:
        if getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE":
            raise LimitError(f"no system role: {error}"[:200]) from error
        raise
    expect(
        tokens("You are brief. You answer in one sentence and never in two.", True) > whole,
        "the system message is not in the prompt",
    )
    return "system message and history are in the prompt"


def no_messages(subject: Subject) -> str:
    return subject.refusal(
        lambda: subject.model.predict(frame({"messages": [], "temperature": 0.0, "max_tokens": 4}))
    )[:160]


def wrong_role(subject: Subject) -> str:
    row = {
        "messages": [{"role": "wizard", "content": "Hello"}],
        "temperature": 0.0,
        "max_tokens": 4,
    }
    return subject.refusal(lambda: subject.model.predict(frame(row)))[:160]


def wrong_temperature(subject: Subject) -> str:
    return subject.refusal(lambda: subject.ask(temperature=-1.0))[:160]


def wrong_max_tokens(subject: Subject) -> str:
    return subject.refusal(lambda: subject.ask(max_tokens=0))[:160]


def overlong(subject: Subject) -> str:
    """One word is at least one token, so as many as the context holds cannot fit, and nothing need
    be computed to know it.
    """
    known = (subject.model.metadata.metadata or {}).get("context_length") or subject.limits.get(
        "context_length"
    )
    words = int(known) if known else OVERLONG_WORDS
    message = subject.refusal(lambda: subject.ask("word " * words, max_tokens=4))
    expect(
        re.search(r"\d{4,}|\d,\d{3}", message) is not None,
        f"the refusal does not say how long: {message[:160]}",
    )
    expect(
        subject.ask(max_tokens=4)["usage"]["completion_tokens"] > 0,
        "the model does not answer after the refusal",
    )
    return message[:160]


def past_borders(subject: Subject) -> str:
    """Prompts that end before and past each length at which a model's attention or positions
    change.
    """
    limits = subject.limits
    borders = sorted(
        {
            *limits.get("windows", []),
            *([limits["rope_border"]] if limits.get("rope_border") else []),
        }
    )
    borders = [border for border in borders if border + 2 * PAST_BORDER < limits["context_length"]]
    few, many = (
        (subject.ask("word " * words, max_tokens=1)["usage"]["prompt_tokens"] for words in (8, 40))
        if borders
        else (0, 32)
    )
    for border in borders:
        # the first one's answer crosses the border
        for target in (border - TOKENS // 2, border + PAST_BORDER):
            words = max(1, 8 + round((target - few) * 32 / max(1, many - few)))
            first, second = (subject.ask("word " * words) for _ in range(2))
            expect(
                text(first) == text(second),
                f"a prompt of {first['usage']['prompt_tokens']} tokens is answered in two ways",
            )
        got = second["usage"]["prompt_tokens"]
        expect(
            got > border,
            f"a prompt of {words} words counts {got} tokens, not past the border of {border}",
        )
    return f"answers across {borders}" if borders else "no length at which anything changes"


def json_answer(subject: Subject) -> str:
    answer = _or_limit(
        lambda: subject.ask(
            "Give a JSON object with the key a.",
            response_format={"type": "json_object"},
            max_tokens=48,
        )
    )
    said = text(answer)
    # cut: it cannot parse, but it can begin as an object does
    if answer["choices"][0]["finish_reason"] == "length":
        expect(
            said.lstrip().startswith("{") or not said.strip(),
            f"cut, and not the beginning of an object: {said!r}",
        )
        return "begins as an object, and finish_reason says length"
    try:
        found = json.loads(said)
    except ValueError as error:
        raise BrokenError(f"not JSON: {said!r}") from error
    expect(isinstance(found, dict), f"not an object: {said!r}")
    return "parses to an object"


def penalty(subject: Subject) -> str:
    answer = _or_limit(
        lambda: subject.ask(
            "Say la la la la la la la la.", frequency_penalty=1.5, presence_penalty=0.5
        )
    )
    expect(answer["usage"]["completion_tokens"] > 0, "no answer")
    return "accepted"


def concurrency(subject: Subject) -> str:
    limits = [2, 3, 5, 7, 2, 3, 5, 7]
    used: dict[int, int | str] = {}

    def one(index: int, limit: int) -> None:
        try:
            answer = subject.ask("Count from one to one hundred in words.", max_tokens=limit)
            count = answer["usage"]["completion_tokens"]
            used[index] = limit if ends_rightly(answer, limit) else count
        except Exception as error:  # noqa: BLE001 - told by the row below, not by the thread
            used[index] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(limits)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got = [used.get(index) for index in range(len(limits))]
    expect(got == limits, f"threads with max_tokens {limits} used {got}")
    return "eight threads at once get their own answers"


def streaming(subject: Subject) -> str:
    expect(subject.streams, "the model does not stream")
    row = {
        "messages": user(QUESTION),
        "temperature": 0.0,
        "max_tokens": TOKENS,
        **brief(subject.model),
    }
    chunks = list(subject.model.predict_stream(row))
    expect(
        all(chunk.get("object") == "chat.completion.chunk" for chunk in chunks),
        "a chunk is not a chat.completion.chunk",
    )
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    expect(
        choices[0]["delta"].get("role") == "assistant", f"the first delta is {choices[0]['delta']}"
    )
    joined = "".join(piece(choice) for choice in choices)
    expect(joined == text(subject.greedy), f"streamed {joined!r}, whole {text(subject.greedy)!r}")
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    expect(reasons == [subject.greedy["choices"][0]["finish_reason"]], f"finish reasons {reasons}")
    return "streamed deltas join to the whole answer"


def prompt_column(subject: Subject) -> str:
    if "prompt" not in subject.columns:
        raise LimitError("the signature has no prompt column: this variant speaks chat only")
    answers = subject.model.predict(
        frame({"prompt": "One, two,", "max_tokens": 4}, {"prompt": "Hello", "max_tokens": 4})
    )
    expect(
        isinstance(answers, list)
        and len(answers) == 2
        and all(isinstance(each, str) for each in answers),
        f"got {str(answers)[:120]}",
    )
    return "one string a row"


def _or_limit(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as error:
        if _status(error) == 400:
            raise LimitError(str(error)[:200]) from error
        raise


# The table. A row that may be refused ends in a named limit when the model says so with a 400;
# every other row must hold.
TABLE: tuple[tuple[str, Callable[[Subject], str]], ...] = (
    ("completion shape", shape),
    ("public model name", public_name),
    ("dictionary input", dictionary),
    ("temperature 0 repeats", greedy_repeats),
    ("seed", seed),
    ("top_p", top_p),
    ("top_k", top_k),
    ("max_tokens", max_tokens),
    ("finish_reason", finish_reason),
    ("usage adds up", usage),
    ("stop strings", stop),
    ("n choices", several),
    ("rows keep their settings", batch),
    ("unicode", unicode),
    ("empty message", empty_content),
    ("system and history", turns),
    ("no messages is refused", no_messages),
    ("unknown role is refused", wrong_role),
    ("negative temperature is refused", wrong_temperature),
    ("max_tokens 0 is refused", wrong_max_tokens),
    ("over-long prompt is refused", overlong),
    ("past the borders", past_borders),
    ("response_format json_object", json_answer),
    ("penalties are accepted", penalty),
    ("concurrent requests", concurrency),
    ("streaming equals whole", streaming),
    ("prompt column", prompt_column),
)


def conformance(model: Any, only: frozenset[str] | None = None) -> list[Row]:
    """Try every row of the contract, or those named.

    Args:
        model: what ``mlflow.pyfunc.load_model`` returned.
        only: names of rows; None takes all.
    """
    subject = Subject(model)
    rows = []
    for name, function in TABLE:
        if only is not None and name not in only:
            continue
        try:
            rows.append(Row(name, True, None, function(subject)))
        except LimitError as limit:
            rows.append(Row(name, False, str(limit), "refused clearly"))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the model raises is the row's result
            detail = (
                str(error) if isinstance(error, BrokenError) else f"{type(error).__name__}: {error}"
            )
            rows.append(Row(name, False, None, detail[:300]))
    return rows


class Tried(Protocol):
    """A row of the table after it was tried, here or read from a report."""

    @property
    def passed(self) -> bool: ...

    @property
    def limit(self) -> str | None: ...


def complete(rows: Sequence[Tried]) -> bool:
    """Whether every row passed or is a named limit."""
    return bool(rows) and all(row.passed or row.limit is not None for row in rows)
