"""Words as a telephone transcript delivers them: normalised, repaired, stemmed, compared with tolerance."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from difflib import SequenceMatcher
from functools import lru_cache

MAX_HEARD_CHARS = 1_000
"""Longer utterances are cut: nobody says more in one turn, and matching must stay cheap."""
FUZZY_MIN_LETTERS = 5
FUZZY_RATIO = 0.83
"""Keeps ``house`` (0.80) from ``hours`` and takes ``massage`` (0.86) for ``message``."""

_NOISE = re.compile(r"\[[^\]]*\]|\([^()\d]*\)|<[^>]*>|\*[^*]*\*|[♪♫]+")
"""What speech recognition writes for sounds: ``[BLANK_AUDIO]``, ``(static)``. ``(555)`` is an area code."""
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")

_CONTRACTIONS = (
    (re.compile(r"\bcan't\b"), "can not"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'m\b"), " am"),
    (re.compile(r"'d\b"), " would"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"\b(what|who|where|when|how|that|it|there|here|name|he|she)'?s\b"), r"\1 is"),
    (re.compile(r"\b(whats)\b"), "what is"),
    (re.compile(r"'s\b"), "s"),
)

_HOMOPHONES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"\b(?:{heard})\b"), said)
    for heard, said in (
        (
            r"(?:your|you are|the|opening|business|office|working|regular) (?:ours|our|hour|ower|owers)",
            "your hours",
        ),
        (r"what our (?=your|the|you)", "what are "),
        (r"hours of opperation", "hours of operation"),
        (r"wear (?=are|is|do)", "where "),
        (r"ware (?=are|is)", "where "),
        (r"you (?:clothes|clothe|clothing|cloves)", "you close"),
        (r"(?:your|you are|you|the|a|what is) (?:a )?dress", "your address"),
        (r"(?:ad|at) dress", "address"),
        (r"(?:week|weak) (?=ends?\b)", "week"),
        (r"weak ?(?=ends?)", "week"),
        (r"(?:fry|fried) day", "friday"),
        (r"(?:sat or|satur|sadder) day", "saturday"),
        (r"(?:sun|son) day", "sunday"),
        (r"mon day", "monday"),
        (r"(?:tues|twos|choose) day", "tuesday"),
        (r"(?:wens|wednes|wins) day", "wednesday"),
        (r"(?:thurs|thirst|thirsty) ?day", "thursday"),
        (r"(?:to|two|too) morrow", "tomorrow"),
        (r"(?:two|too|to) day", "today"),
        (r"sir ?vices", "services"),
        (r"(?:a|an) ?point ?m(?:ent|int)s?", "an appointment"),
        (r"an?point ?ment", "appointment"),
        (r"(?:the|your|what) prize(?:s)?", "the price"),
        (r"how (?:match|mush|muck)", "how much"),
        (r"(?:leaf|leave|live|leaving) (?:a|the) (?:massage|message|mess age)", "leave a message"),
        (r"good by", "goodbye"),
        (r"buy buy|by by|bye by", "bye bye"),
        (r"know (?=the|my|it|that|thank|thanks)", "no "),
        (r"right a message", "write a message"),
        (r"real purse on", "real person"),
        (r"hue man|humane", "human"),
        (r"call me bag", "call me back"),
        (r"never mine", "never mind"),
    )
)


def word_list(text: str) -> tuple[str, ...]:
    """Split a vocabulary that is written as running text."""
    return tuple(text.split())


STOP_WORDS = frozenset(
    word_list(
        "a about again all also am an and any anybody anyone are as at be been but by can could did do "
        "does for from get give go going got had has have having he hello her here hey hi him his how i if "
        "in into is it its just know let like maybe me might mine much my no not now of off oh ok okay on "
        "one or our out please question quick really right say she should so some something sort tell than "
        "thank thanks that the their them then there these they thing this those to too uh um up us very "
        "want was we well were what when where which who why will wish with wonder would yes you your yours"
    )
)
FILLERS = frozenset(word_list("uh um er erm hmm mm mhm ah oh eh well so like okay ok huh you the a"))

_IRREGULAR = {"children": "child", "teeth": "tooth", "feet": "foot"}
_SUFFIXES = ("ations", "ation", "ings", "ments", "ment", "ing", "ies", "ers", "es", "ed", "er", "ly", "s")


def heard_text(heard: str) -> str:
    """The utterance without control characters and noise marks, cut to `MAX_HEARD_CHARS`."""
    text = unicodedata.normalize("NFKC", heard[:MAX_HEARD_CHARS])[:MAX_HEARD_CHARS]
    text = text.replace("\u2019", "'").replace("\u2018", "'")
    text = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    return " ".join(_NOISE.sub(" ", text).split())


def raw_words(text: str) -> list[str]:
    """The words with their case, for names."""
    return _WORD.findall(text)


def normalise(heard: str) -> str:
    """Lower-case words with single spaces: contractions expanded, common mishearings repaired."""
    text = heard_text(heard).lower()
    for pattern, replacement in _CONTRACTIONS:
        text = pattern.sub(replacement, text)
    text = " ".join(re.findall(r"[^\W_]+", text))
    for pattern, replacement in _HOMOPHONES:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


@lru_cache(maxsize=8_192)
def stem(word: str) -> str:
    """Strip suffixes lightly: enough to bring ``prices`` and ``pricing`` together."""
    word = _IRREGULAR.get(word, word)
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= (4 if suffix == "er" else 3):
            word = word[: -len(suffix)] + ("y" if suffix == "ies" else "")
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeioul":
        word = word[:-1]
    if len(word) > 3 and word[-1] in "ey":
        word = word[:-1]
    return word


def content_stems(text: str) -> tuple[str, ...]:
    """The stems that carry meaning, in order."""
    return tuple(stem(word) for word in text.split() if word not in STOP_WORDS)


@lru_cache(maxsize=32_768)
def similar(left: str, right: str) -> bool:
    """Whether two words are the same but for a transcription error."""
    if left == right:
        return True
    if min(len(left), len(right)) < FUZZY_MIN_LETTERS or abs(len(left) - len(right)) > 3:
        return False
    if left[0] != right[0]:
        return False
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    return matcher.quick_ratio() >= FUZZY_RATIO and matcher.ratio() >= FUZZY_RATIO


def snap(text: str, vocabulary: Sequence[str], own: Collection[str]) -> str:
    """Replace misspelt words by the vocabulary word that they resemble; ``own`` words are left alone."""
    known = frozenset(vocabulary)
    words = []
    for word in text.split():
        replacement = word
        if len(word) >= FUZZY_MIN_LETTERS and word not in known and word not in own:
            replacement = next((candidate for candidate in vocabulary if similar(word, candidate)), word)
        words.append(replacement)
    return " ".join(words)
