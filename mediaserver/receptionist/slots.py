"""Names, numbers and reasons read out of a caller's words."""

from __future__ import annotations

import re

from mediaserver.receptionist.numbers import find_digits
from mediaserver.receptionist.words import FILLERS, STOP_WORDS, heard_text, normalise, raw_words, word_list

MAX_NAME_WORDS = 4
MAX_REASON_CHARS = 300

_NAME_MARK = re.compile(
    r"\b(?:my (?:full |last |first )?name(?: is|'s)|the name(?: is|'s)|name is|name's|this is|"
    r"you can call me|call me|"
    r"it's|it is|i'm|i am|that's)(?: actually)?[\s,:]+",
    re.IGNORECASE,
)
_NAME_MARK_STRICT = re.compile(
    r"\b(?:my (?:full |last |first )?name(?: is|'s)|the name(?: is|'s)|name is|name's|"
    r"name should be)(?: actually)?[\s,:]+",
    re.IGNORECASE,
)
_NAME_CORRECTION = re.compile(
    r"^(?:oh |sorry |wait )*(?:no|nope|actually)\b[\s,.]*(?:actually[\s,]+)?(?:it's|it is|i'm|i am|"
    r"this is)[\s,]+",
    re.IGNORECASE,
)
_NAME_MARK_OPENING = re.compile(
    r"\b(?:my (?:full )?name(?: is|'s)|the name(?: is|'s)|name's|this is)[\s,:]+", re.IGNORECASE
)
_LEAD = frozenset(
    word_list(
        "yes yeah yep sure okay ok uh um er ah oh well so hi hello hey please certainly absolutely of "
        "course it it's is "
        "just good morning afternoon evening alright right no"
    )
)
_NOT_NAMES = (STOP_WORDS - {"will", "may"}) | frozenset(
    word_list(
        "sure calling looking trying having wondering interested sorry going new number phone speaking "
        "regarding because "
        "thanks thank bye goodbye yeah yep nope hold wait moment message appointment caller patient customer "
        "wrong correct "
        "hello nothing nobody late sick asking open closed house name never cancel stop repeat robot human "
        "reason address "
        "hours price service urgent emergency problem"
    )
)
_SPELLED = re.compile(r"(?:\b[A-Za-z]\b[\s.,-]*){3,}")

_REASON_MARK = re.compile(
    r"\b(?:(?:it's|it is|this is|i'm calling|i am calling|calling|message|call|question|just|reason is|"
    r"is)\s+)?"
    r"(?:about|regarding|concerning|in regards? to|with regards? to)\s+",
    re.IGNORECASE,
)
_REASON_LEAD = re.compile(
    r"^(?:(?:yes|yeah|sure|ok|okay|well|um|uh|er|so|oh|no|just|please|and|the reason is|"
    r"the reason is that|it's|it is|"
    r"it's that|tell (?:him|her|them|the \w+)(?: that)?|because|that|is that|say that|for|"
    r"i'm calling because|"
    r"i am calling because|actually)\b[\s,:.]*)+",
    re.IGNORECASE,
)
_NUMBER_TAIL = re.compile(
    r"[,.]?\s*\b(?:and )?(?:my|the) (?:phone )?number (?:is|would be)\b.*$", re.IGNORECASE
)
_BOOKING = re.compile(
    r"\b(?:appointments?|reservations?|bookings?|fit me in|see me|squeeze me in|come in)\b[\s,]*(.*)$", re.I
)
_BOOKING_DETAIL = re.compile(r"^(?:for|on|with|next|this|tomorrow|today|to|about|at)\b.*", re.IGNORECASE)
_WEEKDAY = re.compile(r"\b(mon|tues|wednes|thurs|fri|satur|sun)(days?)\b")
_CHANGES = {
    "cancel": "cancelling",
    "reschedule": "rescheduling",
    "move": "moving",
    "change": "changing",
    "confirm": "confirming",
    "late": "running late for",
}


