"""Invariants of the heard ledger: frames stay in step with speech, and the context is told no more than was heard."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.pipeline.heard import TYPICAL_MS_PER_CHARACTER, HeardLedger


@dataclass(frozen=True)
class Note:
    """A frame that must stay in step."""

    number: int


WORDS = st.lists(st.sampled_from(["we", "are", "open", "until", "five", "tomorrow"]), min_size=1, max_size=12)
SENTENCES = st.lists(st.tuples(WORDS, st.lists(st.integers(20, 2_000), min_size=1, max_size=4)), max_size=5)


def _filled(
    sentences: list[tuple[list[str], list[int]]],
) -> tuple[HeardLedger[Note], list[tuple[int, Note]], int]:
    """A ledger with a frame after every sentence; the frames with the mark that they wait for."""
    ledger: HeardLedger[Note] = HeardLedger()
    mark = 0
    waiting: list[tuple[int, Note]] = []
    for number, (words, durations) in enumerate(sentences):
        ledger.begin_sentence(" ".join(words))
        for duration_ms in durations:
            mark += 1
            ledger.chunk(mark, duration_ms)
        ledger.end_sentence()
        assert ledger.frame(Note(number)) == ()
        waiting.append((mark, Note(number)))
    return ledger, waiting, mark


@given(SENTENCES)
def test_frames_are_released_in_order_exactly_when_the_speech_before_them_was_played(
    sentences: list[tuple[list[str], list[int]]],
) -> None:
    ledger, waiting, last_mark = _filled(sentences)
    released: list[Note] = []
    for mark in range(1, last_mark + 1):
        released += ledger.played(mark)
        assert released == [note for due, note in waiting if due <= mark]
    assert ledger.pending_chunks == 0
    assert ledger.frame(Note(99)) == (Note(99),)


@given(SENTENCES.filter(bool), st.data())
def test_an_interruption_reports_whole_words_and_never_more_than_was_played(
    sentences: list[tuple[list[str], list[int]]], data: st.DataObject
) -> None:
    ledger, _, last_mark = _filled(sentences)
    cut_mark = data.draw(st.integers(1, last_mark))
    for mark in range(1, cut_mark):
        ledger.played(mark)
    marks, current = 0, iter(sentences)
    words, durations = next(current)
    while cut_mark > marks + len(durations):
        marks += len(durations)
        words, durations = next(current)
    inside = cut_mark - marks - 1
    heard_ms = data.draw(st.integers(0, durations[inside]))
    outcome = ledger.interrupted(cut_mark, heard_ms)

    text = " ".join(words)
    share = (sum(durations[:inside]) + heard_ms) / sum(durations)
    assert text.startswith(outcome.heard)
    assert outcome.heard == "" or outcome.heard.split(" ") == words[: len(outcome.heard.split(" "))]
    assert len(outcome.heard) <= share * len(text) + 1e-9
    if share == 1:
        assert outcome.heard == text
    assert ledger.pending_chunks == 0


@given(st.integers(0, 60_000))
def test_an_unfinished_sentence_is_measured_by_the_typical_rate(heard_ms: int) -> None:
    ledger: HeardLedger[Note] = HeardLedger()
    text = "we are open until five tomorrow"
    ledger.begin_sentence(text)
    ledger.chunk(1, 100)
    heard = ledger.interrupted(1, min(heard_ms, 100)).heard
    assert len(heard) <= 100 / TYPICAL_MS_PER_CHARACTER


def test_unknown_marks_release_nothing() -> None:
    ledger, _, _ = _filled([(["we"], [100])])
    assert ledger.played(77) == ()
    assert ledger.pending_chunks == 1


def test_frames_that_waited_are_handed_back_on_an_interruption() -> None:
    ledger, waiting, _ = _filled([(["we", "are"], [100]), (["open"], [50])])
    assert ledger.interrupted(1, 0).kept == tuple(note for _, note in waiting)
