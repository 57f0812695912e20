"""Who of a chain is asked, and when. Sans-IO: times come in, in milliseconds; what to do comes out.

One `Race` is one piece of work (an utterance, a reply, a sentence) through one chain. Rules:

- The first entrant is asked. One that fails, or delivers nothing within its budget, is followed by the next.
- One that is still silent after ``hedge_ms`` gets the next beside it, where both may be hedged; the first to deliver
  streams, the other is dropped. Never more than `MAX_IN_FLIGHT` at a time.
- One that streams may be silent for ``stall_ms`` between two pieces and take ``total_ms`` altogether. When it breaks off,
  the race goes on with those that have not failed, unless the stage ends it.
- An entrant that failed is not asked again, so every race ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mediaserver.errors import FailureCause

MAX_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class Terms:
    """The budgets of a stage."""

    first_ms: int
    """Until the first piece of an answer."""
    stall_ms: int
    """Silence allowed inside an answer."""
    total_ms: int
    """For a whole answer, from the request on."""
    hedge_ms: int | None = None
    """Silence after which the next is asked as well; None: never."""

    def patience_ms(self, entrant: Entrant) -> int:
        """How long this entrant may take to its first piece. A probe has half: it has failed before."""
        return max(1, self.first_ms // 2) if entrant.probe else self.first_ms


@dataclass(frozen=True, slots=True)
class Entrant:
    """A provider of the race."""

    position: int
    """In the chain."""
    hedged: bool
    """Whether it may be asked beside another, and another beside it."""
    probe: bool = False
    """Whether its breaker lets it through on trial."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send the request to this provider."""

    position: int
    hedge: bool
    """Beside another that is still silent."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Cancel this provider's request: it has failed. ``why`` is for people."""

    position: int
    cause: FailureCause
    why: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Cancel this provider's request: another delivered first."""

    position: int
    slow: bool
    """It was asked before the one that won."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody is left."""


Action = Ask | Fail | Drop | GiveUp


class _Place(Enum):
    """Where an entrant stands."""

    WAITING = "waiting"
    ASKED = "asked"
    STREAMING = "streaming"
    FAILED = "failed"


@dataclass(slots=True)
class _Runner:
    entrant: Entrant
    place: _Place = _Place.WAITING
    asked_ms: int = 0
    heard_ms: int = 0


class Race:
    """One piece of work; see the module's docstring. Every method returns what to do now."""

    def __init__(self, entrants: Sequence[Entrant], terms: Terms) -> None:
        self._terms = terms
        self._runners = {entrant.position: _Runner(entrant) for entrant in entrants}
        self.over = False

    @property
    def streaming(self) -> int | None:
        """The position of the provider whose answer is being taken."""
        return next(
            (position for position, one in self._runners.items() if one.place is _Place.STREAMING), None
        )

    @property
    def more(self) -> bool:
        """Whether anybody is in flight or may still be asked."""
        return any(one.place is not _Place.FAILED for one in self._runners.values())

    @property
    def deadline_ms(self) -> int | None:
        """When `poll` is due, unless something happens before."""
        if self.over:
            return None
        due = [self._due_ms(one) for one in self._in_flight()]
        hedge = self._hedge_due_ms()
        return min([*due, hedge] if hedge is not None else due, default=None)

    def begin(self, now_ms: int) -> tuple[Action, ...]:
        """Ask the first."""
        return self._next(now_ms, hedge=False)

    def delivered(self, position: int, now_ms: int) -> tuple[Action, ...]:
        """A piece of an answer came. Pieces of those that are not in flight mean nothing."""
        one = self._runners[position]
        if one.place is _Place.STREAMING:
            one.heard_ms = now_ms
            return ()
        if one.place is not _Place.ASKED or self.over:
            return ()
        one.place = _Place.STREAMING
        one.heard_ms = now_ms
        dropped = []
        for other in self._in_flight():
            if other is not one:
                # It has not failed: it may be asked again if the winner breaks off.
                other.place = _Place.WAITING
                dropped.append(Drop(other.entrant.position, slow=other.asked_ms < one.asked_ms))
        return tuple(dropped)

    def failed(self, position: int, now_ms: int) -> tuple[Action, ...]:
        """A provider's request failed, or could not be sent."""
        one = self._runners[position]
        if self.over or one.place not in (_Place.ASKED, _Place.STREAMING):
            return ()
        one.place = _Place.FAILED
        return () if self._in_flight() else self._next(now_ms, hedge=False)

    def finished(self, position: int) -> None:
        """The answer that streams has come to its end."""
        self.over = self.over or self.streaming == position

    def resumed(self, now_ms: int) -> None:
        """Whoever takes the answer was busy: the silence until now was ours."""
        for one in self._runners.values():
            if one.place is _Place.STREAMING:
                one.heard_ms = max(one.heard_ms, now_ms)

    def poll(self, now_ms: int) -> tuple[Action, ...]:
        """Do what is due."""
        if self.over:
            return ()
        actions: list[Action] = []
        for one in self._in_flight():
            if now_ms >= self._due_ms(one):
                actions.append(self._overdue(one, now_ms))
                actions += self.failed(one.entrant.position, now_ms)
        hedge_ms = self._hedge_due_ms()
        if hedge_ms is not None and now_ms >= hedge_ms:
            actions += self._next(now_ms, hedge=True)
        return tuple(actions)

    def _in_flight(self) -> list[_Runner]:
        return [one for one in self._runners.values() if one.place in (_Place.ASKED, _Place.STREAMING)]

    def _due_ms(self, one: _Runner) -> int:
        if one.place is _Place.ASKED:
            return one.asked_ms + self._terms.patience_ms(one.entrant)
        return min(one.heard_ms + self._terms.stall_ms, one.asked_ms + self._terms.total_ms)

    def _overdue(self, one: _Runner, now_ms: int) -> Fail:
        position, terms = one.entrant.position, self._terms
        if one.place is _Place.ASKED:
            patience_ms = terms.patience_ms(one.entrant)
            return Fail(position, FailureCause.TIMEOUT, f"nothing within {patience_ms} ms")
        if now_ms >= one.asked_ms + terms.total_ms:
            return Fail(position, FailureCause.STALL, f"no end within {terms.total_ms} ms")
        return Fail(position, FailureCause.STALL, f"silent for {terms.stall_ms} ms in its answer")

    def _hedge_due_ms(self) -> int | None:
        """When the one silent provider gets company; None: it does not."""
        in_flight = self._in_flight()
        waiting = self._waiting()
        if self._terms.hedge_ms is None or waiting is None or not 0 < len(in_flight) < MAX_IN_FLIGHT:
            return None
        (one,) = in_flight
        if one.place is not _Place.ASKED or not (one.entrant.hedged and waiting.entrant.hedged):
            return None
        return one.asked_ms + self._terms.hedge_ms

    def _waiting(self) -> _Runner | None:
        return next((one for one in self._runners.values() if one.place is _Place.WAITING), None)

    def _next(self, now_ms: int, *, hedge: bool) -> tuple[Action, ...]:
        one = self._waiting()
        if one is None:
            self.over = True
            return (GiveUp(),)
        one.place = _Place.ASKED
        one.asked_ms = now_ms
        return (Ask(one.entrant.position, hedge),)
