"""The gate before the playout: nothing of a discarded answer passes, and what is released passes in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from pipecat.frames.frames import ControlFrame, EndFrame, Frame

from mediaserver.pipeline.speech_gate import MAX_HELD_FRAMES, GateState, SpeechGate


@dataclass
class Speech(ControlFrame):
    """A piece of an answer."""

    answer: int = 0
    number: int = 0


@dataclass
class Kept(ControlFrame):
    """Something that no interruption may drop."""

    interruptible: bool = field(default=False, init=False)


STEPS = st.lists(st.sampled_from(["hold", "release", "drop", "open", "speech", "kept"]), max_size=60)


@given(STEPS)
def test_only_what_was_released_is_heard_and_in_order(steps: list[str]) -> None:
    gate = SpeechGate()
    answer = 0
    speculative: set[int] = set()
    passed: list[Frame] = []
    for number, step in enumerate(steps):
        new: list[Frame] = []
        match step:
            case "hold":
                answer = number
                speculative.add(answer)
                gate.hold()
            case "release" if gate.state is GateState.HOLDING:
                speculative.discard(answer)
                while (frame := gate.next_released()) is not None:
                    new.append(frame)
            case "drop":
                new += gate.drop()
            case "open":
                answer = number
                gate.open()
            case "kept":
                new += gate.admit(Kept())
            case "speech":
                new += gate.admit(Speech(answer=answer, number=number))
        assert not [frame for frame in new if isinstance(frame, Speech) and frame.answer in speculative]
        passed += new
    numbers = [frame.number for frame in passed if isinstance(frame, Speech)]
    assert numbers == sorted(set(numbers))


def test_a_discarded_answer_is_dropped_with_what_follows_until_the_gate_opens() -> None:
    gate = SpeechGate()
    gate.hold()
    kept = Kept()
    assert gate.admit(Speech(answer=1)) == ()
    assert gate.admit(kept) == ()
    assert gate.drop() == (kept,)
    assert gate.admit(Speech(answer=1)) == ()
    assert gate.dropped_frames == 2
    gate.hold()
    second = Speech(answer=2)
    assert gate.admit(second) == ()
    assert gate.next_released() is second
    late = Speech(answer=2)
    assert gate.admit(late) == ()
    assert gate.next_released() is late
    assert gate.next_released() is None
    assert gate.state is GateState.OPEN


def test_the_end_of_the_call_passes() -> None:
    gate = SpeechGate()
    gate.hold()
    gate.admit(Speech())
    end = EndFrame()
    assert gate.admit(end) == (end,)


def test_what_is_held_has_a_bound() -> None:
    gate = SpeechGate()
    gate.hold()
    for _ in range(MAX_HELD_FRAMES + 5):
        assert gate.admit(Speech()) == ()
    assert gate.dropped_frames == 5
