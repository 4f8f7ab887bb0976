"""Bounds of Lark grammars, counted before anything compiles them.

The engine's dialect is llguidance's (docs/syntax.md of its repository): JSON schemas stand in it
behind ``%json``, texts to quote from behind ``%regex``, grammars within grammars behind ``%lark``.
Read here are the engine's own kinds of words, so that both see the same blocks; how often rules
repeat others is left to the trial, as the engine shares them and bounds them itself.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .invalid_request import checked_texts, invalid_request, require_characters
from .regex_bounds import LARGEST, MAX_GROUPS, checked_regex, count_of
from .schema_bounds import (
    MAX_ALL_CONSTANTS,
    MAX_ALL_ITEMS,
    MAX_BRANCHES,
    MAX_PATTERNS,
    MAX_SCHEMAS,
    measured_schema,
)
from .schema_size import SchemaSize

MAX_LARK_CHARACTERS = 65_536
MAX_LARK_REPEAT = 1_000
# characters and classes of all terminals, repetitions and terminals within terminals written out:
# as many as a grammar without any may have
MAX_LARK_SIZE = MAX_LARK_CHARACTERS
QUOTED = 8  # characters of a text behind %regex that cost as much as one of a pattern

# the words of llguidance's lexer (parser/src/lark/lexer.rs); its white space is Rust's
LARK_WORD = re.compile(
    r"""(?P<skip>[ \t]+|(?:\#|//)[^\n]*)|(?P<newline>(?:\r?\n)+)"""
    r"""|(?P<block>%(?:json|regex|llguidance))|(?P<keyword>%[a-z]+)"""
    r"""|(?P<text>"(?:\\(?:["\\/bfnrt]|u[a-fA-F0-9]{4}|x[a-fA-F0-9]{2})|[^"\\\x00-\x1f\x7f])*"i?)"""
    r"""|(?P<regex>/(?:\\.|[^/\\])+/[imslux]*)|(?P<hex>0[xX][0-9a-fA-F]+)"""
    r"""|(?P<number>[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)"""
    r"""|(?P<special><[^<>\t-\r\ \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+>)"""
    r"""|(?P<reference>@[a-zA-Z0-9_-]+)"""
    r"""|(?P<terminal>_?[A-Z][_A-Z0-9-]*)|(?P<rule>!?[_?]?[a-z][_a-z0-9-]*)"""
    r"""|(?P<mark>->|::|\.\.|[:,.(){}\[\]~|&=_+*?])"""
)
DIGITS = re.compile(r"\d+")
BLANKS = re.compile(r"[ \t\r\n]*")


@dataclass
class _Word:
    """A word of a grammar; ``size`` is what a literal amounts to."""

    kind: str
    text: str
    size: int = 0


@dataclass
class _Lark:
    """One look at a grammar."""

    path: str
    schemas: SchemaSize = field(default_factory=lambda: SchemaSize(schemas=0))
    blocks: int = 0
    patterns: int = 0
    constants: int = 0
    literals: int = 0  # characters and classes in rules
    # what is compiled as one pattern each; those with a name may stand in others
    bodies: list[list[_Word]] = field(default_factory=list)
    named: dict[str, list[_Word]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def words(self, text: str) -> Iterator[_Word]:
        """Read the words, and check every block and literal."""
        position = 0
        while position < len(text):
            match = LARK_WORD.match(text, position)
            if match is None:
                raise invalid_request(
                    self.path, text[position:], "a Lark grammar; the engine cannot read this part"
                )
            kind, position = str(match.lastgroup), match.end()
            word = _Word(kind, match.group())
            if kind == "block":
                value, position = self._block(word.text, text, position)
                word.size = self._measured(word.text, value)
            elif kind == "regex":
                word.size = checked_regex(self.path, word.text[1 : word.text.rindex("/")])
            elif kind == "text":
                word.size = len(word.text) - 2
            if kind != "skip":
                yield word

    def _block(self, keyword: str, text: str, position: int) -> tuple[Any, int]:
        """The JSON value behind a keyword, and where it ends."""
        start = BLANKS.match(text, position)
        assert start is not None
        try:
            return json.JSONDecoder().raw_decode(text, start.end())
        except (ValueError, RecursionError) as error:
            raise invalid_request(
                self.path,
                f"{keyword} {text[start.end() : start.end() + 100]}",
                f"a JSON value behind {keyword}",
            ) from error

    def _measured(self, keyword: str, value: Any) -> int:
        """Check a block; returns its size in a terminal."""
        path = f"{self.path}.{keyword}"
        characters = checked_texts(path, value)
        if keyword != "%json":
            return 1 + characters // QUOTED
        self.blocks += 1
        if isinstance(value, Mapping):
            size, patterns, constants = measured_schema(path, value)
            self.schemas.hold(size)
            self.patterns += patterns
            self.constants += constants
        for count, most, what in (
            (self.blocks, MAX_BRANCHES, "%json blocks"),
            (self.schemas.schemas, MAX_SCHEMAS, "schemas of all %json blocks"),
            (self.schemas.items, MAX_ALL_ITEMS, "items of all arrays of all %json blocks"),
            (self.patterns, MAX_PATTERNS, "patterns of all %json blocks"),
            (self.constants, MAX_ALL_CONSTANTS, "characters of enum and const of all %json blocks"),
        ):
            if count > most:
                raise invalid_request(self.path, f"{count} {what}", f"at most {most}")
        return 1

    def repetitions(self, words: list[_Word]) -> list[_Word]:
        """Join the words of every repetition (``{2,5}``, ``~3``, ``~2 .. 5``) to one, whose size is
        its largest number.
        """
        joined: list[_Word] = []
        place = 0
        while place < len(words):
            word, place = words[place], place + 1
            joined.append(word)
            if word.text not in ("{", "~"):
                continue
            between = (",",) if word.text == "{" else (".", "..")
            start = place
            while place < len(words) and (
                words[place].kind == "number" or words[place].text in between
            ):
                place += 1
            digits = DIGITS.findall(" ".join(one.text for one in words[start:place]))
            if digits:
                largest = max(digits, key=count_of)
                if count_of(largest) > MAX_LARK_REPEAT:
                    raise invalid_request(
                        self.path,
                        f"a repetition of {largest[:20]}",
                        f"repetitions of at most {MAX_LARK_REPEAT}",
                    )
                joined[-1] = _Word("repetition", "", max(count_of(largest), 1))
                place += word.text == "{"  # and its end
        return joined

    def definitions(self, words: list[_Word]) -> None:
        """Note what is compiled as one pattern: a terminal, a rule with options or with ``~``, what
        is ignored.
        """
        line: list[_Word] = []
        end = _Word("newline", "")
        words = [end, *words, end, end]
        for before, word, after in zip(words, words[1:], words[2:], strict=False):
            nested = word.text == "{" and before.text == "%lark"
            if word.kind != "newline" and not nested:
                line.append(word)
            elif after.text != "|":
                self._definition(line)
                line = []

    def _definition(self, line: list[_Word]) -> None:
        colon = next((place for place, word in enumerate(line) if word.text == ":"), -1)
        head, body = line[: colon + 1], line[colon + 1 :]
        if line and line[0].text == "%ignore":
            self.bodies.append(line[1:])
        elif head and line[0].kind == "terminal":
            self.named.setdefault(line[0].text, []).extend(body)
        elif any(word.text == "[" for word in head) or any(word.text == "~" for word in body):
            self.bodies.append(body)
        else:
            self.literals = min(self.literals + sum(word.size for word in body), LARGEST)

    def total(self) -> int:
        """Size of all that is compiled as a pattern."""
        sizes = [self._terminal(name, 0) for name in self.named]
        return self.literals + sum(sizes) + sum(self._pattern(body, 0) for body in self.bodies)

    def _terminal(self, name: str, level: int) -> int:
        """Size of a terminal with those in it written out; one within itself is the engine's to
        refuse.
        """
        if level > MAX_GROUPS:
            raise invalid_request(
                self.path, f"{level} terminals within terminals", f"at most {MAX_GROUPS}"
            )
        if name not in self.sizes:
            self.sizes[name] = 1
            self.sizes[name] = self._pattern(self.named.get(name, []), level)
        return self.sizes[name]

    def _pattern(self, body: list[_Word], level: int) -> int:
        # of each open group: what is before its last atom, and that atom
        sums: list[list[int]] = [[0, 0]]
        for word in body:
            before, atom = sums[-1]
            if word.kind == "repetition":
                sums[-1][1] = min(atom * word.size, LARGEST)
            elif word.text in ("(", "["):
                sums[-1] = [min(before + atom, LARGEST), 0]
                sums.append([0, 0])
            elif word.text in (")", "]") and len(sums) > 1:
                sums.pop()
                sums[-1][1] = min(before + atom, LARGEST)
            elif word.text in ("*", "+", "?"):
                sums[-1][1] = atom + 1
            elif word.kind != "mark":
                size = (
                    self._terminal(word.text, level + 1) if word.kind == "terminal" else word.size
                )
                sums[-1] = [min(before + atom, LARGEST), max(size, 1)]
        return min(sum(sum(pair) for pair in sums), LARGEST)


def checked_lark(path: str, text: str) -> None:
    """Refuse a Lark grammar that is too long, repeats too often, or holds schemas or patterns that
    would be refused by themselves; what its rules amount to shows when it is tried.

    Args:
        path: of the grammar in the request.
        text: the grammar.

    Raises:
        MlflowException: naming the bound.
    """
    require_characters(path, len(text), MAX_LARK_CHARACTERS)
    lark = _Lark(path)
    words = lark.repetitions(list(lark.words(text)))
    depth = 0
    for word in words:
        depth += (word.text in ("(", "[")) - (word.text in (")", "]"))
        if depth > MAX_GROUPS:
            raise invalid_request(path, f"groups {depth} deep", f"groups at most {MAX_GROUPS} deep")
    lark.definitions(words)
    size = lark.total()
    if size > MAX_LARK_SIZE:
        written = (
            f"{size if size < LARGEST else f'more than {LARGEST}'} characters and classes of"
            " terminals with repetitions written out"
        )
        raise invalid_request(path, written, f"at most {MAX_LARK_SIZE}", "repeat less")
