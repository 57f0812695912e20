"""The call workers of a node: who has which call, who is well, and who takes over."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from loguru import logger

from mediaserver.errors import StartupError
from mediaserver.media_link import LocalMediaLink
from mediaserver.phrase_cache import PHRASE_RATE_HZ, PhraseCache
from mediaserver.pipeline.call_pipeline import CallObserver
from mediaserver.providers.key_watch import KeyReport
from mediaserver.receptionist import Phrases
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import WORKER_RESTARTS
from mediaserver.telemetry.sources import WorkerHealth
from mediaserver.workers import messages
from mediaserver.workers.connection import Connection
from mediaserver.workers.ends import Ends
from mediaserver.workers.hosted import HostedCall, WorkersUnavailable
from mediaserver.workers.messages import (
    CallTaken,
    KeepPhrase,
    Message,
    Ping,
    Pong,
    Ready,
    Retire,
    StandsStill,
)
from mediaserver.workers.nursery_client import Nursery, log_end
from mediaserver.workers.run_queue import RunQueue
from mediaserver.workers.watch import Health, WatchParams, WorkerWatch
from mediaserver.workers.worker_settings import WorkerSettings
from tenancy import TenantContext
from tenancy.wire import dump_context

READY_TIMEOUT_S = 20.0
MAX_OPENING = 4
"""Pipelines that a worker is asked for at a time. Building one takes milliseconds; a worker that was given a hundred calls at once
(those of a lost one) answered nobody for so long that it was given up too, and so the next."""
MAX_BIRTH_PAUSE_S = 5.0
"""Between attempts to replace a worker, where attempts fail."""
MAX_CONFIGS = 1_000
"""Configurations whose text is kept."""


class Stage(Enum):
    """A worker's life."""

    STARTING = "starting"
    TAKING_CALLS = "taking calls"
    RETIRING = "retiring"
    """It keeps its calls and gets no further ones."""
    LOST = "lost"


