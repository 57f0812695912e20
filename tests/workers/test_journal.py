"""The journal of a call: what the next worker is told at every stage of a conversation."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from mediaserver._native import SpeechAudio, SpeechStarted, SpeechStopped
from mediaserver.journal import MAX_TURNS, MAX_UNHEARD_OCTETS, CallJournal, Next, Restored, Role
from mediaserver.media_link import MediaEvent

GREETING = "Hello, this is the bakery."
QUESTION = "When are you open?"
FIRST, SECOND = "We open at eight.", "We close at six."


def _greeted() -> CallJournal:
    journal = CallJournal()
    journal.sentence_queued(GREETING)
    journal.reply_queued()
    journal.sentence_begins(GREETING)
    journal.receptionist_said(GREETING)
    return journal


def _asked() -> CallJournal:
    journal = _greeted()
    journal.caller_said(QUESTION)
    return journal


def _speech(pcm: bytes = b"\1\0" * 160) -> list[MediaEvent]:
    return [
        SpeechStarted(stream=1, media_ms=0, at_us=0, pcm=pcm),
        SpeechAudio(stream=1, media_ms=10, pcm=pcm),
        SpeechStopped(stream=1, media_ms=20, at_us=0, last_speech_at_us=0, pcm=pcm),
    ]


def test_before_anything_was_said_the_greeting_comes_first() -> None:
    assert CallJournal().lost() == (Restored(next=Next.GREETING), "")


def test_a_greeting_that_broke_off_is_said_again() -> None:
    journal = CallJournal()
    journal.sentence_queued(GREETING)
    journal.reply_queued()
    journal.sentence_begins(GREETING)
    restored, heard = journal.lost()
    assert (restored.next, restored.say, restored.turns, heard) == (Next.SAY, (GREETING,), (), "")


def test_an_idle_conversation_listens() -> None:
    restored, _ = _greeted().lost()
    assert (restored.next, restored.turns) == (Next.LISTEN, ((Role.RECEPTIONIST, GREETING),))


def test_a_question_without_an_answer_is_answered() -> None:
    restored, _ = _asked().lost()
    assert restored.next is Next.ANSWER
    assert restored.turns[-1] == (Role.CALLER, QUESTION)


def test_an_answer_that_was_not_complete_is_asked_for_again() -> None:
    journal = _asked()
    journal.receptionist_state('{"after": 1}')
    journal.sentence_queued(FIRST)
    journal.sentence_begins(FIRST)
    restored, heard = journal.lost()
    assert (restored.next, restored.say, restored.receptionist, heard) == (Next.ANSWER, (), "", "")


def test_the_rest_of_an_answer_is_said_from_the_sentence_on_that_broke_off() -> None:
    journal = _asked()
    journal.receptionist_state('{"after": 1}')
    for sentence in (FIRST, SECOND):
        journal.sentence_queued(sentence)
    journal.reply_queued()
    journal.sentence_begins(FIRST)
    journal.sentence_begins(SECOND)
    restored, heard = journal.lost()
    assert (restored.next, restored.say, heard) == (Next.SAY, (SECOND,), FIRST)
    assert restored.turns[-1] == (Role.RECEPTIONIST, FIRST)
    assert restored.receptionist == '{"after": 1}'


def test_a_second_worker_that_is_lost_leaves_nothing_unsaid() -> None:
    journal = _asked()
    for sentence in (FIRST, SECOND):
        journal.sentence_queued(sentence)
    journal.reply_queued()
    journal.lost()
    assert journal.lost()[0].say == (FIRST, SECOND)
    # The next one has queued the first, not yet the second.
    journal.sentence_queued(FIRST)
    journal.reply_queued()
    journal.sentence_begins(FIRST)
    assert journal.lost()[0].say == (FIRST, SECOND)


def test_an_action_counts_once_however_often_its_reply_is_asked_for() -> None:
    journal = _asked()
    assert journal.acted("message from Ann")
    journal.lost()
    assert not journal.acted("message from Ann")
    journal.sentence_queued(FIRST)
    journal.reply_queued()
    journal.sentence_begins(FIRST)
    # The caller heard it: the same words in another turn are another message.
    journal.receptionist_said(FIRST)
    journal.caller_said("Again.")
    assert journal.acted("message from Ann")


def test_a_goodbye_closes_the_call_unless_the_caller_speaks() -> None:
    journal = _asked()
    journal.acted("", closes=True)
    journal.sentence_queued("Goodbye!")
    journal.reply_queued()
    journal.sentence_begins("Goodbye!")
    assert journal.lost()[0].closing
    journal.caller_said("Wait.")
    assert not journal.lost()[0].closing


def test_speech_is_kept_until_it_is_words() -> None:
    journal = _greeted()
    for event in _speech():
        journal.event(event)
    assert len(list(journal.unheard)) == 3
    journal.caller_said(QUESTION)
    assert not list(journal.unheard)
    # The caller has begun to speak again before the words of the turn came.
    for event in _speech():
        journal.event(event)
    journal.event(_speech()[0])
    assert journal.is_caller_speaking
    journal.caller_said(QUESTION)
    assert [type(event) for event in journal.unheard] == [SpeechStarted]


def test_what_is_kept_of_speech_is_bounded_and_still_begins_and_ends() -> None:
    journal, chunk = CallJournal(), bytes(200_000)
    started, audio, stopped = _speech(chunk)
    for event in (started, *[audio] * 40, stopped):
        journal.event(event)
    kept = [
        len(event.pcm)
        for event in journal.unheard
        if isinstance(event, SpeechStarted | SpeechAudio | SpeechStopped)
    ]
    assert sum(kept) <= MAX_UNHEARD_OCTETS
    assert isinstance(journal.unheard[0], SpeechStarted)
    assert isinstance(journal.unheard[-1], SpeechStopped)
    assert journal.dropped_octets + sum(kept) == 42 * 200_000


def _speak(journal: CallJournal) -> None:
    for event in _speech():
        journal.event(event)


STEPS: tuple[Callable[[CallJournal], object], ...] = (
    lambda journal: journal.sentence_queued(FIRST),
    lambda journal: journal.sentence_queued(SECOND),
    lambda journal: journal.reply_queued(),
    lambda journal: journal.sentence_begins(FIRST),
    lambda journal: journal.sentence_begins(SECOND),
    lambda journal: journal.receptionist_said(FIRST),
    lambda journal: journal.caller_said(QUESTION),
    lambda journal: journal.receptionist_state("{}"),
    lambda journal: journal.acted("x"),
    _speak,
    lambda journal: journal.lost(),
)


@given(st.lists(st.sampled_from(range(len(STEPS))), max_size=300))
def test_whatever_happens_it_can_be_restored_and_stays_small(steps: list[int]) -> None:
    journal = CallJournal()
    for step in steps:
        STEPS[step](journal)
    restored, _ = journal.lost()
    assert Restored.from_json(restored.to_json()) == restored
    assert len(restored.turns) <= MAX_TURNS
    assert bool(restored.say) == (restored.next is Next.SAY)
    if restored.next is Next.ANSWER:
        assert any(role is Role.CALLER for role, _ in restored.turns)
