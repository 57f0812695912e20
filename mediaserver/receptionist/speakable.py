"""Written text made ready for a voice: times, prices, telephone and house numbers in words."""

from __future__ import annotations

import re
from datetime import time

from mediaserver.receptionist.numbers import MAX_DIGITS, MIN_DIGITS, cardinal, speak_digits, speak_number

MAX_WORDS = 30
"""An answer of this length is about ten seconds of speech; callers interrupt longer ones."""

_CURRENCY = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny")}
_CODES = {"usd": "$", "eur": "€", "gbp": "£", "dollars": "$", "euros": "€", "pounds": "£"}
_AMOUNT = r"(\d{1,3}(?:,\d{3})+|\d{1,7})(?:[.,](\d{2}))?(?!\d)"
_PRICE = re.compile(rf"([$€£])\s?{_AMOUNT}")
_PRICE_CODE = re.compile(
    rf"(?<![\d.,]){_AMOUNT}\s?(€|£|usd\b|eur\b|gbp\b|dollars\b|euros\b|pounds\b)", re.IGNORECASE
)
_CLOCK_12 = re.compile(r"\b(1[0-2]|0?[1-9])(?::([0-5]\d))?\s?([ap])\.?\s?m\b\.?", re.IGNORECASE)
_CLOCK_24 = re.compile(r"\b([01]?\d|2[0-3]):([0-5]\d)\b")
_PHONE = re.compile(r"(?<![\w$€£])\+?\(?\d[\d\s().\-]{5,22}\d\b")
_SHORT_CODE = re.compile(r"(?<![\w$€£.,-])(911|112|999|988|111|311)(?![\w-])")
_RANGE = re.compile(r"(?<=\w)\s?[\u2013\u2014-]\s?(?=[$€£]?\d)")
_POSTCODE = re.compile(r"\b(?:([A-Z]{2}) )?(\d{5})(?:-\d{4})?\b")
_HOUSE = re.compile(r"(?<![\d-])(\d{3,4})(?= [A-Z])")
_ABBREVIATIONS = (
    (re.compile(r"\bSt\.?(?=,|$| Suite| Floor)"), "Street"),
    (re.compile(r"\bAve\b\.?"), "Avenue"),
    (re.compile(r"\bRd\b\.?"), "Road"),
    (re.compile(r"\bBlvd\b\.?"), "Boulevard"),
    (re.compile(r"\bSte\b\.?"), "Suite"),
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'A-Z0-9])")
_TITLE = re.compile(r"\b(Dr|Mr|Mrs|Ms|St|No|Ave|Rd|Ste)\.$")


def speak_time(at: time) -> str:
    """A time of day: "eight a.m.", "five thirty p.m.", "noon"."""
    if (at.hour, at.minute) == (12, 0):
        return "noon"
    if (at.hour, at.minute) in ((0, 0), (23, 59)):
        return "midnight"
    hour = cardinal((at.hour - 1) % 12 + 1)
    half = "a.m." if at.hour < 12 else "p.m."
    if at.minute == 0:
        return f"{hour} {half}"
    minute = cardinal(at.minute) if at.minute >= 10 else f"oh {cardinal(at.minute)}"
    return f"{hour} {minute} {half}"


def speak_amount(sign: str, whole: str, fraction: str | None) -> str:
    """An amount of money in words."""
    unit, part = _CURRENCY[sign]
    value = int(whole.replace(",", ""))
    spoken = f"{cardinal(value)} {unit}" + ("" if value == 1 else "s")
    if fraction and fraction != "00":
        pennies = int(fraction)
        parts = part if pennies == 1 else ("pence" if part == "penny" else f"{part}s")
        spoken += f" and {cardinal(pennies)} {parts}"
    return spoken


def speakable(text: str) -> str:
    """A tenant's own text with everything in words that a voice would stumble over."""
    text = " ".join(text.split())
    if any(character.isdigit() for character in text):
        text = _RANGE.sub(lambda m: " to " if _is_range(text, m) else m.group(), text)
        text = _PRICE.sub(lambda m: speak_amount(m[1], m[2], m[3]), text)
        text = _PRICE_CODE.sub(lambda m: speak_amount(_CODES.get(m[3].lower(), m[3]), m[1], m[2]), text)
        text = _CLOCK_12.sub(_twelve_hours, text)
        text = _CLOCK_24.sub(lambda m: speak_time(time(int(m[1]), int(m[2]))), text)
        text = _PHONE.sub(_phone, text)
        text = _SHORT_CODE.sub(lambda m: speak_digits(m[1]), text)
        text = text.replace("24/7", "around the clock")
        text = re.sub(r"(?<=[a-z]) ?/ ?(?=(?:hour|visit|person|month|year|day)\b)", " per ", text)
    text = re.sub(r"\bDr\.", "Doctor", text)
    return text.replace(" & ", " and ")


def speak_address(text: str) -> str:
    """An address: house numbers in pairs, post codes digit by digit, street words in full."""
    text = " ".join(text.split())
    for pattern, replacement in _ABBREVIATIONS:
        text = pattern.sub(replacement, text)
    text = _POSTCODE.sub(lambda m: (" ".join(m[1]) + " " if m[1] else "") + speak_digits(m[2]), text)
    text = _HOUSE.sub(_house_number, text)
    return speakable(text).rstrip(".")


def shorten(text: str, words: int = MAX_WORDS) -> str:
    """Whole sentences up to a number of words; the first is kept however long it is."""
    kept: list[str] = []
    for sentence in sentences(text):
        if kept and len(" ".join((*kept, sentence)).split()) > words:
            break
        kept.append(sentence)
    return as_sentence(" ".join(kept))


def sentences(text: str) -> list[str]:
    """The sentences of a text; "Dr. Patel" is not the end of one."""
    parts: list[str] = []
    for part in _SENTENCE_END.split(text.strip()):
        if parts and _TITLE.search(parts[-1]):
            parts[-1] += f" {part}"
        else:
            parts.append(part)
    return [part for part in parts if part]


def as_sentence(text: str) -> str:
    """With a full stop if it has no end."""
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def join_words(items: list[str], last: str = "and") -> str:
    """``a, b and c``."""
    if len(items) <= 1:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def _is_range(text: str, match: re.Match[str]) -> bool:
    """A hyphen between two prices or two clock times, not one inside a telephone number or a house number."""
    left = text[: match.start()].rpartition(" ")[2]
    right = text[match.end() :].partition(" ")[0]
    return ("$€£".find(left[:1]) >= 0 and left != "") or bool(
        re.search(r"m$|:\d\d$", left) and right[:1].isdigit()
    )


def _twelve_hours(match: re.Match[str]) -> str:
    hour = int(match[1]) % 12 + (12 if match[3].lower() == "p" else 0)
    return speak_time(time(hour, int(match[2] or 0)))


def _phone(match: re.Match[str]) -> str:
    digits = sum(character.isdigit() for character in match.group())
    return speak_number(match.group()) if MIN_DIGITS <= digits <= MAX_DIGITS else match.group()


def _house_number(match: re.Match[str]) -> str:
    digits = match[1]
    head, tail = digits[:-2], digits[-2:]
    if tail == "00":
        return cardinal(int(digits)) if digits[-3] == "0" else f"{cardinal(int(head))} hundred"
    return f"{cardinal(int(head))} {f'oh {cardinal(int(tail))}' if tail[0] == '0' else cardinal(int(tail))}"
