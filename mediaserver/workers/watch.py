"""Whether a worker lives: pings, and what their absence means. Sans-IO.

Rules:

* a ping goes out at every tick; what counts is the time since the last one was answered;
* after `suspect_ms` without an answer the worker's callers are told to wait, after `lost_ms` the worker is ended and its calls
  go elsewhere; an answer before that clears the suspicion;
* a worker that has said that it will stand still for a while is not missed before;
* time in which the edge itself did not run counts for nothing: a tick that comes late counts as one that came in time;
* nor does time in which the worker waited for a processor, up to `STARVED_MS_MAX` without an answer: where the machine is too busy,
  ending a worker and building its calls anew elsewhere would make it busier.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

LATE_TICKS = 4
"""A tick later than so many periods says that the edge was held up, not the worker."""


EXCUSED_MS = 400
"""Looking for garbage among 400 calls takes about so long."""

STARVED_MS_MAX = 2_000
"""A caller who has waited so long is not helped by patience."""


class Health(Enum):
    """What is known of a worker."""

    WELL = "well"
    SUSPECT = "suspect"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class WatchParams:
    """In milliseconds."""

    tick_ms: int = 25
    suspect_ms: int = 140
    lost_ms: int = 350


class WorkerWatch:
    """The watch over one worker, from the moment at which it was ready."""

    def __init__(self, params: WatchParams, now_ms: int) -> None:
        self._params = params
        self._ticked_ms = now_ms
        self._silent_ms = 0
        self._starved_ms = 0
        self._sent = 0
        self._answered = 0
        self.health = Health.WELL

    @property
    def silent_ms(self) -> int:
        """For how long a ping has been without an answer."""
        return max(0, self._silent_ms)

    def tick(self, now_ms: int, waited_ms: int = 0) -> int | None:
        """A period has passed: the number of the ping to send, or none when the worker is lost. Look at `health` then.

        `waited_ms`: for how long of it the worker was ready to run and no processor was free.
        """
        period_ms = self._params.tick_ms
        elapsed_ms = max(0, now_ms - self._ticked_ms)
        self._ticked_ms = now_ms
        if self._answered < self._sent:
            counted_ms = elapsed_ms if elapsed_ms <= LATE_TICKS * period_ms else period_ms
            starved_ms = max(0, min(waited_ms, counted_ms, STARVED_MS_MAX - self._starved_ms))
            self._starved_ms += starved_ms
            self._silent_ms += counted_ms - starved_ms
        if self._silent_ms >= self._params.lost_ms:
            self.health = Health.LOST
            return None
        if self._silent_ms >= self._params.suspect_ms:
            self.health = Health.SUSPECT
        self._sent += 1
        return self._sent

    def pong(self, number: int) -> None:
        """The worker answered a ping. Answers that were never asked for are ignored."""
        if not self._answered < number <= self._sent or self.health is Health.LOST:
            return
        self._answered = number
        self._silent_ms = 0
        self._starved_ms = 0
        self.health = Health.WELL

    def excuse(self) -> None:
        """The worker says that it stands still for a moment: `EXCUSED_MS` more pass before it is missed, until it answers."""
        if self.health is not Health.LOST:
            self._silent_ms = -EXCUSED_MS
