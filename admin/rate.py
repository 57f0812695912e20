"""How much anybody may ask: token buckets, one for each of who asks, in a table that cannot grow without end. Sans-IO.

A bucket begins full, every request takes one out, and it fills at a steady rate. A full bucket says nothing, so that
forgetting it changes nothing. Where the table has no room, the least recently used full bucket among the `LOOKED_AT` oldest
goes; where none of these is full, the very oldest does, which gives its owner a full one back: that is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

from admin.errors import Throttled
from admin.principals import Principal
from config.admin import RateLimit

MAX_BUCKETS: Final = 10_000
LOOKED_AT: Final = 16
MINUTE_MS: Final = 60_000

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(slots=True)
class _Bucket:
    """How much was in it when; in sixty-thousandths, so that all sums are of whole numbers."""

    parts: int
    at_ms: int


class Buckets(Generic[KeyT]):
    """A bucket for each key. Times are any clock's that does not go back; where it does, buckets wait for it."""

    def __init__(self, limit: RateLimit, size_max: int = MAX_BUCKETS) -> None:
        if size_max < 1:
            raise ValueError("size_max must be at least 1")
        self._full = limit.burst * MINUTE_MS
        self._per_ms = limit.per_minute
        self._size_max = size_max
        self._buckets: OrderedDict[KeyT, _Bucket] = OrderedDict()
        """The least recently used first."""
        self.forgotten_early = 0
        """Buckets that were dropped before they were full."""

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_ms(self, key: KeyT, now_ms: int) -> int:
        """How long until one can be taken; 0: now. Takes nothing."""
        bucket = self._buckets.get(key)
        if bucket is None:
            return 0
        missing = MINUTE_MS - self._parts(bucket, now_ms)
        return -(-missing // self._per_ms) if missing > 0 else 0

    def take(self, key: KeyT, now_ms: int) -> int:
        """Take one and return 0; where there is none, take nothing and return how long until there is."""
        wait_ms = self.wait_ms(key, now_ms)
        if wait_ms == 0:
            bucket = self._buckets.get(key)
            if bucket is None:
                self._make_room(now_ms)
                bucket = self._buckets[key] = _Bucket(self._full, now_ms)
            bucket.parts = self._parts(bucket, now_ms) - MINUTE_MS
            bucket.at_ms = max(bucket.at_ms, now_ms)
        if key in self._buckets:
            self._buckets.move_to_end(key)
        return wait_ms

    def left(self, key: KeyT, now_ms: int) -> int:
        """How many can be taken at once now."""
        bucket = self._buckets.get(key)
        return (self._full if bucket is None else self._parts(bucket, now_ms)) // MINUTE_MS

    def full_in_ms(self, key: KeyT, now_ms: int) -> int:
        """How long until as many can be taken as ever."""
        bucket = self._buckets.get(key)
        return 0 if bucket is None else -(-(self._full - self._parts(bucket, now_ms)) // self._per_ms)

    def _parts(self, bucket: _Bucket, now_ms: int) -> int:
        return min(self._full, bucket.parts + max(0, now_ms - bucket.at_ms) * self._per_ms)

    def _make_room(self, now_ms: int) -> None:
        if len(self._buckets) < self._size_max:
            return
        for key, bucket in islice(self._buckets.items(), LOOKED_AT):
            if self._parts(bucket, now_ms) >= self._full:
                del self._buckets[key]
                return
        self._buckets.popitem(last=False)
        self.forgotten_early += 1


class RateLimiter:
    """`admin.ports.Limiter`: a bucket for each principal, whatever token it comes with."""

    def __init__(self, limit: RateLimit, size_max: int = MAX_BUCKETS) -> None:
        self._buckets: Buckets[tuple[str, str]] = Buckets(limit, size_max)
        self._limit = limit
        fills_in_s = -(-limit.burst * 60 // limit.per_minute)
        self._policy = f'"requests";q={limit.burst};w={fills_in_s}'
        self.refused = 0

    def take(self, principal: Principal, now_ms: int) -> Mapping[str, str]:
        key = (principal.issuer, principal.subject)
        wait_ms = self._buckets.take(key, now_ms)
        left, full_in_s = self._buckets.left(key, now_ms), -(-self._buckets.full_in_ms(key, now_ms) // 1000)
        fields = {"RateLimit-Policy": self._policy, "RateLimit": f'"requests";r={left};t={full_in_s}'}
        if wait_ms:
            self.refused += 1
            raise Throttled(
                f"too many requests: {self._limit.per_minute} a minute, and {self._limit.burst} at once, are allowed",
                retry_after_s(wait_ms),
                fields,
            )
        return fields


def retry_after_s(wait_ms: int) -> int:
    """Whole seconds, at least one: by then the wait is over."""
    return max(1, -(-wait_ms // 1000))
