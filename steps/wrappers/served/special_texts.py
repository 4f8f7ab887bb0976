"""Text of a request that spells special tokens: found, and marked so that it can be cut apart.

The values are messages, tools and variables as a chat template takes them.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# a character of the private use area: it stands for what is left out in a comparison
BLANK = "\ue000"
# random, so that no request can hold it; digits alone pass unchanged through what templates do to
# text
MARK_DIGITS = 40


def random_mark() -> str:
    """A text that stands in no request."""
    return str(secrets.randbelow(10**MARK_DIGITS)).zfill(MARK_DIGITS)


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a value, keys too: a template prints the keys of arguments and schemas."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from texts_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_in(item)


def blanked(value: Any, texts: Sequence[str]) -> Any:
    """A value with these texts replaced, but for roles and the names of fields."""
    if isinstance(value, str):
        for text in texts:
            value = value.replace(text, BLANK)
        return value
    if isinstance(value, Mapping):
        return {key: item if key == "role" else blanked(item, texts) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(blanked(item, texts) for item in value)
    return value


def blanked_message(
    message: Mapping[str, Any], texts: Sequence[str], tags: tuple[str, str] | None
) -> dict[str, Any]:
    """A message that cannot spell structure, but for the tags of reasoning in an answer."""
    blank = dict(blanked(message, texts))
    if message["role"] == "assistant" and tags:
        for tag in tags:
            blank["content"] = str(blank["content"]).replace(blanked(tag, texts), tag)
    return blank


def marked(value: Any, texts: Sequence[str], mark: str) -> Any:
    """A value with a mark after the first character of these texts, in keys too."""
    if isinstance(value, str):
        for text in texts:
            value = value.replace(text, text[:1] + mark + text[1:])
        return value
    if isinstance(value, Mapping):
        return {marked(key, texts, mark): marked(item, texts, mark) for key, item in value.items()}
    if isinstance(value, list):
        return [marked(item, texts, mark) for item in value]
    return value


def marked_message(
    message: Mapping[str, Any], texts: Sequence[str], mark: str, tags: tuple[str, str] | None
) -> dict[str, Any]:
    """A marked message; tags of reasoning stay whole, for the template to cut it out."""
    made = {key: marked(value, texts, mark) for key, value in message.items()}
    if message["role"] == "assistant" and tags:
        content = str(made["content"])
        opening, closing = (str(marked(tag, texts, mark)) for tag in tags)
        if content.lstrip().startswith(opening):
            content = content.replace(opening, tags[0], 1)
        made["content"] = content.replace(closing, tags[1])
    return made
