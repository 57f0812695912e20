"""Named deadlines without a clock."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from itertools import count

_SLACK = 256


class Deadlines:
    """Sets, clears and yields deadlines; a name has at most one.

    Clearing is lazy; the heap is rebuilt when dead entries outnumber live ones, which bounds it.
    """

    def __init__(self) -> None:
        self._due: dict[Hashable, tuple[int, int]] = {}
        self._heap: list[tuple[int, int, Hashable]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._due)

    def set(self, name: Hashable, at_ms: int) -> None:
        """Set or move a deadline."""
        order = next(self._order)
        self._due[name] = (at_ms, order)
        heapq.heappush(self._heap, (at_ms, order, name))
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            self._heap = [(at, order, name) for name, (at, order) in self._due.items()]
            heapq.heapify(self._heap)

    def clear(self, name: Hashable) -> None:
        """Forget a deadline; unknown names are fine."""
        self._due.pop(name, None)

    def next_ms(self) -> int | None:
        """Return the earliest deadline."""
        self._drop_dead()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_ms: int) -> Hashable | None:
        """Take the earliest deadline that has come."""
        self._drop_dead()
        if not self._heap or self._heap[0][0] > now_ms:
            return None
        name = heapq.heappop(self._heap)[2]
        del self._due[name]
        return name

    def _drop_dead(self) -> None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
