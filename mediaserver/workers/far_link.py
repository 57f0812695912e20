"""The media link as a pipeline in a worker sees it: the leg itself is in the edge."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mediaserver._native import Flushed, MediaError, Played, SpeechAudio
from mediaserver.errors import LinkClosed
from mediaserver.media_link import MAX_PENDING_EVENTS, MediaEvent
from mediaserver.workers.messages import Flush, Message, Pause, Play, Resume

MAX_QUEUED_MS = 110_000
"""The engine keeps two minutes of a leg's speech; less here, since what is played is learnt later."""


class FarMediaLink:
    """A `MediaLink` over messages."""

    def __init__(self, send: Callable[[Message], None], first_mark: int) -> None:
        self._send = send
        self._mark = first_mark
        self._queued_ms: dict[int, int] = {}
        self._events: deque[MediaEvent] = deque()
        self._wake = asyncio.Event()
        self._closed = False
        self.dropped_events = 0

    def next_mark(self) -> int:
        self._mark += 1
        return self._mark

    def play(self, pcm: bytes, rate_hz: int, mark: int) -> None:
        """Queue a chunk; raises `MediaError` when two minutes wait, as the engine does."""
        duration_ms = len(pcm) * 1000 // (2 * rate_hz)
        if sum(self._queued_ms.values()) + duration_ms > MAX_QUEUED_MS:
            raise MediaError(f"more than {MAX_QUEUED_MS // 1000} s of speech wait to be played")
        self._queued_ms[mark] = duration_ms
        self._send(Play(mark, rate_hz, pcm))

    def pause(self) -> None:
        self._send(Pause())

    def resume(self) -> None:
        self._send(Resume())

    def flush(self) -> None:
        self._send(Flush())

    def deliver(self, event: MediaEvent) -> None:
        """Take an event from the edge; beyond the bound the oldest audio goes, else the oldest event."""
        if isinstance(event, Played):
            self._queued_ms.pop(event.mark, None)
        elif isinstance(event, Flushed):
            self._queued_ms.clear()
        if len(self._events) >= MAX_PENDING_EVENTS:
            self.dropped_events += 1
            oldest = next(
                (place for place, held in enumerate(self._events) if isinstance(held, SpeechAudio)), 0
            )
            del self._events[oldest]
        self._events.append(event)
        self._wake.set()

    async def next_event(self) -> MediaEvent:
        while not self._events:
            if self._closed:
                raise LinkClosed("the call's media has ended")
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()

    def close(self) -> None:
        """There will be no further event."""
        self._closed = True
        self._wake.set()
