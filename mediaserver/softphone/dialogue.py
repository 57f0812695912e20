"""The course of a test call, sans-IO: when to speak, what counts as an answer, how long it took.

Rules: the caller lets the greeting end, asks, waits for the answer, lets it end, asks the next thing, and hangs up after
the last answer. An answer's latency is the time from the last packet of the question to the first audible packet of the
answer. Silence ends a stretch of speech only after `quiet_ms`, because an answer has pauses between its sentences.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    """Where the call stands."""

    GREETING = "greeting"
    SPEAKING = "speaking"
    WAITING = "waiting"
    LISTENING = "listening"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Say:
    """Play the utterance with this number."""

    index: int


@dataclass(frozen=True, slots=True)
class Heard:
    """A stretch of the other side's speech is complete: the greeting (index None) or the answer to an utterance."""

    index: int | None
    latency_ms: int | None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Nothing came back to the utterance with this number."""

    index: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """The conversation is over."""


DialogueAction = Say | Heard | Unanswered | HangUp


@dataclass(slots=True)
class Dialogue:
    """The state machine. Times are microseconds of one monotonic clock."""

    utterances: int
    quiet_ms: int = 1_300
    greeting_wait_ms: int = 8_000
    answer_wait_ms: int = 20_000
    interrupt_greeting_ms: int | None = None
    """Speak this long after the greeting has begun instead of letting it end."""
    state: State = State.GREETING
    deadline_us: int | None = None
    greeting_latency_ms: int | None = None
    latencies_ms: list[int] = field(default_factory=list)
    unanswered: int = 0
    _index: int = -1
    _said_at_us: int = 0
    _remote_spoke: bool = False

    def connected(self, now_us: int) -> None:
        """The call is up; the greeting should come."""
        self._said_at_us = now_us
        self.deadline_us = now_us + self.greeting_wait_ms * 1000

    def remote_active(self, at_us: int) -> None:
        """The other side became audible."""
        if self.state is State.GREETING and not self._remote_spoke:
            self.greeting_latency_ms = (at_us - self._said_at_us) // 1000
        if self.state is State.WAITING:
            self.state = State.LISTENING
            self.latencies_ms.append((at_us - self._said_at_us) // 1000)
        if self.state is State.GREETING and self.interrupt_greeting_ms is not None:
            if not self._remote_spoke:
                self.deadline_us = at_us + self.interrupt_greeting_ms * 1000
            self._remote_spoke = True
        elif self.state in (State.GREETING, State.LISTENING):
            self._remote_spoke = True
            self.deadline_us = None

    def remote_quiet(self, at_us: int) -> None:
        """The other side fell silent; ``at_us`` is its last audible packet."""
        interrupting = self.state is State.GREETING and self.interrupt_greeting_ms is not None
        if self.state in (State.GREETING, State.LISTENING) and self._remote_spoke and not interrupting:
            self.deadline_us = at_us + self.quiet_ms * 1000

    def said(self, at_us: int) -> None:
        """The last packet of the current utterance has gone out."""
        if self.state is State.SPEAKING:
            self.state = State.WAITING
            self._said_at_us = at_us
            self._remote_spoke = False
            self.deadline_us = at_us + self.answer_wait_ms * 1000

    def poll(self, now_us: int) -> tuple[DialogueAction, ...]:
        """What to do, once the deadline has passed."""
        if self.state is State.OVER or self.deadline_us is None or now_us < self.deadline_us:
            return ()
        self.deadline_us = None
        match self.state:
            case State.GREETING:
                heard = (Heard(None, self.greeting_latency_ms),) if self._remote_spoke else ()
                return (*heard, *self._next())
            case State.LISTENING:
                return (Heard(self._index, self.latencies_ms[-1]), *self._next())
            case State.WAITING:
                self.unanswered += 1
                return (Unanswered(self._index), *self._next())
            case _:
                return ()

    def remote_hung_up(self) -> tuple[DialogueAction, ...]:
        """The other side ended the call."""
        pending: tuple[DialogueAction, ...] = ()
        if self.state is State.LISTENING:
            pending = (Heard(self._index, self.latencies_ms[-1]),)
        elif self.state in (State.WAITING, State.SPEAKING):
            self.unanswered += 1
            pending = (Unanswered(self._index),)
        self.state = State.OVER
        self.deadline_us = None
        return pending

    def _next(self) -> tuple[DialogueAction, ...]:
        self._index += 1
        self._remote_spoke = False
        if self._index >= self.utterances:
            self.state = State.OVER
            return (HangUp(),)
        self.state = State.SPEAKING
        return (Say(self._index),)
