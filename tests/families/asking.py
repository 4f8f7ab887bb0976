"""What the families are asked, and what the right answer is."""

import itertools
from typing import Any

from tests.families.fuzz import texts
from tests.families.subject import Subject

NEW_TOKENS = 5
VARIANTS = ("onnx", "transformers")


def asked(prompt: str, max_tokens: int = NEW_TOKENS) -> dict[str, Any]:
    """A row of the prompt contract."""
    return {"prompt": prompt, "temperature": 0.0, "max_tokens": max_tokens}


def talked(messages: list[dict[str, str]], max_tokens: int = NEW_TOKENS) -> dict[str, Any]:
    """A row of the chat contract."""
    return {"messages": messages, "temperature": 0.0, "max_tokens": max_tokens}


def said(answer: Any) -> tuple[str, str]:
    """Text of a completion, reasoning before content, and why it ended."""
    choice = answer["choices"][0]
    return (
        choice["message"].get("reasoning_content", "") + (choice["message"]["content"] or ""),
        choice["finish_reason"],
    )


def right(
    subject: Subject, messages: list[dict[str, str]], max_tokens: int = NEW_TOKENS
) -> tuple[str, str]:
    """What `generate` answers and why it ends, without white space around reasoning."""
    text, reason = subject.reference.answer(subject.reference.chat_ids(messages), max_tokens)
    return (text.strip() if subject.family.reasons else text), reason


def returned(subject: Subject, answer: str) -> str:
    """An answer as history: without NUL, which no request may hold, and texts of added tokens,
    which are read as plain text there.
    """
    for token in subject.reference.tokenizer.added_tokens_decoder.values():
        answer = answer.replace(token.content, "") if token.content.strip() else answer
    return answer.replace("\0", "")


def prompts(seed: int, count: int) -> list[str]:
    """Different short prompts, none of them empty."""
    return list(
        itertools.islice(
            dict.fromkeys(text for text in texts(seed, 2 * count) if text.strip()), count
        )
    )


def differing(
    given: list[str], expected: list[str], answered: list[str]
) -> list[tuple[str, str, str]]:
    """Prompts that were answered otherwise, with what was expected and answered."""
    triples = zip(given, expected, answered, strict=False)
    return [(prompt, right, answer) for prompt, right, answer in triples if right != answer]
