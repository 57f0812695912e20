"""The softphone's course of a call, in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.softphone.dialogue import Dialogue, HangUp, Heard, Say, State, Unanswered

SECOND = 1_000_000


def test_a_call_with_one_question() -> None:
    dialogue = Dialogue(utterances=1, quiet_ms=1_000)
    dialogue.connected(0)
    dialogue.remote_active(80_000)
    assert dialogue.poll(5 * SECOND) == ()
    dialogue.remote_quiet(3 * SECOND)
    assert dialogue.poll(3 * SECOND + 999_000) == ()
    assert dialogue.poll(4 * SECOND) == (Heard(None, 80), Say(0))
    dialogue.said(6 * SECOND)
    dialogue.remote_active(6 * SECOND + 730_000)
    dialogue.remote_quiet(8 * SECOND)
    dialogue.remote_active(8 * SECOND + 600_000)  # the second sentence
    assert dialogue.poll(9 * SECOND + 500_000) == ()
    dialogue.remote_quiet(10 * SECOND)
    assert dialogue.poll(11 * SECOND) == (Heard(0, 730), HangUp())
    assert dialogue.latencies_ms == [730]
    assert dialogue.unanswered == 0


def test_no_greeting_and_no_answer_end_in_time() -> None:
    dialogue = Dialogue(utterances=1, greeting_wait_ms=2_000, answer_wait_ms=3_000)
    dialogue.connected(0)
    assert dialogue.poll(2 * SECOND) == (Say(0),)
    dialogue.said(4 * SECOND)
    assert dialogue.poll(7 * SECOND) == (Unanswered(0), HangUp())
    assert dialogue.unanswered == 1


def test_hang_up_by_the_other_side_counts_what_was_heard() -> None:
    dialogue = Dialogue(utterances=2)
    dialogue.connected(0)
    assert dialogue.poll(8 * SECOND) == (Say(0),)
    dialogue.said(9 * SECOND)
    dialogue.remote_active(9 * SECOND + 400_000)
    assert dialogue.remote_hung_up() == (Heard(0, 400),)
    assert dialogue.state is State.OVER


EVENTS = st.lists(
    st.tuples(st.sampled_from(["active", "quiet", "said", "poll"]), st.integers(0, 30_000)), max_size=80
)


@given(st.integers(1, 5), EVENTS)
def test_any_course_of_events_says_each_utterance_once_and_in_order(
    utterances: int, events: list[tuple[str, int]]
) -> None:
    dialogue = Dialogue(utterances)
    now_us = 0
    dialogue.connected(now_us)
    said: list[int] = []
    hung_up = 0
    for kind, step_ms in events:
        now_us += step_ms * 1000
        if kind == "active":
            dialogue.remote_active(now_us)
        elif kind == "quiet":
            dialogue.remote_quiet(now_us)
        elif kind == "said":
            dialogue.said(now_us)
        for action in dialogue.poll(now_us):
            if isinstance(action, Say):
                said.append(action.index)
            elif isinstance(action, HangUp):
                hung_up += 1
    assert said == list(range(len(said)))
    assert hung_up <= 1
    assert all(latency_ms >= 0 for latency_ms in dialogue.latencies_ms)
