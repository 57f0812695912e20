"""Measures the node for `tenancy.gate` and keeps it in the store: one short transaction a minute, which no call waits for.

Minutes that cannot be written are kept here until they can, the newest of them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final
from uuid import uuid4

from loguru import logger

from mediaserver.telemetry import schema
from mediaserver.telemetry.meters import Distribution, Meters
from mediaserver.telemetry.sources import Reading
from tenancy import TenancyError
from tenancy.figures import MINUTE_MS, NodeMinute, NodeRow, StoreMinute, Tally
from tenancy.gate import KEPT_MINUTES, Gate, GateBounds, figures_of
from tenancy.store import NodeStore

LOOK_S: Final = 1.0
"""Between two looks at the calls in progress."""
MAX_WAITING: Final = 60
"""Minutes that wait to be written; beyond them the oldest goes."""
MAX_HOST_CHARACTERS: Final = 255


class GateWatch:
    """One node's, from `start` to `close`."""

    def __init__(
        self,
        store: NodeStore,
        bounds: GateBounds,
        calls: Callable[[], tuple[int, int]],
        meters: Meters,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """``calls``: how many are in progress, and how many there may be."""
        self._store = store
        self._calls = calls
        self._meters = meters
        self._now_ms = now_ms
        self._gate = Gate(bounds)
        self._nodes = 0
        self._failing = False
        now = now_ms()
        host = socket.gethostname()[:MAX_HOST_CHARACTERS]
        self._node = NodeRow(uuid4().hex, host, os.getpid(), now, now)
        self._tally = Tally(self._node.node_id)
        self._waiting: deque[NodeMinute] = deque(maxlen=MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    @property
    def node_id(self) -> str:
        """Under which it keeps its figures."""
        return self._node.node_id

    async def start(self) -> None:
        """Say that the node is there, and look at what was measured before; then go on by itself."""
        try:
            by_minute: dict[int, list[NodeMinute]] = {}
            now = self._now_ms() // MINUTE_MS
            for each in await self._store.minutes_since(now - KEPT_MINUTES):
                if each.minute <= now:
                    by_minute.setdefault(each.minute, []).append(each)
            for minute in sorted(by_minute):
                self._gate.take(minute, figures_of(by_minute[minute]))
        except TenancyError as error:
            logger.warning("what this node measured before is not known: {}", error)
        await self._keep()
        self._task = asyncio.create_task(self._run(), name="gate-watch")

    async def close(self) -> None:
        """Keep what the minute that has begun says, and say that the node ends."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        if (over := self._tally.end(self._store.figures)) is not None:
            self._count(*over)
        await self._keep()
        try:
            await self._store.leave(self._node.node_id)
        except TenancyError as error:
            logger.warning("the store could not be told that the node ends: {}", error)

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """One look; where a minute is over, it is kept."""
        over = self._tally.look(self._now_ms(), *self._calls(), self._store.figures)
        if over is not None:
            self._count(*over)
            await self._keep()

    def _count(self, minute: NodeMinute, store: StoreMinute) -> None:
        if len(self._waiting) == MAX_WAITING:
            self._meters.inc(schema.STORE_MINUTES, "dropped")
        self._waiting.append(minute)
        waits = Distribution(list(store.waits), store.wait_ms / 1_000)
        self._meters.merge(schema.STORE_WRITE_WAIT_SECONDS, (), waits)
        self._meters.inc(schema.STORE_LOCKED, by=store.locked)
        self._meters.inc(schema.STORE_CROSSINGS, by=store.crossings)
        self._meters.inc(schema.STORE_CROSSING_SECONDS, by=store.crossing_ms / 1_000)

    async def _keep(self) -> None:
        minutes, now_ms = tuple(self._waiting), self._now_ms()
        node = NodeRow(self._node.node_id, self._node.host, self._node.pid, self._node.started_ms, now_ms)
        try:
            self._nodes = await self._store.keep_minutes(node, minutes)
            known = await self._store.minutes_since(minutes[0].minute) if minutes else ()
        except TenancyError as error:
            self._meters.inc(schema.STORE_MINUTES, "failed")
            if not self._failing:
                logger.warning("what the node measures cannot be kept at the moment: {}", error)
            self._failing = True
            return
        self._failing = False
        self._waiting.clear()
        self._meters.inc(schema.STORE_MINUTES, "kept", by=len(minutes))
        for minute in minutes:
            # With what other nodes have kept of it by now.
            self._gate.take(minute.minute, figures_of(each for each in known if each.minute == minute.minute))

    def readings(self) -> Iterator[Reading]:
        """For the metrics."""
        yield Reading(schema.STORE_NODES, self._nodes)
        # Of the minute before the one that may be about to be kept: what is later than a look is not taken in.
        for finding in self._gate.findings(self._now_ms() // MINUTE_MS - 2):
            yield Reading(schema.GATE_REACHED, finding.reached, (str(finding.criterion),))
