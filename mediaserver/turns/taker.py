"""Who has the floor. Sans-IO: events with their times come in, actions come out.

Rules:

- While the receptionist has the floor (a reply is due, queued or sounding), any speech of the caller holds the playout at
  once. It is dropped when the caller says words that ask for something, or goes on for `barge_in_ms`; it goes on when the
  sound was short and had no such words (a cough, "uh-huh"). Every hold ends in exactly one `Resume` or `Interrupt`
  (a goodbye because the time is up interrupts too).
- A turn ends when the caller has been silent for the wait that the words ask for, and all of its utterances have been
  transcribed, or could not be in time. `Confirm` comes once per turn.
- The reply is begun (`Speculate`) on the text of a pause, unless that is clearly unfinished. When the caller goes on, or the
  text changes, it is discarded. `Confirm` says whether a speculation on exactly its text is there to be played.
- What was resumed over for want of words in time, and then turns out to have had some, interrupts late rather than never.
- After `HangUp` nothing follows.

What is not in the table leaves everything as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mediaserver.turns.events import (
    Action,
    Answered,
    AskModel,
    AskWhetherThere,
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
    SayGoodbye,
    Speculate,
    SpeechCut,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
    Transcribe,
    Transcribed,
    Why,
    Withdraw,
)
from mediaserver.turns.evidence import Evidence, is_backchannel, judge, words_of
from mediaserver.turns.state import State, TurnCounters, TurnParams
from mediaserver.turns.utterances import Utterances

BACKCHANNEL_SILENCE_MS: Final = 200
"""An "okay" is a backchannel when this much silence follows it: it may be the first word of a sentence."""
TRANSCRIBE_AGAIN_MS: Final = 200
"""Pauses within an utterance are transcribed as soon as they are reported, but no two within this time..."""
SETTLED_PAUSE_MS: Final = 60
"""...unless the later one has lasted for this long: most gaps within words are shorter. The pause that ends a turn may be such
a later one, so that both figures are the caller's to wait for. Against 500 and 100 ms a turn costs five transcriptions in
place of four, and its latency at p95 is 48 ms less (430 of 478)."""
LAST_WORDS_MS: Final = 600
"""Who speaks when she has no more than this left to say answers her: there, a "yes" is no backchannel."""
SURE_OF_END: Final = 0.5
SURE_OF_MORE: Final = 0.2
"""Probabilities of the turn model that leave no doubt."""
REPLY_WATCHDOG_MS: Final = 20_000
"""A reply of which nothing has been heard for so long will not come any more."""

_Timer = tuple[int, Callable[[int], None]]


class TurnTaker:
    """The turns of one call. Times are milliseconds of any clock that does not go back."""

    def __init__(self, params: TurnParams) -> None:
        self.params = params
        self.counters = TurnCounters()
        self.state = State.IDLE
        self._out: list[Action] = []
        self._said = Utterances()
        self._began_ms = 0
        """When the present sound of the caller began."""
        self._silent_since_ms = 0
        """When the caller fell silent."""
        self._since_ms = 0
        """When the present state was entered."""
        self._ends_at_ms: int | None = None
        self._wait_ms = params.end_of_turn_ms
        self._evidence = Evidence.DOUBT
        self._speculated: str | None = None
        self._audible = False
        """Whether the receptionist sounds, or is held."""
        self._spoke = False
        """Whether anything of what she has to say has been heard."""
        self._flushing = False
        """Whether the next end of the playout is that of an interruption."""
        self._words_count = False
        """Whether a sound over her last words is an answer even if it is a backchannel elsewhere."""
        self._farewell = False
        self._prompted = False
        self._transcribe_due_ms: int | None = None
        self._transcribed_at_ms: int | None = None
        """When the last transcription of the present utterance was asked for at a pause."""

    # What the shell calls.

    def handle(self, event: Event, now_ms: int) -> tuple[Action, ...]:
        """Take an event; the actions are to be done in order."""
        self._expire(now_ms)
        transition = _TRANSITIONS.get((self.state, type(event))) or _ANY_STATE.get(type(event))
        if transition is not None and self.state is not State.OVER:
            transition(self, event, now_ms)
        self._expire(now_ms)
        return self._taken()

    def poll(self, now_ms: int) -> tuple[Action, ...]:
        """Let time pass."""
        self._expire(now_ms)
        return self._taken()

    @property
    def next_deadline_ms(self) -> int | None:
        """When `poll` has something to do."""
        return min((due for due, _ in self._timers()), default=None)

    @property
    def speculating(self) -> bool:
        """Whether a reply is being prepared that may never be heard."""
        return self._speculated is not None

    # Time.

    def _timers(self) -> Iterator[_Timer]:
        """What is due in this state, and when."""
        params = self.params
        if self.state is State.OVER:
            return
        if self._ends_at_ms is not None:
            if self.state is State.CLOSING:
                yield self._ends_at_ms, self._hang_up
            else:
                yield self._ends_at_ms - params.goodbye_before_ms, self._time_is_up
        if self._transcribe_due_ms is not None:
            yield self._transcribe_due_ms, self._transcribe
        match self.state:
            case State.IDLE if self._ends_at_ms is not None:
                yield self._since_ms + params.silence_prompt_ms, self._caller_silent
            case State.WAITING:
                yield from self._waiting_timers()
            case State.HELD:
                yield self._began_ms + params.barge_in_ms, self._interrupt
            case State.DECIDING:
                known = self._said.text() is not None
                yield (
                    self._silent_since_ms + (BACKCHANNEL_SILENCE_MS if known else params.decision_ms),
                    self._resume,
                )
            case State.ANSWERING if not self._audible:
                yield self._since_ms + REPLY_WATCHDOG_MS, self._silence
            case _:
                return

    def _waiting_timers(self) -> Iterator[_Timer]:
        text = self._said.text()
        if text is None:
            yield self._silent_since_ms + self.params.transcript_wait_ms, self._confirm
            return
        yield self._silent_since_ms + self._wait_ms, self._confirm
        if self.params.speculate and text and text != self._speculated:
            # Words that ask for more are believed for as long as a caller with nothing to add would be waited for.
            is_open = self._evidence is Evidence.UNFINISHED
            yield self._silent_since_ms + (self.params.end_of_turn_ms if is_open else 0), self._speculate

    def _expire(self, now_ms: int) -> None:
        while (timer := min(self._timers(), key=lambda timer: timer[0], default=None)) and timer[0] <= now_ms:
            timer[1](now_ms)

    def _taken(self) -> tuple[Action, ...]:
        actions = tuple(self._out)
        self._out.clear()
        return actions

    def _enter(self, state: State, now_ms: int) -> None:
        self.state = state
        self._since_ms = now_ms

    # The call.

    def _answered(self, _: Event, now_ms: int) -> None:
        if self._ends_at_ms is None:
            self._ends_at_ms = now_ms + self.params.max_call_ms
            self._has_floor(now_ms)

    def _has_floor(self, now_ms: int) -> None:
        """The receptionist is going to say something."""
        self._spoke = self._audible
        self._enter(State.ANSWERING, now_ms)

    def _caller_silent(self, now_ms: int) -> None:
        if self._farewell:
            self._hang_up(now_ms)
            return
        self.counters.silence_prompts += 1
        self._out.append(SayGoodbye(Why.SILENCE) if self._prompted else AskWhetherThere())
        self._farewell = self._prompted
        self._prompted = True
        self._has_floor(now_ms)

    def _time_is_up(self, now_ms: int) -> None:
        if self.state in {State.HELD, State.DECIDING}:
            self._out.append(Interrupt())
            self.counters.interrupted += 1
        self._discard()
        self._transcribe_due_ms = None
        self._said.clear()
        self._out.append(SayGoodbye(Why.TIME_UP))
        self._flushing = self._audible
        self._enter(State.CLOSING, now_ms)

    def _hang_up(self, now_ms: int) -> None:
        self._discard()
        self._transcribe_due_ms = None
        self._out.append(HangUp())
        self._enter(State.OVER, now_ms)

    def _key_pressed(self, _: Event, now_ms: int) -> None:
        self._prompted = False
        if self.state is State.IDLE:
            self._since_ms = now_ms

    def _farewell_due(self, _: Event, __: int) -> None:
        self._farewell = self.state in {State.ANSWERING, State.HELD, State.DECIDING}

    # The receptionist's voice.

    def _playout_started(self, _: Event, now_ms: int) -> None:
        if self.state is State.IDLE:
            self._has_floor(now_ms)
        self._audible = True
        self._spoke = True

    def _playout_ended(self, _: Event, now_ms: int) -> None:
        self._audible = False
        if self._flushing:
            self._flushing = False
            return
        if self.state in {State.CLOSING, State.ANSWERING}:
            self._silence(now_ms)

    def _silence(self, now_ms: int) -> None:
        """She has said it all, or will not say it any more."""
        if self._farewell or self.state is State.CLOSING:
            self._hang_up(now_ms)
        else:
            self._enter(State.IDLE, now_ms)

    # The caller's voice.

    def _new_sound(self, event: Event, now_ms: int) -> None:
        self._began_ms = now_ms - (event.for_ms if isinstance(event, SpeechStarted) else 0)
        self._transcribed_at_ms = None
        self._transcribe_due_ms = None
        self._said.begin()

    def _turn_begins(self, event: Event, now_ms: int) -> None:
        self._said.clear()
        self._new_sound(event, now_ms)
        self._out.append(BeginTurn())
        self._open_turn(now_ms)

    def _open_turn(self, now_ms: int) -> None:
        self._farewell = False
        self._flushing = self._audible
        self.counters.turns += 1
        self._enter(State.SPEAKING, now_ms)

    def _goes_on(self, event: Event, now_ms: int) -> None:
        """More of the same turn, after a silence that the detector was sure of."""
        self._discard()
        self._new_sound(event, now_ms)
        self._enter(State.SPEAKING, now_ms)

    def _resumes(self, _: Event, now_ms: int) -> None:
        self._discard()
        self._void_transcription()
        self._enter(State.SPEAKING, now_ms)

    def _paused(self, event: Event, now_ms: int) -> None:
        silent_ms = event.silent_ms if isinstance(event, SpeechPaused | SpeechStopped) else 0
        self._silent_since_ms = now_ms - silent_ms
        self._wait_ms = self.params.end_of_turn_ms
        self._evidence = Evidence.DOUBT
        self._enter(State.WAITING if self.state is State.SPEAKING else State.DECIDING, now_ms)
        last_ms = self._transcribed_at_ms
        if last_ms is not None and now_ms - last_ms < TRANSCRIBE_AGAIN_MS and isinstance(event, SpeechPaused):
            self._transcribe_due_ms = max(now_ms, self._silent_since_ms + SETTLED_PAUSE_MS)
        else:
            self._transcribe(now_ms)

    def _stopped(self, event: Event, now_ms: int) -> None:
        """The detector confirms a pause, or says that there was more after it."""
        assert isinstance(event, SpeechStopped)
        if event.said_more:
            self._discard()
            self._void_transcription()
            self._silent_since_ms = now_ms - event.silent_ms
            self._transcribe(now_ms)
        elif self._transcribe_due_ms is not None:
            self._transcribe(now_ms)

    def _cut(self, event: Event, now_ms: int) -> None:
        self._transcribe(now_ms)
        self._new_sound(event, now_ms)

    def _transcribe(self, now_ms: int) -> None:
        self._transcribe_due_ms = None
        self._transcribed_at_ms = now_ms
        self.counters.transcriptions += 1
        self._out.append(Transcribe(self._said.ask()))

    def _void_transcription(self) -> None:
        self._transcribe_due_ms = None
        if (number := self._said.withdraw()) is not None:
            self.counters.transcriptions_withdrawn += 1
            self._out.append(Withdraw(number))

    # Words.

    def _heard(self, event: Event, now_ms: int) -> None:
        """Words of the caller's turn."""
        assert isinstance(event, Transcribed)
        if self._said.put(event.number, event.text) and self.state is State.WAITING:
            self._weigh(event.number, now_ms)

    def _weigh(self, number: int, now_ms: int) -> None:
        """Let the words decide how long to wait, and begin the reply."""
        text = self._said.text()
        if text is None:
            return
        if text != self._speculated:
            self._discard()
        self._evidence = judge(text)
        params = self.params
        match self._evidence:
            case Evidence.COMPLETE:
                self._wait_ms = params.complete_wait_ms
            case Evidence.UNFINISHED:
                self._wait_ms = params.unfinished_wait_ms
            case Evidence.DOUBT:
                self._wait_ms = params.end_of_turn_ms
                silent_ms = now_ms - self._silent_since_ms
                if params.ask_model and text and silent_ms < params.end_of_turn_ms:
                    self.counters.model_asked += 1
                    self._out.append(AskModel(number))

    def _judged(self, event: Event, _: int) -> None:
        assert isinstance(event, ModelJudged)
        if not self._said.is_last(event.number) or self._evidence is not Evidence.DOUBT:
            return
        if event.probability >= SURE_OF_END:
            self._wait_ms = self.params.complete_wait_ms
        elif event.probability < SURE_OF_MORE:
            self._evidence = Evidence.UNFINISHED
            self._wait_ms = self.params.unfinished_wait_ms

    def _speculate(self, _: int) -> None:
        text = self._said.text()
        assert text
        self._speculated = text
        self.counters.speculations += 1
        self._out.append(Speculate(text))

    def _discard(self) -> None:
        if self._speculated is not None:
            self._speculated = None
            self.counters.speculations_discarded += 1
            self._out.append(Discard())

    def _confirm(self, now_ms: int) -> None:
        text = self._said.known()
        speculated = self._speculated is not None and self._speculated == text
        if not speculated:
            self._discard()
        self._speculated = None
        self._transcribe_due_ms = None
        self.counters.speculations_confirmed += speculated
        self.counters.empty_turns += not text
        self._said.clear()
        self._out.append(Confirm(text, speculated))
        if text:
            self._prompted = False
            self._has_floor(now_ms)
        else:
            self._enter(State.IDLE, now_ms)

    # A sound of the caller while the receptionist has the floor.

    def _hold(self, event: Event, now_ms: int) -> None:
        self._said.clear()
        self._new_sound(event, now_ms)
        assert isinstance(event, SpeechStarted | SpeechResumed)
        self._words_count = self._audible and event.left_ms < LAST_WORDS_MS
        self.counters.holds += 1
        self._out.append(Hold())
        self._enter(State.HELD, now_ms)

    def _sound_resumes(self, _: Event, now_ms: int) -> None:
        self._void_transcription()
        self._enter(State.HELD, now_ms)

    def _sound_heard(self, event: Event, now_ms: int) -> None:
        """Words over the receptionist. What is left of a sound that she resumed over comes here too."""
        assert isinstance(event, Transcribed)
        is_new = self._said.put(event.number, event.text)
        if not is_new or (is_backchannel(event.text) and not (self._words_count and words_of(event.text))):
            return
        if self.state in {State.HELD, State.DECIDING}:
            self._interrupt(now_ms)
            return
        self.counters.late_interruptions += 1
        self.counters.interrupted += 1
        self._out.append(Interrupt())
        self._open_turn(now_ms)
        self._after_interruption(now_ms)

    def _interrupt(self, now_ms: int) -> None:
        is_silent = self.state is State.DECIDING
        self.counters.interrupted += 1
        self._out.append(Interrupt())
        self._open_turn(now_ms)
        if is_silent:
            self._after_interruption(now_ms)

    def _after_interruption(self, now_ms: int) -> None:
        """The words that interrupted may be all that the caller had to say."""
        self._enter(State.WAITING, now_ms)
        self._weigh(self._said.last, now_ms)

    def _resume(self, now_ms: int) -> None:
        self.counters.resumed += 1
        if self._transcribe_due_ms is not None:
            # A pause that was reported late, as to a worker that took the call over: its words may interrupt still.
            self._transcribe(now_ms)
        self._out.append(Resume())
        if self._audible or not self._spoke:
            self._enter(State.ANSWERING, now_ms)
        else:
            self._silence(now_ms)


