"""What the words themselves say about whether the caller has finished. English, as the transcription is.

Only words that leave no doubt shorten or lengthen the wait. Punctuation helps but is not believed alone: a recognizer puts
a full stop after anything, so that "my number is." is unfinished all the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Evidence(StrEnum):
    """How a transcript ends."""

    COMPLETE = "complete"
    DOUBT = "doubt"
    UNFINISHED = "unfinished"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NOISE = re.compile(r"\[[^\]]*\]|\([^()\d]*\)|<[^>]*>|\*[^*]*\*|[♪♫]+")
"""What recognizers write for sounds: ``[BLANK_AUDIO]``, ``(static)``."""
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")

_BACKCHANNELS = _set(
    "ah aha alright cool exactly fine gotcha great hm hmm huh mhm mhmm mm mmm nice oh ok okay ooh perfect really right "
    "sure uh uhhuh uhuh um umhum wow yeah yep yes yup"
)
"""Words that say "I am listening" while somebody else speaks. "no", "stop", "wait", "hello" and "sorry" are not among them."""
_BACKCHANNEL_PHRASES = frozenset(
    {"i see", "all right", "got it", "of course", "uh huh", "go on", "that's right"}
)
MAX_BACKCHANNEL_WORDS = 4

_OPEN_ENDS = _set(
    "a although an and as because but er erm i i'm if into it's my or our than the their uh uhm um until whether whose "
    "your"
)
"""No sentence ends in one of these: conjunctions, articles, possessives, and fillers for time."""
_MOSTLY_OPEN_ENDS = _set(
    "about are at by can could do does for from have how in is like of on so that to was were what when where which while "
    "who will with would you"
)
"""Few sentences do: where the recognizer heard an end all the same, there is doubt."""
_OPEN_PHRASES = (
    "let me see",
    "let me think",
    "hold on",
    "one moment",
    "one second",
    "just a moment",
    "just a second",
    "i mean",
    "you know",
    "i would like",
    "i'd like",
    "i want",
    "i need",
    "kind of",
    "sort of",
    "as well as",
)
_INTRODUCES = re.compile(r"\b(?:address|birthday|email|name|number|phone|problem|question) (?:is|was)$")
"""What is to be named comes next."""
_OPENINGS = frozenset(
    {"hello", "hi", "hey", "hi there", "hello there", "good morning", "good afternoon", "good evening"}
)
"""A greeting by itself is mostly the beginning of a sentence."""
_COMPLETE_BY_THEMSELVES = frozenset(
    {
        "yes",
        "no",
        "yeah",
        "yep",
        "nope",
        "yes please",
        "no thanks",
        "no thank you",
        "thank you",
        "thanks",
        "goodbye",
    }
    | {
        "bye",
        "bye bye",
        "that's all",
        "that is all",
        "that's it",
        "correct",
        "that's correct",
        "that's right",
        "sure",
    }
)
_QUESTION_STARTS = _set(
    "are can could did do does had has have how is may shall should was were what what's when when's where where's which who "
    "who's why will would"
)
_DIGIT_WORDS = _set("zero oh o one two three four five six seven eight nine double triple")
MIN_DICTATED_DIGITS = 3
SHORT_NUMBER_DIGITS = 7
"""A local telephone number; with fewer digits dictated, more are expected."""
FULL_NUMBER_DIGITS = 10
MIN_UNPUNCTUATED_QUESTION_WORDS = 4


def words_of(text: str) -> list[str]:
    """The spoken words, in lower case, without what stands for sounds."""
    return [word.replace("\u2019", "'") for word in _WORD.findall(_NOISE.sub(" ", text).lower())]


def is_backchannel(text: str) -> bool:
    """Whether words spoken over the receptionist ask for nothing: a listener's noises, or no words at all."""
    words = words_of(text.replace("-", " "))
    if not words:
        return True
    if len(words) > MAX_BACKCHANNEL_WORDS or text.rstrip().endswith("?"):
        return False
    while words:
        if " ".join(words[:2]) in _BACKCHANNEL_PHRASES:
            words = words[2:]
        elif words[0] in _BACKCHANNELS:
            words = words[1:]
        else:
            return False
    return True


def _dictated_digits(words: list[str]) -> int:
    """Digits at the end, spoken one by one or in groups."""
    count = 0
    for word in reversed(words):
        if word.isdigit():
            count += len(word)
        elif word in _DIGIT_WORDS:
            count += 1
        else:
            break
    return count


@dataclass(frozen=True, slots=True)
class _Turn:
    words: list[str]
    phrase: str
    """The words, joined."""
    mark: str
    """How it is punctuated at the end, with what stands before it."""

    @property
    def is_asked(self) -> bool:
        return self.mark.endswith("?")

    @property
    def ends(self) -> bool:
        return self.mark.endswith(("?", ".", "!"))

    @property
    def asks(self) -> bool:
        """Whether it has the form of a question."""
        return self.words[0] in _QUESTION_STARTS and len(self.words) >= MIN_UNPUNCTUATED_QUESTION_WORDS


def judge(text: str) -> Evidence:
    """Tell from the words of a turn whether the caller has finished."""
    words = words_of(text)
    if not words:
        return Evidence.DOUBT
    mark = _NOISE.sub(" ", text).rstrip().rstrip("\"'\u2019\u201d)")
    turn = _Turn(words, " ".join(words), mark)
    rulings = (rule(turn) for rule in (_by_number, _by_itself, _by_last_words))
    return next((ruling for ruling in rulings if ruling is not None), _by_form(turn))


def _by_number(turn: _Turn) -> Evidence | None:
    digits = _dictated_digits(turn.words)
    if digits < MIN_DICTATED_DIGITS:
        return None
    if digits < SHORT_NUMBER_DIGITS:
        return Evidence.UNFINISHED
    return Evidence.COMPLETE if digits >= FULL_NUMBER_DIGITS else Evidence.DOUBT


def _by_itself(turn: _Turn) -> Evidence | None:
    if turn.phrase in _COMPLETE_BY_THEMSELVES:
        return Evidence.COMPLETE
    return Evidence.DOUBT if turn.phrase in _OPENINGS else None


def _by_last_words(turn: _Turn) -> Evidence | None:
    last = turn.words[-1]
    if turn.mark.endswith((",", ":", ";", "-", "\u2013", "\u2014", "...", "\u2026")):
        return Evidence.UNFINISHED
    if last in _OPEN_ENDS or turn.phrase.endswith(_OPEN_PHRASES):
        return Evidence.DOUBT if turn.is_asked else Evidence.UNFINISHED
    if last in _MOSTLY_OPEN_ENDS and not turn.is_asked:
        ends = turn.ends and not _INTRODUCES.search(turn.phrase)
        return Evidence.DOUBT if ends or turn.asks else Evidence.UNFINISHED
    return None


def _by_form(turn: _Turn) -> Evidence:
    if turn.ends:
        return Evidence.COMPLETE if len(turn.words) > 1 or turn.is_asked else Evidence.DOUBT
    return Evidence.COMPLETE if turn.asks else Evidence.DOUBT
