"""A media link without media: the test decides when what was queued has been played."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from mediaserver.errors import LinkClosed
from mediaserver.media_link import MediaEvent


@dataclass
class Queued:
    """A chunk in the simulated playout."""

    mark: int
    duration_ms: int
    pcm: bytes


@dataclass
class SimulatedLink:
    """Implements `MediaLink`; `played` and `commands` are for the test to look at."""

    events: asyncio.Queue[MediaEvent | None] = field(default_factory=asyncio.Queue)
    queue: list[Queued] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    paused: bool = False
    _mark: int = 0

    def next_mark(self) -> int:
        self._mark += 1
        return self._mark

    def play(self, pcm: bytes, rate_hz: int, mark: int) -> None:
        self.queue.append(Queued(mark, len(pcm) * 1000 // (2 * rate_hz), pcm))

    def pause(self) -> None:
        self.paused = True
        self.commands.append("pause")

    def resume(self) -> None:
        self.paused = False
        self.commands.append("resume")

    def flush(self) -> None:
        self.commands.append("flush")

    async def next_event(self) -> MediaEvent:
        event = await self.events.get()
        if event is None:
            raise LinkClosed("the simulated call is over")
        return event

    def deliver(self, event: MediaEvent) -> None:
        """Hand an event to the pipeline."""
        self.events.put_nowait(event)

    def close(self) -> None:
        """The call's media has ended."""
        self.events.put_nowait(None)