@dataclass(eq=False, slots=True)
class Worker:
    """One worker process, from the edge's side."""

    pid: int
    pidfd: int
    """Its process and no other that gets its number later."""
    connection: Connection | None = None
    stage: Stage = Stage.STARTING
    watch: WorkerWatch | None = None
    run_queue: RunQueue | None = None
    calls: dict[int, HostedCall] = field(default_factory=dict)
    opening: set[int] = field(default_factory=set)
    """Those whose pipelines it has not built yet."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def enlist(self, call: HostedCall) -> None:
        """The call is its from now on."""
        self.calls[call.number] = call
        self.opening.add(call.number)

    def send(self, call: int, message: Message) -> None:
        """Send it a message; nothing once it is lost."""
        if self.connection is not None:
            self.connection.send(call, message)


@dataclass(slots=True)
class PoolCounters:
    """What happened to workers."""

    lost: dict[str, int] = field(default_factory=lambda: {"ended": 0, "hung": 0})
    takeovers: int = 0
    suspicions: int = 0
    started: int = 0


class WorkerPool:
    """N workers, all alike; a call goes to the one with the fewest."""

    def __init__(
        self,
        count: int,
        settings: WorkerSettings,
        phrases: PhraseCache,
        *,
        nursery: Nursery | None = None,
        watch: WatchParams | None = None,
        meters: Meters | None = None,
        on_delta: Callable[[bytes], object] = lambda _: None,
        on_key: Callable[[TenantContext, KeyReport], None] = lambda _, __: None,
    ) -> None:
        self._count = count
        self._settings = settings
        self._phrases = phrases
        self._watch_params = watch or WatchParams()
        self._meters = meters or Meters()
        self._on_delta = on_delta
        self._on_key = on_key
        self._ends = Ends()
        self._nursery = self._heed(nursery or Nursery())
        self._workers: list[Worker] = []
        self._waiting: dict[int, HostedCall] = {}
        """Calls that have no worker at the moment, in their order."""
        self._numbers = 0
        self._ticker: asyncio.Task[None] | None = None
        self._births: set[asyncio.Task[None]] = set()
        self._closing = False
        self._configs: dict[str, str] = {}
        self.counters = PoolCounters()

    # -- the pool's life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the nursery and the workers; when it returns, all of them take calls. Raises `StartupError`."""
        await self._nursery.start()
        try:
            await asyncio.gather(*(self._bear() for _ in range(self._count)))
        except (OSError, TimeoutError) as error:
            await self.close()
            raise StartupError(f"the call workers do not start: {error}") from error
        self._phrases.on_put = self._keep_phrase
        self._ticker = asyncio.create_task(self._tick(), name="worker-watch")

    async def close(self) -> None:
        """End all workers; calls that they still have end with them."""
        self._closing = True
        self._phrases.on_put = None
        tasks = {*self._births, *({self._ticker} if self._ticker else ())}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for worker in tuple(self._workers):
            self._part(worker, "the node stops")
        await self._nursery.close()

    @property
    def ready_workers(self) -> int:
        """Workers that take calls and answer."""
        return sum(1 for worker in self._workers if self._takes_calls(worker))

    @property
    def calls(self) -> tuple[HostedCall, ...]:
        """The calls that workers have."""
        return tuple(call for worker in self._workers for call in worker.calls.values())

    @property
    def nursery_pid(self) -> int | None:
        """The process that workers are forked from, while it runs."""
        return self._nursery.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """The workers' processes."""
        return tuple(worker.pid for worker in self._workers)

    def health(self) -> list[WorkerHealth]:
        """For the metrics."""
        return [
            WorkerHealth(place, self._takes_calls(worker), len(worker.calls), worker.pid)
            for place, worker in enumerate(self._workers)
        ]

    def snapshot(self) -> list[dict[str, object]]:
        """For the node's status."""
        return [
            {
                "pid": worker.pid,
                "stage": worker.stage.value,
                "health": worker.watch.health.value if worker.watch else "unknown",
                "calls": len(worker.calls),
            }
            for worker in self._workers
        ]

    async def replace(self) -> None:
        """Replace every worker by one of a fresh nursery, one after the other; calls stay where they are until they end."""
        nursery = self._heed(Nursery())
        await nursery.start()
        former, self._nursery = self._nursery, nursery
        for worker in tuple(self._workers):
            if worker.stage is Stage.TAKING_CALLS:
                await self._bear()
                self._retire(worker)
                self._meters.inc(WORKER_RESTARTS, "reload")
        await former.close()

    # -- calls -----------------------------------------------------------------------------------------

    def host(self, tenant: TenantContext, link: LocalMediaLink, observer: CallObserver) -> HostedCall:
        """A pipeline for a call; it gets its worker when it runs."""
        self._numbers += 1
        return HostedCall(
            self._numbers,
            lambda: self._context(tenant),
            link,
            observer,
            self,
            meters=self._meters,
            announcement=self._announcement(tenant),
            on_key=partial(self._on_key, tenant),
        )

    def place(self, call: HostedCall) -> Worker:
        """Give the call to the worker with the fewest. Raises `WorkersUnavailable`; the next worker that comes gets it then."""
        worker = self._free_worker()
        if worker is None:
            self._waiting[call.number] = call
            raise WorkersUnavailable("no call worker is free")
        worker.enlist(call)
        return worker

    def _free_worker(self) -> Worker | None:
        able = [worker for worker in self._workers if self._takes_calls(worker)]
        if not able:
            # One that is suspect may still turn out well; better than nobody.
            able = [worker for worker in self._workers if worker.stage is Stage.TAKING_CALLS]
        free = [worker for worker in able if len(worker.opening) < MAX_OPENING]
        return min(free, key=lambda worker: len(worker.calls), default=None)

    def _hand_out(self) -> None:
        """Give calls that wait to workers that are free, in their order."""
        while self._waiting and (worker := self._free_worker()) is not None:
            call = self._waiting.pop(next(iter(self._waiting)))
            worker.enlist(call)
            call.assigned(worker)

    def forget(self, call: HostedCall) -> None:
        """The call is over."""
        self._waiting.pop(call.number, None)
        for worker in self._workers:
            worker.calls.pop(call.number, None)
            worker.opening.discard(call.number)
        self._hand_out()

    @staticmethod
    def _takes_calls(worker: Worker) -> bool:
        is_well = worker.watch is not None and worker.watch.health is Health.WELL
        return worker.stage is Stage.TAKING_CALLS and is_well

    def _context(self, tenant: TenantContext) -> str:
        text = self._configs.get(tenant.content_hash)
        if text is None:
            if len(self._configs) >= MAX_CONFIGS:
                self._configs.clear()
            text = self._configs[tenant.content_hash] = tenant.config.model_dump_json()
        return dump_context(tenant, text)

    def _announcement(self, tenant: TenantContext) -> tuple[bytes, int] | None:
        pcm = self._phrases.spoken(tenant, Phrases.of(tenant.config).hold_on)
        return None if pcm is None else (pcm, PHRASE_RATE_HZ)

    def _keep_phrase(self, digest: str, pcm: bytes) -> None:
        for worker in self._workers:
            worker.send(0, KeepPhrase(digest, pcm))

    # -- workers ---------------------------------------------------------------------------------------

    async def _bear(self) -> None:
        """Start a worker and wait until it takes calls. Raises `OSError` or `TimeoutError`."""
        pid, sock = await self._nursery.fork(self._settings)
        try:
            worker = Worker(pid, os.pidfd_open(pid))
        except OSError:
            sock.close()
            raise
        worker.connection = await Connection.open(
            sock,
            lambda call, message: self._take(worker, call, message),
            lambda why: self._lose(worker, why, "ended"),
        )
        self._workers.append(worker)
        try:
            await asyncio.wait_for(worker.ready.wait(), READY_TIMEOUT_S)
        except TimeoutError:
            self._part(worker, "it was not ready in time")
            raise
        if worker.stage is Stage.LOST:
            raise ConnectionError("a call worker ended while it started")
        self.counters.started += 1

    def _take(self, worker: Worker, number: int, message: Message) -> None:
        match message:
            case Pong():
                self._pong(worker, message.number)
            case StandsStill():
                if worker.watch is not None:
                    worker.watch.excuse()
            case Ready():
                worker.stage = Stage.TAKING_CALLS
                worker.watch = WorkerWatch(self._watch_params, _now_ms())
                worker.run_queue = worker.run_queue or RunQueue(worker.pid)
                worker.ready.set()
                for digest, pcm in self._phrases.held():
                    worker.send(0, KeepPhrase(digest, pcm))
                self._hand_out()
            case CallTaken() if (call := worker.calls.get(number)) is not None:
                worker.opening.discard(number)
                call.take(worker, message)
                self._hand_out()
            case messages.Meters():
                self._on_delta(message.blob)
            case _:
                call = worker.calls.get(number)
                if call is not None:
                    call.take(worker, message)

    def _pong(self, worker: Worker, number: int) -> None:
        if worker.watch is None:
            return
        was = worker.watch.health
        worker.watch.pong(number)
        if was is Health.SUSPECT and worker.watch.health is Health.WELL:
            for call in worker.calls.values():
                call.well_again()
            self._hand_out()
            self._retire_surplus()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._watch_params.tick_ms / 1000)
            for worker in tuple(self._workers):
                self._look_at(worker)

    def _look_at(self, worker: Worker) -> None:
        if worker.watch is None:
            return
        was = worker.watch.health
        waited_ms = 0 if worker.run_queue is None else worker.run_queue.waited_ms()
        number = worker.watch.tick(_now_ms(), waited_ms)
        if number is None:
            self._lose(worker, f"it has not answered for {self._watch_params.lost_ms} ms", "hung")
            return
        worker.send(0, Ping(number))
        if worker.watch.health is Health.SUSPECT and was is Health.WELL:
            self.counters.suspicions += 1
            logger.warning("call worker {} does not answer", worker.pid)
            for call in tuple(worker.calls.values()):
                call.suspected(worker.watch.silent_ms)
            self._fill_up()

    def _lose(self, worker: Worker, why: str, cause: str) -> None:
        """A worker has ended or must: its calls go elsewhere, and another one is started."""
        calls = tuple(worker.calls.values())
        was_retiring = worker.stage is Stage.RETIRING
        if not self._part(worker, why):
            return
        if self._closing:
            for call in calls:
                call.lost(why)
                call.go_on()
            return
        if was_retiring and not calls:
            logger.info("call worker {} has retired", worker.pid)
            return
        self.counters.lost[cause] += 1
        if cause == "hung":
            self._meters.inc(WORKER_RESTARTS, "stuck")
        elif (why_ended := self._ends.lost(worker.pid)) is not None:
            self._meters.inc(WORKER_RESTARTS, why_ended)
        elif not self._nursery.is_up:
            self._meters.inc(WORKER_RESTARTS, "crashed")  # Nobody is left who could say.
        self.counters.takeovers += len(calls)
        logger.error("call worker {} is lost with {} calls: {}", worker.pid, len(calls), why)
        # Whom nobody talks to first; then everybody's conversation, those first who wait for an answer.
        for call in calls:
            call.lost(why)
        for call in sorted(calls, key=HostedCall.is_patient):
            call.go_on()
        self._fill_up()

    def _heed(self, nursery: Nursery) -> Nursery:
        nursery.on_ended = self._ended
        return nursery

    def _ended(self, pid: int, status: int) -> None:
        log_end(pid, status)
        if (cause := self._ends.ended(pid, status)) is not None:
            self._meters.inc(WORKER_RESTARTS, cause)

    def _fill_up(self) -> None:
        """Start workers in place of those that are lost, or may be: one that is born takes a lost one's calls at once."""
        missing = self._count - self.ready_workers - len(self._births)
        for _ in range(missing):
            task = asyncio.get_running_loop().create_task(self._replace_lost(), name="worker-birth")
            self._births.add(task)
            task.add_done_callback(self._birth_ended)

    def _birth_ended(self, task: asyncio.Task[None]) -> None:
        self._births.discard(task)
        self._retire_surplus()

    def _retire_surplus(self) -> None:
        """A worker that was suspect lives after all: whichever has the fewest calls ends when they have."""
        able = [worker for worker in self._workers if self._takes_calls(worker)]
        if len(able) > self._count and not self._closing:
            self._retire(min(able, key=lambda worker: len(worker.calls)))

    @staticmethod
    def _retire(worker: Worker) -> None:
        worker.stage = Stage.RETIRING
        worker.send(0, Retire())

    async def _replace_lost(self) -> None:
        pause_s = 0.05
        while True:
            try:
                if not self._nursery.is_up:
                    await self._nursery.close()
                    self._nursery = self._heed(Nursery())
                    await self._nursery.start()
                await self._bear()
            except (OSError, TimeoutError, StartupError) as error:
                logger.error("a call worker could not be started: {}", error)
                await asyncio.sleep(pause_s)
                pause_s = min(MAX_BIRTH_PAUSE_S, 2 * pause_s)
            else:
                return

    def _part(self, worker: Worker, why: str) -> bool:
        """End a worker and forget it; False when that was done before."""
        if worker.stage is Stage.LOST:
            return False
        worker.stage = Stage.LOST
        worker.ready.set()
        if worker in self._workers:
            self._workers.remove(worker)
        worker.calls.clear()
        worker.opening.clear()
        with suppress(ProcessLookupError):
            # It may be stopped or in a loop: nothing milder is sure to end it.
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
        os.close(worker.pidfd)
        if worker.run_queue is not None:
            worker.run_queue.close()
        if worker.connection is not None:
            connection, worker.connection = worker.connection, None
            connection.close(why)
        return True


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)
