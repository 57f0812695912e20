"""What holds for the turn-taking core whatever happens, and in what time."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import example, given
from hypothesis import strategies as st

from mediaserver.turns import State, TurnParams
from mediaserver.turns.events import (
    Action,
    Answered,
    BeginTurn,
    Confirm,
    Discard,
    Event,
    FarewellDue,
    HangUp,
    Hold,
    Interrupt,
    KeyPressed,
    ModelJudged,
    PlayoutEnded,
    PlayoutStarted,
    Resume,
    Speculate,
    SpeechCut,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
    Transcribe,
    Transcribed,
    Withdraw,
)
from tests.turns.replay import Clock

PARAMS = TurnParams(ask_model=True, max_call_ms=120_000)
HOLD_MAX_MS = PARAMS.barge_in_ms + PARAMS.decision_ms
TEXTS = st.sampled_from(
    ["", "[noise]", "Uh-huh.", "Okay.", "Are you open?", "my number is", "a table by the window", "Wait"]
)
CHOICES = st.lists(
    st.tuples(
        st.sampled_from(
            ["voice", "voice", "stop", "words", "words", "model", "play", "farewell", "key", "cut"]
        ),
        st.integers(0, 1_500),
        TEXTS,
        st.floats(0, 1),
        st.integers(0, 3_000),
    ),
    max_size=60,
)


@dataclass
class Rules:
    """Follows the actions and fails where one must not come."""

    clock: Clock
    held_since_ms: int | None = None
    turn_open: bool = False
    speculated: str | None = None
    asked: list[int] = field(default_factory=list)
    unasked_pause: bool = False
    """Whether the caller has paused, and it was not asked for the words."""
    over: bool = False

    def follow(self, done: list[tuple[int, Action]]) -> None:
        for at_ms, action in done:
            assert not self.over
            self._follow(action, at_ms)
        assert self.held_since_ms is None or self.clock.now_ms - self.held_since_ms <= HOLD_MAX_MS

    def _follow(self, action: Action, at_ms: int) -> None:
        match action:
            case Hold():
                assert self.held_since_ms is None
                assert not self.turn_open
                self.held_since_ms = at_ms
            case Resume():
                assert self.held_since_ms is not None
                assert not self.unasked_pause
                self.held_since_ms = None
            case Interrupt():
                self.held_since_ms = None
                assert not self.turn_open
                self.turn_open = True
            case BeginTurn():
                assert self.held_since_ms is None
                assert not self.turn_open
                self.turn_open = True
            case Speculate():
                assert self.turn_open
                assert self.speculated is None
                assert action.text
                self.speculated = action.text
            case Discard():
                assert self.speculated is not None
                self.speculated = None
            case Confirm():
                assert self.turn_open
                assert action.speculated == (self.speculated is not None)
                assert not action.speculated or action.text == self.speculated
                self.turn_open, self.speculated = False, None
            case Transcribe():
                assert not self.asked or action.number > self.asked[-1]
                self.asked.append(action.number)
                self.unasked_pause = False
            case Withdraw():
                assert action.number in self.asked
            case HangUp():
                assert self.speculated is None
                self.over = True
            case _:
                pass


def _events(
    choices: list[tuple[str, int, str, float, int]], rules: Rules
) -> Iterator[tuple[int, Event | None]]:
    """Events as an engine and providers send them: speech in order, words of what was asked for, in any order and late."""
    voice, sounding = "silent", False
    for kind, step_ms, text, probability, left_ms in choices:
        event: Event | None = None
        match kind:
            case "voice":
                following: dict[str, tuple[Event, str]] = {
                    "silent": (SpeechStarted(96, left_ms), "loud"),
                    # To a worker that takes the call over, pauses are reported late.
                    "loud": (SpeechPaused(left_ms if probability > 0.8 else 40), "paused"),
                    "paused": (SpeechResumed(left_ms), "loud"),
                }
                event, voice = following[voice]
                rules.unasked_pause = voice == "paused"
            case "stop" if voice != "silent":
                event, voice = SpeechStopped(200, said_more=voice == "paused" and probability > 0.8), "silent"
            case "cut" if voice == "loud":
                event = SpeechCut()
            case "words" if rules.asked:
                event = Transcribed(rules.asked[int(probability * (len(rules.asked) - 1))], text)
            case "model" if rules.asked:
                event = ModelJudged(rules.asked[-1], probability)
            case "play":
                event, sounding = (PlayoutEnded() if sounding else PlayoutStarted()), not sounding
            case "farewell":
                event = FarewellDue()
            case "key":
                event = KeyPressed()
            case _:
                pass
        yield step_ms, event


@given(CHOICES)
@example([("voice", 0, "", 0.5, 0)] * 3 + [("voice", 0, "", 1.0, 900)])
def test_whatever_happens_the_rules_hold(choices: list[tuple[str, int, str, float, int]]) -> None:
    clock = Clock(PARAMS)
    rules = Rules(clock)
    rules.follow(clock.event(Answered()))
    for step_ms, event in _events(choices, rules):
        rules.follow(clock.until(clock.now_ms + step_ms))
        if event is not None:
            rules.follow(clock.event(event))
    rules.follow(clock.until(clock.now_ms + HOLD_MAX_MS))
    assert rules.held_since_ms is None
    rules.follow(clock.until(PARAMS.max_call_ms + clock.now_ms))
    assert rules.over
    assert clock.taker.state is State.OVER
    assert clock.taker.next_deadline_ms is None


@given(CHOICES)
def test_counters_agree_with_the_actions(choices: list[tuple[str, int, str, float, int]]) -> None:
    clock = Clock(PARAMS)
    rules = Rules(clock)
    done = clock.event(Answered())
    for step_ms, event in _events(choices, rules):
        done += clock.until(clock.now_ms + step_ms)
        done += clock.event(event) if event is not None else []
        rules.asked = [action.number for _, action in done if isinstance(action, Transcribe)]
    done += clock.until(10 * PARAMS.max_call_ms)
    counters = clock.taker.counters

    def count(kind: type) -> int:
        return sum(isinstance(action, kind) for _, action in done)

    assert counters.holds == count(Hold)
    assert counters.resumed == count(Resume)
    assert counters.interrupted == count(Interrupt)
    assert counters.speculations == count(Speculate)
    assert counters.speculations_discarded == count(Discard)
    assert counters.speculations == counters.speculations_confirmed + counters.speculations_discarded
    assert counters.transcriptions == count(Transcribe)


@dataclass
class _Dialogue:
    """A caller and providers that behave, from a seed: turns with pauses, backchannels, interruptions."""

    clock: Clock
    draws: random.Random
    confirmed: list[str] = field(default_factory=list)
    asked: int | None = None

    def tell(self, event: Event) -> None:
        self._note(self.clock.event(event))

    def wait(self, ms: int) -> None:
        self._note(self.clock.until(self.clock.now_ms + ms))

    def _note(self, done: list[tuple[int, Action]]) -> None:
        self.confirmed += [action.text for _, action in done if isinstance(action, Confirm)]
        self.asked = next((a.number for _, a in reversed(done) if isinstance(a, Transcribe)), None)

    def phrase(self, text: str, *, ends: bool) -> None:
        """A stretch of speech with gaps in it, and its transcript 80 ms after the last."""
        for _ in range(self.draws.randrange(3)):
            self.wait(self.draws.randrange(200, 600))
            self.tell(SpeechPaused(40))
            self.wait(50)
            self.tell(SpeechResumed())
        self.wait(self.draws.randrange(300, 900))
        self.tell(SpeechPaused(40))
        if self.asked is None:
            self.wait(60)
        number = self.asked
        assert number is not None
        self.wait(80)
        self.tell(Transcribed(number, text))
        if not ends:
            self.wait(self.draws.randrange(100, 800))
            self.tell(SpeechResumed())

    def turn(self) -> None:
        self.tell(SpeechStarted(96))
        if self.draws.random() < 0.4:
            self.phrase("I have a question about", ends=False)
            self.phrase("I have a question about your opening hours.", ends=True)
        else:
            self.phrase("When are you open?", ends=True)
        self.wait(210)
        self.tell(SpeechStopped(330))
        self.wait(200)

    def answer(self) -> None:
        self.tell(PlayoutStarted())
        self.wait(self.draws.randrange(1_000, 4_000))
        if self.draws.random() < 0.3:
            self.tell(SpeechStarted(96, left_ms=3_000))
            self.wait(self.draws.randrange(100, 400))
            self.tell(SpeechPaused(40))
            self.wait(80)
            assert self.clock.taker.state is State.DECIDING
            self.tell(Transcribed(self.clock.taker.counters.transcriptions, "Uh-huh."))
            self.wait(300)
            self.tell(SpeechStopped(340))
        self.wait(1_500)
        self.tell(PlayoutEnded())
        self.wait(self.draws.randrange(300, 2_000))


def test_an_hour_of_dialogue_takes_a_fraction_of_a_second() -> None:
    dialogue = _Dialogue(Clock(TurnParams(max_call_ms=7_200_000)), random.Random(5))
    began_s = time.process_time()
    dialogue.tell(Answered())
    dialogue.tell(PlayoutStarted())
    dialogue.wait(2_000)
    dialogue.tell(PlayoutEnded())
    turns = 0
    while dialogue.clock.now_ms < 3_600_000:
        dialogue.turn()
        dialogue.answer()
        turns += 1
    assert time.process_time() - began_s < 1.0
    assert turns > 300
    # Every pause of up to 800 ms after words that ask for more was waited for, and no backchannel became a turn.
    assert len(dialogue.confirmed) == turns
    assert set(dialogue.confirmed) == {
        "When are you open?",
        "I have a question about your opening hours.",
    }
    assert dialogue.clock.taker.counters.interrupted == 0
