"""A call worker: one process, one socket to the edge, one pipeline per call."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import orjson
from loguru import logger
from pydantic import TypeAdapter

from mediaserver.errors import MediaServerError
from mediaserver.garbage import GarbageCollection
from mediaserver.journal import Restored
from mediaserver.phrase_cache import PhraseCache, PhraseKey
from mediaserver.pipeline import clauses
from mediaserver.pipeline.call_pipeline import CallPipeline, PipelineResources
from mediaserver.pipeline.providers import Budgets
from mediaserver.pipeline.services import Embedded, ProviderAccess
from mediaserver.pipeline.transport import TurnMeasured
from mediaserver.pipeline.turn_model import TurnModel
from mediaserver.providers.asking import ProviderCare
from mediaserver.providers.connections import ConnectionWarmer, ProviderClient
from mediaserver.providers.trail import ProviderEvent
from mediaserver.receptionist import Action, Phrases
from mediaserver.telemetry.absorbing import Absorber, provider_readings
from mediaserver.telemetry.deltas import WorkerMeters
from mediaserver.telemetry.health import LoopWatch
from mediaserver.telemetry.logs import configure_logs
from mediaserver.telemetry.redaction import Redactor
from mediaserver.turns import TurnCounters
from mediaserver.workers.connection import Connection
from mediaserver.workers.far_link import FarMediaLink
from mediaserver.workers.key_told import told
from mediaserver.workers.memory import MemoryWatch, end_for_memory
from mediaserver.workers.messages import (
    Acted,
    CallerSaid,
    CallOver,
    CallTaken,
    CancelCall,
    Greet,
    KeepPhrase,
    LinkEnded,
    MediaEnded,
    Message,
    Meters,
    OpenCall,
    Ping,
    Pong,
    Ready,
    ReceptionistSaid,
    ReceptionistState,
    ReplyQueued,
    Retire,
    SentenceBegins,
    SentenceQueued,
    Speaking,
    StandsStill,
    TurnLatency,
    TurnsCounted,
)
from mediaserver.workers.provider_told import told_of_provider
from mediaserver.workers.usage_told import told_of_usage
from mediaserver.workers.worker_settings import WorkerSettings
from tenancy import TenantContext
from tenancy.spending import Usage
from tenancy.wire import load_context
from vault.process import forbid_core_dumps

REPORT_EVERY_S = 1.0


class _Reporter:
    """The observer of a call's pipeline: everything goes to the edge."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send

    def caller_said(self, text: str) -> None:
        self._send(CallerSaid(text))

    def receptionist_said(self, text: str, *, interrupted: bool) -> None:
        self._send(ReceptionistSaid(text, interrupted))

    def caller_speaking(self, *, active: bool) -> None:
        self._send(Speaking(caller=True, active=active))

    def receptionist_speaking(self, *, active: bool) -> None:
        self._send(Speaking(caller=False, active=active))

    def sentence_queued(self, text: str) -> None:
        self._send(SentenceQueued(text))

    def reply_queued(self) -> None:
        self._send(ReplyQueued())

    def sentence_begins(self, text: str) -> None:
        self._send(SentenceBegins(text))

    def turn_measured(self, turn: TurnMeasured) -> None:
        self._send(TurnLatency(turn.latency_ms, orjson.dumps(turn.parts).decode()))

    def action(self, action: Action) -> None:
        self._send(Acted(type(action).__name__, orjson.dumps(asdict(action)).decode()))

    def receptionist_state(self, state: str) -> None:
        self._send(ReceptionistState(state))

    def turns_counted(self, counters: TurnCounters) -> None:
        self._send(TurnsCounted(orjson.dumps(counters.as_dict()).decode()))

    def provider_event(self, event: ProviderEvent) -> None:
        self._send(told_of_provider(event))

    def media_ended(self, why: str) -> None:
        self._send(MediaEnded(why))

    def spent(self, service: str, provider: str, usage: Usage) -> None:
        self._send(told_of_usage(service, provider, usage))


class _Call:
    """A call in this worker."""

    def __init__(
        self,
        number: int,
        order: OpenCall,
        send: Callable[[int, Message], None],
        redactor: Redactor,
    ) -> None:
        self._order = order
        self._redactor = redactor
        self._send: Callable[[Message], None] = lambda message: send(number, message)
        self.link = FarMediaLink(self._send, order.first_mark)
        self._greet = False
        self._cancelled: str | None = None
        self._pipeline: CallPipeline | None = None

    async def run(self, resources: PipelineResources) -> None:
        """Run the pipeline to its end, and say how it ended."""
        try:
            await self._run(resources)
        except MemoryError:
            end_for_memory()
        except Exception as error:  # noqa: BLE001 - the call's outer boundary: the edge ends the call
            logger.exception("pipeline failed")
            self._send(CallOver(f"pipeline failed: {type(error).__name__}", failed=True))
        else:
            self._send(CallOver("conversation over", failed=False))

    async def _run(self, resources: PipelineResources) -> None:
        tenant = load_context(self._order.tenant)
        for provider in (*tenant.stt, *tenant.llm, *tenant.tts):
            self._redactor.register(provider.secret())
        restored = Restored.from_json(self._order.restored) if self._order.restored else None
        with logger.contextualize(call=tenant.call_id, tenant=tenant.tenant_id):
            await _load_phrases(resources.phrases, tenant)
            if self._cancelled is not None:
                return
            pipeline = self._pipeline = CallPipeline(
                tenant,
                self.link,
                resources.telling(lambda report: self._send(told(report))),
                _Reporter(self._send),
                restored,
            )
            running = asyncio.create_task(pipeline.run())
            self._send(CallTaken())
            try:
                if restored is not None:
                    await pipeline.take_up()
                if self._greet:
                    await pipeline.greet()
                await asyncio.shield(running)
            except asyncio.CancelledError:
                running.cancel()
                raise

    async def greet(self) -> None:
        """Greet now, or as soon as there is a pipeline."""
        self._greet = True
        if self._pipeline is not None:
            await self._pipeline.greet()

    async def cancel(self, why: str) -> None:
        """End now, or as soon as there is a pipeline."""
        self._cancelled = why
        if self._pipeline is not None:
            await self._pipeline.cancel(why)