def read_name(heard: str) -> str:
    """The name in an answer to "what's your name?"; empty when there is none."""
    text = heard_text(heard)
    marked = _NAME_MARK_STRICT.search(text) or _NAME_MARK.search(text)
    if marked:
        return _clean_name(text[marked.end() :])
    words = raw_words(text)
    while words and words[0].lower() in _LEAD:
        words.pop(0)
    if len(words) > MAX_NAME_WORDS + 2 and not _SPELLED.search(text):
        return ""
    return _clean_name(" ".join(words))


def marked_name(heard: str, *, opening: bool = False) -> str:
    """A name that the caller announced as one ("my name is"), or put right ("no, it's")."""
    text = heard_text(heard)
    marks = (_NAME_MARK_OPENING,) if opening else (_NAME_MARK_STRICT, _NAME_CORRECTION)
    for mark in marks:
        found = mark.search(text)
        name = _clean_name(text[found.end() :]) if found else ""
        if name:
            return name
    return ""


def _clean_name(text: str) -> str:
    spelled = _SPELLED.search(text)
    if spelled and not text[: spelled.start()].strip(" ,.-"):
        letters = "".join(re.findall(r"[A-Za-z]", spelled.group()))
        return letters.capitalize()
    if spelled:
        text = text[: spelled.start()]
    kept: list[str] = []
    for word in raw_words(text)[: MAX_NAME_WORDS + 1]:
        lower = word.lower()
        if (
            lower in _NOT_NAMES
            or lower.partition("'")[0] in ("i", "it", "that")
            or any(c.isdigit() for c in word)
        ):
            break
        if kept and kept[-1].lower() == lower:
            continue
        kept.append(word if word[1:] != word[1:].lower() and not word.isupper() else word.capitalize())
    return " ".join(kept[:MAX_NAME_WORDS])[:100]


def read_reason(heard: str) -> str:
    """What the call is about, without its lead-in; empty when nothing was said."""
    text = heard_text(heard)
    marked = _REASON_MARK.search(text)
    text = text[marked.end() :] if marked and marked.start() < 40 else _REASON_LEAD.sub("", text)
    return _clean_reason(text)


def marked_reason(heard: str) -> str:
    """A reason that the caller announced as one ("it's about")."""
    text = heard_text(heard)
    marked = _REASON_MARK.search(text)
    return _clean_reason(text[marked.end() :]) if marked else ""


def booking_reason(heard: str) -> str:
    """An appointment request as the reason of a message: "an appointment for a cleaning"."""
    text = heard_text(heard)
    found = _BOOKING.search(text) or _BOOKING.search(normalise(heard))
    if found is None:
        return read_reason(heard)
    detail = _BOOKING_DETAIL.match(found[1])
    words = normalise(text).split()
    change = next((spoken for verb, spoken in _CHANGES.items() if verb in words), "")
    reason = f"{change} an appointment".strip()
    return _clean_reason(f"{reason} {detail.group()}" if detail else reason)


def _clean_reason(text: str) -> str:
    text = _NUMBER_TAIL.sub("", text).strip(" \t.,!?;:-\"'")
    if len(text) > MAX_REASON_CHARS:
        text = text[:MAX_REASON_CHARS].rpartition(" ")[0] or text[:MAX_REASON_CHARS]
    text = _WEEKDAY.sub(lambda day: day[1].capitalize() + day[2], text)
    if all(word in FILLERS for word in normalise(text).split()):
        return ""
    first, _, rest = text.partition(" ")
    # A sentence's capital goes, a name's stays: only words of the language are lowered.
    return f"{first.lower()} {rest}".strip() if first.lower() in STOP_WORDS and first != "I" else text


def not_a_name(heard: str) -> bool:
    """Tell whether an utterance of unannounced words is too long to be a name."""
    return len(raw_words(heard_text(heard))) > 2 and _NAME_MARK.search(heard_text(heard)) is None


def has_digits(heard: str) -> int:
    """How many digits the longest number in an utterance has."""
    return len(find_digits(heard_text(heard)).digits)
