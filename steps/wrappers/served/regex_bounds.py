"""Bounds of regular expressions, counted before anything compiles them.

The engine reads the syntax of Rust's ``regex`` crate. What is counted is a pattern with every
repetition written out, which is never less than what is compiled; whether a pattern is valid is the
engine's to say.
"""

import re

from .invalid_request import invalid_request, require_characters

MAX_PATTERN_CHARACTERS = 8_192
# characters and classes, repetitions written out: 0.1 s at worst where a token of it takes
# milliseconds
MAX_PATTERN_SIZE = 10_000
MAX_GROUPS = 64  # groups within groups
LARGEST = 10**9  # where counting ends

COUNT = re.compile(r"\{\s*(?:(\d+)\s*)?(?:(,)\s*(?:(\d+)\s*)?)?\}")
LOOK_AROUND = ("(?=", "(?!", "(?<=", "(?<!")
ESCAPE = re.compile(r"\\(?:[pPxuU]\{[^}]*\}|.)", re.DOTALL)
GROUP_HEAD = re.compile(r"\(\?(?:P?<[^>]*>|[A-Za-z-]*:?)")


def checked_regex(field: str, text: str) -> int:
    """Refuse a pattern that is too long or too large, with lookarounds or back-references.

    Args:
        field: its path in the request.
        text: the pattern.

    Returns:
        Its size.

    Raises:
        MlflowException: naming the bound.
    """
    require_characters(field, len(text), MAX_PATTERN_CHARACTERS)
    size = _size(field, text)
    if size > MAX_PATTERN_SIZE:
        written = (
            f"{size if size < LARGEST else f'more than {LARGEST}'} characters and classes with"
            " repetitions written out"
        )
        raise invalid_request(
            field,
            f"{text[:100]!r}, {written}",
            f"at most {MAX_PATTERN_SIZE}",
            "repeat less, or nest fewer repetitions",
        )
    return size


def count_of(digits: str) -> int:
    """The number that digits write, or ``LARGEST`` where it is at least that."""
    digits = digits.lstrip("0")
    return int(digits or 0) if len(digits) < 10 else LARGEST


def _size(field: str, text: str) -> int:
    """Size of a pattern: characters and classes, with every repetition written out."""
    # of each open group: what is before its last atom, and that atom
    sums: list[list[int]] = [[0, 0]]
    position = 0
    while position < len(text):
        character = text[position]
        count = COUNT.match(text, position) if character == "{" else None
        if count is not None and (count.group(1) or count.group(3)):
            low, high = count_of(count.group(1) or ""), count_of(count.group(3) or "")
            sums[-1][1] = min(
                sums[-1][1] * max(low, high, 1) + (count.group(2) is not None), LARGEST
            )
            position = count.end()
            continue
        if character in "*+?":
            sums[-1][1] = min(sums[-1][1] + (sums[-1][1] > 0), LARGEST)
            position += 1
            continue
        if character == ")" and len(sums) > 1:
            inner = sum(sums.pop())
            sums[-1] = [sum(sums[-1]), min(inner, LARGEST)]
            position += 1
            continue
        sums[-1] = [sum(sums[-1]), 0]
        if character == "(":
            if text.startswith(LOOK_AROUND, position):
                raise invalid_request(field, text, "a pattern without lookarounds")
            head = GROUP_HEAD.match(text, position)
            position = head.end() if head else position + 1
            if head and text[position - 1] not in ":>":  # flags alone open nothing
                continue
            sums.append([0, 0])
            if len(sums) > MAX_GROUPS:
                raise invalid_request(field, text, f"groups at most {MAX_GROUPS} deep")
            continue
        if character == "\\":
            if text[position + 1 : position + 2] in tuple("123456789"):
                raise invalid_request(field, text, "a pattern without back-references")
            escape = ESCAPE.match(text, position)
            position = escape.end() if escape else position + 1
        elif character == "[":
            position = _after_class(text, position)
        else:
            position += 1
        sums[-1][1] = int(character != "|")
    return min(sum(sum(pair) for pair in sums), LARGEST)


def _after_class(text: str, position: int) -> int:
    """Where a class of characters ends; classes may hold classes."""
    depth = 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 2
            continue
        if character == "[":
            depth += 1
            rest = position + 1 + (text[position + 1 : position + 2] == "^")
            # a bracket that comes first is one of the characters
            position = rest + (text[rest : rest + 1] == "]")
            continue
        position += 1
        if character == "]":
            depth -= 1
            if depth == 0:
                return position
    return position
