"""The words of a recogniser that listens, from its messages: whole, in order, of this utterance alone, and final."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.providers.failures import AnswerMalformed, AnswerTooLarge
from mediaserver.providers.live_transcript import (
    GRACE_MS,
    LITTLE_MS,
    MAX_QUESTIONS,
    MAX_SEGMENTS,
    LiveTranscript,
)

NOW_MS = 5_000


def result(
    begin_ms: float, lasts_ms: float, text: str, *, final: bool = True, asked: bool | None = None
) -> bytes:
    document: dict[str, object] = {
        "type": "Results",
        "channel_index": [0, 1],
        "start": begin_ms / 1000,
        "duration": lasts_ms / 1000,
        "is_final": final,
        "channel": {"alternatives": [{"transcript": text, "confidence": 0.9, "words": []}]},
    }
    if asked is not None:
        document["from_finalize"] = asked
    return orjson.dumps(document)


def test_the_words_are_known_when_everything_up_to_the_question_is_final() -> None:
    transcript = LiveTranscript()
    transcript.sent(2_000)
    question = transcript.ask(NOW_MS)
    assert transcript.words(question, NOW_MS) is None
    transcript.feed(result(0, 1_200, "When are"))
    assert transcript.words(question, NOW_MS) is None
    transcript.feed(result(1_200, 800, "you open?", asked=True))
    assert transcript.words(question, NOW_MS) == "When are you open?"


def test_interim_results_are_not_words() -> None:
    transcript = LiveTranscript()
    transcript.sent(1_000)
    question = transcript.ask(NOW_MS)
    transcript.feed(result(0, 1_000, "When our", final=False))
    assert transcript.words(question, NOW_MS) is None


def test_a_result_of_the_finalize_counts_for_all_that_was_sent_before_it() -> None:
    transcript = LiveTranscript()
    transcript.sent(1_000)
    question = transcript.ask(NOW_MS)
    # Its figures leave out the silence at the end.
    transcript.feed(result(0, 700, "Hello.", asked=True))
    assert transcript.words(question, NOW_MS) == "Hello."


def test_what_is_little_is_waited_for_a_moment_only() -> None:
    transcript = LiveTranscript()
    transcript.sent(1_000 + LITTLE_MS)
    question = transcript.ask(NOW_MS)
    transcript.feed(result(0, 1_000, "Hello."))
    assert transcript.words(question, NOW_MS + GRACE_MS - 1) is None
    assert transcript.words(question, NOW_MS + GRACE_MS) == "Hello."


def test_an_utterance_of_which_nothing_was_answered_is_waited_for_however_short() -> None:
    transcript = LiveTranscript()
    transcript.sent(1_000)
    transcript.feed(result(0, 1_000, "Before."))
    transcript.begin()
    transcript.sent(LITTLE_MS)
    assert transcript.words(transcript.ask(NOW_MS), NOW_MS + 100 * GRACE_MS) is None


def test_what_is_much_is_waited_for() -> None:
    transcript = LiveTranscript()
    transcript.sent(1_001 + LITTLE_MS)
    question = transcript.ask(NOW_MS)
    transcript.feed(result(0, 1_000, "Hello."))
    assert transcript.words(question, NOW_MS + 100 * GRACE_MS) is None


def test_another_utterance_begins_without_words_and_takes_none_that_come_late() -> None:
    transcript = LiveTranscript()
    transcript.sent(1_000)
    transcript.ask(NOW_MS)
    transcript.begin()
    transcript.sent(500)
    question = transcript.ask(NOW_MS)
    transcript.feed(result(0, 1_000, "Late.", asked=True))
    transcript.feed(result(1_000, 500, "Yes.", asked=True))
    assert transcript.words(question, NOW_MS) == "Yes."


def test_an_earlier_question_has_the_words_before_it_alone() -> None:
    transcript = LiveTranscript()
    transcript.sent(1_000)
    earlier = transcript.ask(NOW_MS)
    transcript.sent(1_000)
    later = transcript.ask(NOW_MS)
    transcript.feed(result(0, 1_000, "My number", asked=True))
    transcript.feed(result(1_000, 1_000, "is five.", asked=True))
    assert transcript.words(earlier, NOW_MS) == "My number"
    assert transcript.words(later, NOW_MS) == "My number is five."


def test_a_result_cannot_cover_what_was_not_sent() -> None:
    transcript = LiveTranscript()
    transcript.sent(1_000)
    transcript.feed(result(0, 3_600_000, "Hello."))
    transcript.sent(1_000)
    assert transcript.words(transcript.ask(NOW_MS), NOW_MS) is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"type": 7}',
        b'{"type": "Error", "description": "key sk-1 is wrong"}',
        b'{"type": "Results", "is_final": true}',
        b'{"type": "Results", "is_final": true, "start": "0", "duration": 1}',
        b'{"type": "Results", "is_final": true, "start": true, "duration": 1}',
        b'{"type": "Results", "is_final": true, "start": -1, "duration": 1}',
        b'{"type": "Results", "is_final": true, "start": 0, "duration": 1, "channel": []}',
        b'{"type": "Results", "is_final": true, "start": 0, "duration": 1, "channel": {"alternatives": []}}',
    ],
)
def test_a_message_that_is_none_is_named_without_its_text(message: bytes) -> None:
    with pytest.raises(AnswerMalformed) as refused:
        LiveTranscript().feed(message)
    assert "sk-1" not in str(refused.value)


def test_messages_that_were_not_asked_for_are_passed_over() -> None:
    transcript = LiveTranscript()
    transcript.feed(b'{"type": "Metadata", "request_id": "1"}')
    transcript.feed(b'{"type": "UtteranceEnd", "last_word_end": 1.0}')
    assert transcript.words(transcript.ask(NOW_MS), NOW_MS) == ""


def test_an_utterance_has_a_limit() -> None:
    transcript = LiveTranscript()
    transcript.sent(10_000)
    for _ in range(MAX_SEGMENTS):
        transcript.feed(result(0, 10, "and"))
    with pytest.raises(AnswerTooLarge):
        transcript.feed(result(0, 10, "and"))
    long = LiveTranscript()
    long.sent(1_000)
    with pytest.raises(AnswerTooLarge):
        long.feed(result(0, 1_000, "a" * 20_000))


def test_questions_that_nobody_answers_do_not_pile_up() -> None:
    transcript = LiveTranscript()
    for _ in range(10 * MAX_QUESTIONS):
        transcript.sent(100)
        transcript.ask(NOW_MS)
    assert len(transcript._outstanding) <= MAX_QUESTIONS


@given(
    st.lists(
        st.lists(st.tuples(st.integers(100, 3_000), st.booleans()), min_size=1, max_size=6),
        min_size=1,
        max_size=5,
    ),
    st.data(),
)
def test_each_utterance_has_its_own_words_in_order(
    utterances: list[list[tuple[int, bool]]], data: st.DataObject
) -> None:
    """However the recogniser cuts what it was sent into results, and however late they come."""
    transcript = LiveTranscript()
    at_ms, word, late = 0, 0, list[bytes]()
    for stretches in utterances:
        transcript.begin()
        said: list[str] = []
        for lasts_ms, marked in stretches:
            transcript.sent(lasts_ms)
            question = transcript.ask(NOW_MS)
            cut_ms = data.draw(st.integers(0, lasts_ms))
            for part_ms, begin_ms in ((cut_ms, at_ms), (lasts_ms - cut_ms, at_ms + cut_ms)):
                if part_ms:
                    word += 1
                    said.append(f"w{word}")
                    late.append(result(begin_ms, part_ms, f"w{word}", asked=None))
            if marked:
                late.append(result(at_ms + lasts_ms, 0, "", asked=True))
            at_ms += lasts_ms
            for message in late:
                transcript.feed(message)
            late = []
            assert transcript.words(question, NOW_MS) == " ".join(said)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_message_is_taken_or_refused_by_name(message: bytes) -> None:
    with contextlib.suppress(AnswerMalformed, AnswerTooLarge):
        LiveTranscript().feed(message)
