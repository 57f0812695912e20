"""Numbers between digits and speech: telephone numbers as callers say them and as a voice should."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from mediaserver.receptionist.words import word_list

MIN_DIGITS = 7
MAX_DIGITS = 15
"""A telephone number without an area code, and the longest of ITU-T E.164."""

_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = word_list("twenty thirty forty fifty sixty seventy eighty ninety")

_VALUE = {word: value for value, word in enumerate(_UNITS)}
_VALUE |= {"oh": 0, "o": 0, "nought": 0, "naught": 0, "nil": 0, "niner": 9, "fife": 5}
_TENS_VALUE = {word: 20 + 10 * index for index, word in enumerate(_TENS)} | {"fourty": 40}
_HOMOPHONE = {"to": 2, "too": 2, "for": 4, "fore": 4, "ate": 8, "won": 1, "tree": 3, "sicks": 6, "sex": 6}
_ZEROS = {"hundred": "00", "thousand": "000"}
_REPEAT = {"double": 2, "triple": 3, "treble": 3}
_FILLERS = frozenset(
    {"uh", "um", "er", "and", "dash", "hyphen", "dot", "then", "area", "code", "is", "space", "so"}
)
_DIGITS = "0123456789"
_TOKEN = re.compile(r"\+|[^\W\d_]+|[0-9]+")


@dataclass(frozen=True, slots=True)
class SpokenDigits:
    """A run of digits that a caller said, and whether it began with a plus."""

    digits: str
    plus: bool = False

    @property
    def number(self) -> str:
        """As a message carries it."""
        return ("+" if self.plus else "") + self.digits


def find_digits(text: str) -> SpokenDigits:
    """Find the longest run of digits in an utterance, whatever form they were said in."""
    tokens = _TOKEN.findall(text.lower())
    best = SpokenDigits("")
    digits, plus = "", False
    index = 0
    while index < len(tokens):
        token = tokens[index]
        said, used = _numeric(tokens, index, digits)
        if said:
            digits += said
            index += used
            continue
        if token in ("+", "plus"):
            if not digits:
                plus = True
        elif token not in _FILLERS:
            best = max(best, SpokenDigits(digits, plus), key=lambda run: len(run.digits))
            digits, plus = "", False
        index += 1
    return max(best, SpokenDigits(digits, plus), key=lambda run: len(run.digits))


def _numeric(tokens: list[str], index: int, before: str) -> tuple[str, int]:
    """The digits that the tokens from ``index`` say, and how many tokens said them."""
    token = tokens[index]
    following = tokens[index + 1] if index + 1 < len(tokens) else ""
    single = _single(following)
    said, used = "", 1
    if _is_written(token):
        said = token
    elif token in _REPEAT and single:
        said, used = single * _REPEAT[token], 2
    elif token in _TENS_VALUE:
        joined = single not in ("", "0")
        said, used = str(_TENS_VALUE[token] + int(single if joined else 0)), 2 if joined else 1
    elif token in _VALUE:
        zeros = _ZEROS.get(following, "") if _VALUE[token] < 10 else ""
        said, used = str(_VALUE[token]) + zeros, 2 if zeros else 1
    elif token in _HOMOPHONE and before:
        # "five to for five" is digits; "555 0123 for the office" is not.
        complete = not following and len(before) + 1 in (7, 10, 11)
        said = str(_HOMOPHONE[token]) if complete or _starts_number(following) else ""
    return said, used


def _single(token: str) -> str:
    if len(token) == 1 and _is_written(token):
        return token
    value = _VALUE.get(token, 10)
    return str(value) if value < 10 else ""


def _starts_number(token: str) -> bool:
    return _is_written(token) or any(token in words for words in (_VALUE, _TENS_VALUE, _REPEAT, _HOMOPHONE))


def _is_written(token: str) -> bool:
    """ASCII digits only: `str.isdigit` would also take superscripts."""
    return token[:1] in _DIGITS and token != ""


def speak_digits(digits: str) -> str:
    """Digit by digit: ``0123`` as "oh one two three"."""
    return " ".join("oh" if digit == "0" else _UNITS[int(digit)] for digit in digits)


def speak_number(number: str) -> str:
    """Speak a telephone number in groups. North American ones lose their ``+1``: callers there do not say it."""
    plus = number.startswith("+")
    digits = "".join(character for character in number if character in _DIGITS)
    if plus and digits.startswith("1") and len(digits) in (8, 11):
        plus, digits = False, digits[1:]
    spoken = ", ".join(speak_digits(group) for group in _groups(digits))
    return f"plus {spoken}" if plus else spoken


def _groups(digits: str) -> list[str]:
    match len(digits):
        case 7:
            cuts = [3]
        case 10:
            cuts = [3, 6]
        case 11:
            cuts = [1, 4, 7] if digits.startswith("1") else [4, 7]
        case length:
            cuts = list(range(3, max(length - 1, 3), 3))
    edges = [0, *(cut for cut in cuts if cut < len(digits)), len(digits)]
    return [digits[start:end] for start, end in pairwise(edges) if start < end]


def cardinal(value: int) -> str:
    """A whole number in words, up to a million (larger ones stay digits)."""
    if value < 20:
        return _UNITS[value]
    if value < 100:
        tens = _TENS[value // 10 - 2]
        return tens if value % 10 == 0 else f"{tens}-{_UNITS[value % 10]}"
    if value < 1_000:
        hundreds = f"{_UNITS[value // 100]} hundred"
        return hundreds if value % 100 == 0 else f"{hundreds} {cardinal(value % 100)}"
    if value < 1_000_000:
        thousands = f"{cardinal(value // 1_000)} thousand"
        return thousands if value % 1_000 == 0 else f"{thousands} {cardinal(value % 1_000)}"
    return str(value)