async def _load_phrases(phrases: PhraseCache, tenant: TenantContext) -> None:
    """The fixed phrases, which the edge has put on the disk, before the first of them is needed."""
    config = tenant.config
    texts = (config.greeting, *Phrases.of(config).all())
    keys = [
        PhraseKey.of(tenant.tenant_id, tenant.phrase_voice, config.voice.name, config.voice.speed, text)
        for text in texts
    ]
    await phrases.load_all(keys)


class Worker:
    """Takes the edge's messages to the calls of this process."""

    def __init__(self, resources: PipelineResources, meters: WorkerMeters, redactor: Redactor) -> None:
        self._resources = resources
        self._meters = meters
        self._absorber = Absorber(meters)
        self._redactor = redactor
        self._calls: dict[int, _Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection: Connection | None = None
        self._retired = False
        self._ended = 0
        self.over = asyncio.Event()

    async def serve(self, sock: socket.socket) -> None:
        """Serve until the edge closes the socket, or says that no further call will come and the last is over."""
        self._connection = await Connection.open(sock, self._take, lambda _: self.over.set())
        self._send(0, Ready(os.getpid()))
        reporting = asyncio.create_task(self._report(), name="meters")
        garbage = GarbageCollection(
            self._meters,
            "worker",
            lambda: (len(self._calls), self._ended),
            lambda: self._send(0, StandsStill()),
        )
        garbage.start()
        await self.over.wait()
        garbage.stop()
        reporting.cancel()
        self._report_now()
        for task in self._tasks:
            task.cancel()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self._report_now()

    def _report_now(self) -> None:
        self._absorber.absorb(provider_readings(self._resources.providers.care.stats.snapshot()))
        if delta := self._meters.take_delta():
            self._send(0, Meters(delta))

    def _send(self, call: int, message: Message) -> None:
        if self._connection is not None:
            self._connection.send(call, message)

    def _take(self, number: int, message: Message) -> None:
        match message:
            case Ping():
                self._send(0, Pong(message.number))
            case OpenCall():
                call = self._calls[number] = _Call(number, message, self._send, self._redactor)
                self._spawn(self._run(number, call))
            case KeepPhrase():
                self._resources.phrases.keep(message.digest, message.blob)
            case Retire():
                self._retired = True
                self._end_if_done()
            case _:
                self._for_call(number, message)

    def _for_call(self, number: int, message: Message) -> None:
        call = self._calls.get(number)
        if call is None:  # It is over, and the edge does not know yet.
            return
        match message:
            case Greet():
                self._spawn(call.greet())
            case CancelCall():
                self._spawn(call.cancel(message.why))
            case LinkEnded():
                call.link.close()
            case _:
                call.link.deliver(message)  # type: ignore[arg-type] # what else the edge sends is a media event

    async def _run(self, number: int, call: _Call) -> None:
        try:
            await call.run(self._resources)
        finally:
            self._calls.pop(number, None)
            self._ended += 1
            self._end_if_done()

    def _end_if_done(self) -> None:
        if self._retired and not self._calls:
            self.over.set()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def warm() -> None:
    """What is made once in a process: made in the nursery, it is in every worker."""
    clauses.warm()


async def work(sock: socket.socket, settings: WorkerSettings) -> None:
    """The life of a worker process."""
    redactor = configure_logs(settings.log_level, settings.log_format, worker=str(os.getpid()))
    meters = WorkerMeters(os.getpid(), time.monotonic_ns())
    loop_watch = LoopWatch(meters, "worker")
    loop_watch.start()
    memory = MemoryWatch(end_for_memory)
    memory.start()
    if settings.forbid_core_dumps:
        forbid_core_dumps()
    turn_model = TurnModel()
    care = ProviderCare.fresh()
    http = ProviderClient(care.stats)
    warmer = ConnectionWarmer(http, care.stats)
    resources = PipelineResources(
        providers=ProviderAccess(Embedded(settings.models_url), http, care, warmer),
        budgets=TypeAdapter(Budgets).validate_python(settings.budgets),
        phrases=PhraseCache(Path(settings.data_dir) / "phrases"),
        clock=lambda: datetime.now(UTC),
        meters=meters,
        turn_model=turn_model,
    )
    try:
        await Worker(resources, meters, redactor).serve(sock)
    except MediaServerError as error:
        logger.error("worker ends: {}", error)
    finally:
        memory.stop()
        loop_watch.stop()
        turn_model.close()
        await warmer.close()
        await http.aclose()
