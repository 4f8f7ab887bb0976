"""Numbers in an answer, in figures or in English words."""

import re

# A sign counts only where no word ends: "9-11" is a range, not minus eleven.
_FIGURES = r"(?:(?<![\w.)])[-+\u2212])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
# fmt: off
_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
# fmt: on
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
_BELOW_100 = (
    rf"(?:(?:{'|'.join(_TENS)})(?:[-"
    rf" ](?:{'|'.join(_UNITS[1:10])}))?|{'|'.join(sorted(_UNITS, key=len, reverse=True))})"
)
_WORDS = rf"\b(?:(?:a|{'|'.join(_UNITS[1:10])}) hundred(?: (?:and )?{_BELOW_100})?|{_BELOW_100})\b"
_NUMBER = re.compile(rf"(?P<figures>{_FIGURES})|(?P<words>{_WORDS})", re.IGNORECASE)


def numbers(text: str) -> list[float]:
    """Numbers in reading order, from figures (commas separate thousands) and from words up to nine
    hundred and ninety-nine.

    "one" alone is left out: it is a pronoun ("each one") more often than a number.
    """
    found = []
    for match in _NUMBER.finditer(text):
        if match["figures"]:
            found.append(float(match["figures"].replace(",", "").replace("\u2212", "-")))
        elif match["words"].casefold() != "one":
            found.append(float(_value(match["words"].casefold())))
    return found


def _value(words: str) -> int:
    hundreds, _, rest = words.rpartition("hundred")
    value = 100 * (_VALUES.get(hundreds.strip(), 1)) if hundreds.strip() else 0
    return value + sum(_VALUES[word] for word in re.findall(r"[a-z]+", rest) if word != "and")
