"""How often something may happen: a bucket that holds a burst and fills again one by one. Sans-IO: the time is an argument.

A bucket's whole state is the time at which it would be full again, so a table of them is a table of numbers
(the virtual scheduling of ITU-T I.371's cell rate algorithm).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `burst` at once, and one more after every `refill_ms`."""

    burst: int
    refill_ms: int

    def wait_ms(self, full_at_ms: int, now_ms: int, count: int = 1) -> int:
        """How long until the bucket holds ``count``; 0: it does. More than `burst` it never holds."""
        return max(0, self.taken(full_at_ms, now_ms, count) - now_ms - self.burst * self.refill_ms)

    def taken(self, full_at_ms: int, now_ms: int, count: int = 1) -> int:
        """When the bucket is full again after ``count`` were taken from it."""
        return max(full_at_ms, now_ms) + count * self.refill_ms
