"""Text of every kind that people send, from a fixed seed."""

import random
from collections.abc import Iterator

WORDS = [
    *(
        "the",
        "of",
        "and",
        "model",
        "answer",
        "capital",
        "France",
        "weather",
        "write",
        "three",
        "reasons",
        "light",
        "travels",
        "faster",
    ),
    *(
        "Please",
        "explain",
        "I'm",
        "don't",
        "we'll",
        "they've",
        "HTTP_200",
        "snake_case",
        "CamelCase",
        "def",
        "return",
        "lambda",
    ),
    *(
        "x:",
        "{'a':",
        "[1,",
        "2]}",
        "<b>bold</b>",
        "&amp;",
        "naïve",
        "café",
        "Straße",
        "Ångström",
        "e\u0301te\u0301",
        "\ufb01n",
        "x\u00b2",
    ),
    *(
        "\u00bd",
        "\u2460",
        "中文分词",
        "日本語です",
        "한국어",
        "العربية",
        "עברית",
        "हिन्दी",
        "ไทย",
        "Ελληνικά",
        "Привет",
        "мир",
        "√2",
        "≠",
    ),
    *(
        "🙂",
        "👩\u200d👩\u200d👧\u200d👦",
        "🏳️\u200d🌈",
        "🇫🇷",
        "👍🏽",
        "\U0001d4b3",
        "\u200b",
        "\ufeff",
        "\u202e",
        "▁",
        "▁▁",
        "Ġ",
        "Ċ",
    ),
]
JOINTS = (
    " ",
    " ",
    " ",
    " ",
    "",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\t",
    ", ",
    ". ",
    "\u00a0",
    "\u3000",
    "\r\n",
    "-",
)
RUNS = ("a", " ", "\n", "=", "-", "0", "é", "中", "🙂", "ab ", "\t", "▁", "!?")


def texts(seed: int, count: int) -> Iterator[str]:
    """Yield texts of 0 to about 100 characters: words of many scripts, numbers, long runs, code
    points drawn at random.
    """
    dice = random.Random(seed)
    for number in range(count):
        kind = number % 8
        if kind == 5:
            yield dice.choice(RUNS) * dice.randint(2, 70)
        elif kind == 6:
            yield "".join(_code_point(dice) for _ in range(dice.randint(1, 24)))
        elif kind == 7:
            yield (
                f"{dice.choice((' ', ''))}{dice.randint(0, 10**12):,} {dice.random()}"
                f" {'0' * dice.randint(0, 9)}{dice.randint(0, 99)}"
            )
        else:
            yield "".join(
                dice.choice(WORDS) + dice.choice(JOINTS)
                for _ in range(dice.randint(0 if kind == 4 else 2, 12))
            )


def _code_point(dice: random.Random) -> str:
    place = dice.choice(
        (
            (0x20, 0x7F),
            (0x80, 0x250),
            (0x300, 0x370),
            (0x0900, 0x0E80),
            (0x2000, 0x2BFF),
            (0x4E00, 0x9FFF),
            (0x1F300, 0x1FAFF),
        )
    )
    return chr(dice.randrange(*place))
