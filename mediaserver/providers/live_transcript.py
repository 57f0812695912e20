"""What a recogniser that listens has said of the audio that it was sent. Sans-IO.

The messages are those of Deepgram's live transcription (https://developers.deepgram.com/reference/speech-to-text/listen-streaming):
results for stretches of the audio, ``start`` and ``duration`` in seconds of audio sent, whatever time passes in between.
``Finalize`` asks for the words of all that was sent; it is mostly answered by a result with ``from_finalize``, but need not be
where little was left to say (https://developers.deepgram.com/docs/finalize), so that what the results cover counts as well.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import orjson

from mediaserver.providers.failures import AnswerMalformed, AnswerTooLarge

MAX_SEGMENTS = 256
"""Of one utterance, which is at most a minute."""
MAX_CHARACTERS = 10_000
MAX_QUESTIONS = 64
"""Unanswered; past it the oldest is taken to be answered by whatever comes."""
EXACT_MS = 20.0
"""Results are rounded."""
LITTLE_MS = 250.0
"""What a recogniser may leave unanswered at the end of what it has answered: less than a word."""
GRACE_MS = 600
"""After which little is not waited for any more."""


@dataclass(frozen=True, slots=True)
class Question:
    """That the words up to a point were asked for."""

    number: int
    position_ms: float
    asked_ms: int
    """On the caller's clock."""


@dataclass(frozen=True, slots=True)
class _Segment:
    begin_ms: float
    end_ms: float
    text: str


class LiveTranscript:
    """The words of one connection's present utterance."""

    def __init__(self) -> None:
        self._sent_ms = 0.0
        self._from_ms = 0.0
        """Where the utterance begins."""
        self._covered_ms = 0.0
        """Up to where results are final."""
        self._segments: list[_Segment] = []
        self._characters = 0
        self._asked = 0
        self._outstanding: deque[Question] = deque()

    def sent(self, lasts_ms: float) -> None:
        """So much more audio was sent."""
        self._sent_ms += lasts_ms

    def begin(self) -> None:
        """What is sent from here on is another utterance; words of what was before are of no interest."""
        self._from_ms = self._sent_ms
        self._segments.clear()
        self._characters = 0

    def ask(self, now_ms: int) -> Question:
        """``Finalize`` is being sent."""
        self._asked += 1
        question = Question(self._asked, self._sent_ms, now_ms)
        self._outstanding.append(question)
        if len(self._outstanding) > MAX_QUESTIONS:
            self._outstanding.popleft()
        return question

    def feed(self, message: str | bytes) -> None:
        """A message of the recogniser's.

        Raises:
            AnswerMalformed: it is none. AnswerTooLarge: an utterance of more words than anybody says.
        """
        try:
            told = orjson.loads(message)
        except orjson.JSONDecodeError:
            raise AnswerMalformed("no JSON") from None
        if not isinstance(told, dict):
            raise AnswerMalformed("no object")
        match told.get("type"):
            case "Results":
                self._result(told)
            case "Error":
                raise AnswerMalformed("an error in place of results")
            case str():
                pass  # Metadata and others that were not asked for.
            case _:
                raise AnswerMalformed("a message without a type")

    def words(self, question: Question, now_ms: int) -> str | None:
        """The utterance's words up to the question; None while they are not known."""
        missing_ms = question.position_ms - self._covered_ms
        spare = now_ms >= question.asked_ms + GRACE_MS and self._covered_ms > self._from_ms
        if missing_ms > (LITTLE_MS if spare else EXACT_MS):
            return None
        return " ".join(segment.text for segment in self._segments if segment.begin_ms < question.position_ms)

    def _result(self, told: dict[str, object]) -> None:
        if told.get("is_final") is not True:
            return
        begin_ms, lasts_ms = _ms(told, "start"), _ms(told, "duration")
        end_ms = begin_ms + lasts_ms
        # A recogniser cannot have heard what it was not sent: a wrong figure must not make later words final.
        end_ms = min(end_ms, self._sent_ms)
        if told.get("from_finalize") is True and self._outstanding:
            end_ms = max(end_ms, self._outstanding[0].position_ms)
        self._covered_ms = max(self._covered_ms, end_ms)
        while self._outstanding and self._outstanding[0].position_ms <= self._covered_ms + EXACT_MS:
            self._outstanding.popleft()
        text = _transcript(told)
        # By its middle: a result may reach over the end of an utterance whose words nobody asked for.
        if not text or (begin_ms + end_ms) / 2 < self._from_ms:
            return
        self._characters += len(text) + 1
        if len(self._segments) >= MAX_SEGMENTS or self._characters > MAX_CHARACTERS:
            raise AnswerTooLarge("a transcript past its limit")
        self._segments.append(_Segment(begin_ms, end_ms, text))


def _ms(told: dict[str, object], name: str) -> float:
    value = told.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AnswerMalformed(f"a result without {name}")
    if not math.isfinite(value) or value < 0:
        raise AnswerMalformed(f"a result whose {name} is no time")
    return 1000.0 * value


def _transcript(told: dict[str, object]) -> str:
    """The text of the best alternative."""
    channel = told.get("channel")
    alternatives = channel.get("alternatives") if isinstance(channel, dict) else None
    best = alternatives[0] if isinstance(alternatives, list) and alternatives else None
    text = best.get("transcript") if isinstance(best, dict) else None
    if not isinstance(text, str):
        raise AnswerMalformed("a result without a transcript")
    return text.strip()
