"""What a process learns about keys while its calls go on. Sans-IO: times come in, of any monotonic clock.

A key that is refused is not asked with again in this process until its hold-off is over, and whoever resolves the next
call's keys is told of it.

Told are refusals, and of each chain of a call the first success with a key, which ends a hold-off. Both within a rate, over
which reports are dropped and counted: the next request says the same again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mediaserver.providers.breaker import Stage
from vault.resolver import KeyRef, KeyResolver, Outcome, Service

REPORTS_PER_S: Final = 100
REPORTS_BURST: Final = 400


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What a request says about the key that it was made with."""

    stage: Stage
    key: KeyRef
    outcome: Outcome
    took_ms: int
    """From the request to its answer."""
    retry_after_ms: int | None = None


Tell = Callable[[KeyReport], None]


@dataclass(slots=True)
class _Allowance:
    """Reports that may be told now."""

    left: float = REPORTS_BURST
    at_ms: int = 0

    def take(self, now_ms: int) -> bool:
        earned = max(0, now_ms - self.at_ms) * REPORTS_PER_S / 1_000
        self.left, self.at_ms = min(REPORTS_BURST, self.left + earned), now_ms
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class _Known:
    """Of a process."""

    resolver: KeyResolver = field(default_factory=KeyResolver)
    allowance: _Allowance = field(default_factory=_Allowance)
    dropped: int = 0


class KeyWatch:
    """One for a process, and one of `for_call` for each of its calls, which know the same."""

    def __init__(self, tell: Tell = lambda _: None, on_dropped: Callable[[], object] = lambda: None) -> None:
        self._tell = tell
        self._on_dropped = on_dropped
        self._known = _Known()

    def for_call(self, tell: Tell, on_dropped: Callable[[], object] = lambda: None) -> KeyWatch:
        """The same with somebody else to tell."""
        watch = KeyWatch(tell, on_dropped)
        watch._known = self._known
        return watch

    @property
    def dropped(self) -> int:
        """Reports over the rate."""
        return self._known.dropped

    def held_off(self, stage: Stage, key: KeyRef | None, now_ms: int) -> bool:
        """Whether nobody is to ask with this key now."""
        return key is not None and self._known.resolver.held_off(Service(stage), key, now_ms)

    def report(self, report: KeyReport, now_ms: int) -> None:
        """Take what a request says about its key."""
        known = self._known
        known.resolver.report(
            Service(report.stage),
            report.key,
            report.outcome,
            began_ms=now_ms - report.took_ms,
            now_ms=now_ms,
            retry_after_ms=report.retry_after_ms,
        )
        if known.allowance.take(now_ms):
            self._tell(report)
        else:
            known.dropped += 1
            self._on_dropped()
