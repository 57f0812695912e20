"""An event loop whose clock jumps to the next timer when there is nothing to do: hours of waiting in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait: tells how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("everything waits for ever")
            self.now_s += max(0.0, timeout)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop for work without sockets and threads."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time; no task may be left."""
    loop = VirtualTimeLoop()
    try:
        outcome = loop.run_until_complete(work)
        loop.run_until_complete(loop.shutdown_asyncgens())
        left = asyncio.all_tasks(loop)
        assert not left, left
        return outcome
    finally:
        loop.close()