_Transition = Callable[[TurnTaker, Event, int], None]

_TRANSITIONS: Final[dict[tuple[State, type], _Transition]] = {
    (State.IDLE, SpeechStarted): TurnTaker._turn_begins,
    (State.IDLE, SpeechResumed): TurnTaker._turn_begins,
    (State.IDLE, Transcribed): TurnTaker._sound_heard,
    (State.SPEAKING, SpeechPaused): TurnTaker._paused,
    (State.SPEAKING, SpeechStopped): TurnTaker._paused,
    (State.SPEAKING, SpeechCut): TurnTaker._cut,
    (State.SPEAKING, Transcribed): TurnTaker._heard,
    (State.WAITING, SpeechResumed): TurnTaker._resumes,
    (State.WAITING, SpeechStarted): TurnTaker._goes_on,
    (State.WAITING, SpeechStopped): TurnTaker._stopped,
    (State.WAITING, Transcribed): TurnTaker._heard,
    (State.WAITING, ModelJudged): TurnTaker._judged,
    (State.ANSWERING, SpeechStarted): TurnTaker._hold,
    (State.ANSWERING, SpeechResumed): TurnTaker._hold,
    (State.ANSWERING, Transcribed): TurnTaker._sound_heard,
    (State.HELD, SpeechPaused): TurnTaker._paused,
    (State.HELD, SpeechStopped): TurnTaker._paused,
    (State.DECIDING, SpeechResumed): TurnTaker._sound_resumes,
    (State.DECIDING, SpeechStarted): TurnTaker._sound_resumes,
    (State.DECIDING, SpeechStopped): TurnTaker._stopped,
    (State.DECIDING, Transcribed): TurnTaker._sound_heard,
}
_ANY_STATE: Final[dict[type, _Transition]] = {
    Answered: TurnTaker._answered,
    PlayoutStarted: TurnTaker._playout_started,
    PlayoutEnded: TurnTaker._playout_ended,
    FarewellDue: TurnTaker._farewell_due,
    KeyPressed: TurnTaker._key_pressed,
}
