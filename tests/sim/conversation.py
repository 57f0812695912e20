"""A call's pipeline over a media link without media: the test speaks for the caller and plays what is queued."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mediaserver._native import (
    Flushed,
    Played,
    PlayoutStarted,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
)
from mediaserver.phrase_cache import PhraseCache
from mediaserver.pipeline.call_pipeline import CallPipeline, PipelineResources
from mediaserver.pipeline.providers import Budgets
from mediaserver.pipeline.services import Embedded, ProviderAccess
from mediaserver.pipeline.transport import TurnMeasured
from mediaserver.providers.connections import ProviderClient
from mediaserver.providers.trail import ProviderEvent, ProviderHistory
from mediaserver.receptionist import Action
from mediaserver.turns import TurnCounters
from perf.simulators import Script, running
from tenancy import TenantContext
from tenancy.providers import ResolvedProvider
from tenancy.spending import CallUsage, Usage
from tests.sim.link import SimulatedLink
from tests.sim.node import GREETING, NUMBER, tenant
from vault.resolver import Origin

PATIENCE_S = 5.0
BYTES_PER_MS = 32
PREROLL_MS = 300


def _now_us() -> int:
    return time.monotonic_ns() // 1000


@dataclass
class Notes:
    """Implements `CallObserver`."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    latencies_ms: list[int] = field(default_factory=list)
    counters: TurnCounters | None = None
    usage: CallUsage = field(default_factory=CallUsage)
    providers: ProviderHistory = field(default_factory=ProviderHistory)

    def caller_said(self, text: str) -> None:
        self.lines.append(("caller", text))

    def receptionist_said(self, text: str, *, interrupted: bool) -> None:
        self.lines.append(("receptionist", text))
        if interrupted:
            self.interrupted.append(text)

    def caller_speaking(self, *, active: bool) -> None: ...

    def receptionist_speaking(self, *, active: bool) -> None: ...

    def sentence_begins(self, text: str) -> None: ...

    def sentence_queued(self, text: str) -> None: ...

    def reply_queued(self) -> None: ...

    def receptionist_state(self, state: str) -> None: ...

    def turn_measured(self, turn: TurnMeasured) -> None:
        self.latencies_ms.append(turn.latency_ms)

    def action(self, action: Action) -> None:
        self.actions.append(action)

    def media_ended(self, why: str) -> None: ...

    def turns_counted(self, counters: TurnCounters) -> None:
        self.counters = counters

    def spent(self, service: str, provider: str, usage: Usage) -> None:
        self.usage.add(service, provider, usage)

    def provider_event(self, event: ProviderEvent) -> None:
        self.providers.take(event)


async def eventually(condition: Callable[[], bool], what: str = "") -> None:
    """Wait until it holds, within bounds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what or "it did not come about"
        await asyncio.sleep(0.002)


@dataclass
class Conversation:
    """Both sides of a call in the test's hands."""

    pipeline: CallPipeline
    link: SimulatedLink
    notes: Notes
    script: Script
    task: asyncio.Task[None]
    _media_ms: int = 0
    _onset: Callable[[], int] = field(default_factory=lambda: itertools.count(1).__next__)

    @property
    def counters(self) -> TurnCounters:
        return self.pipeline._turns.taker.counters

    # The caller.

    def starts(self, ms: int = 400) -> None:
        """Speak for ``ms``, in audio like no other."""
        self._media_ms += 2_000
        pcm = self._onset().to_bytes(2, "little") * (16 * (PREROLL_MS + ms))
        self.link.deliver(SpeechStarted(stream=1, media_ms=self._media_ms, at_us=_now_us(), pcm=pcm))
        self._media_ms += ms

    def pauses(self) -> None:
        now_us = _now_us()
        self.link.deliver(
            SpeechPaused(
                stream=1, media_ms=self._media_ms, at_us=now_us, last_speech_at_us=now_us - 20_000, pcm=b""
            )
        )

    def resumes(self, ms: int = 200) -> None:
        self.link.deliver(SpeechResumed(stream=1, media_ms=self._media_ms, at_us=_now_us()))
        self._media_ms += ms

    def stops(self) -> None:
        now_us = _now_us()
        self.link.deliver(
            SpeechStopped(
                stream=1, media_ms=self._media_ms, at_us=now_us, last_speech_at_us=now_us - 20_000, pcm=b""
            )
        )

    async def says(self, ms: int = 400) -> None:
        """A sentence to its end, and the answer queued."""
        self.starts(ms)
        self.pauses()
        await self.queued()

    # The receptionist.

    async def queued(self) -> None:
        """Something is to be played."""
        await eventually(lambda: bool(self.link.queue), "nothing was queued")

    async def sounds(self) -> None:
        """The playout begins, and goes on."""
        await self.queued()
        self.link.deliver(PlayoutStarted(stream=1, mark=self.link.queue[0].mark, at_us=_now_us()))

    async def heard_out(self) -> None:
        """All that is queued, and what follows it, is played to its end."""
        answers = self._answers()
        await self.sounds()
        while self._answers() == answers:
            for chunk in self.link.queue:
                self.link.deliver(
                    Played(stream=1, mark=chunk.mark, played_ms=chunk.duration_ms, at_us=_now_us())
                )
            self.link.queue.clear()
            await eventually(
                lambda: bool(self.link.queue) or self._answers() > answers, "the playout did not end"
            )

    def _answers(self) -> int:
        return sum(speaker == "receptionist" for speaker, _ in self.notes.lines)

    async def flushed(self, heard_ms: int) -> None:
        """The engine answers a flush."""
        await eventually(lambda: "flush" in self.link.commands, "nothing was flushed")
        first = self.link.queue[0]
        self.link.queue.clear()
        self.link.commands.clear()
        self.link.deliver(
            Flushed(
                stream=1,
                mark=first.mark,
                heard_ms=heard_ms,
                chunk_ms=first.duration_ms,
                played_ms=heard_ms,
                dropped_ms=0,
                at_us=_now_us(),
            )
        )


@asynccontextmanager
async def conversation(
    directory: Path,
    script: Script,
    *,
    budgets: Budgets | None = None,
    max_call_s: int | None = None,
    first_stt: Script | None = None,
    **changes: object,
) -> AsyncIterator[Conversation]:
    """A call that was greeted, the greeting heard to its end. ``first_stt``: who is asked to transcribe before ``script``."""
    with ExitStack() as stack:
        url = stack.enter_context(running(script))
        config = tenant(url, **changes)
        if max_call_s is not None:
            # Shorter than a tenant may have it.
            turns = config.turn_taking.model_copy(update={"max_call_s": max_call_s})
            config = config.model_copy(update={"turn_taking": turns})
        provider = ResolvedProvider("openai", Origin.TENANT, "test", url, "simulated", "key")
        chain = (provider,)
        stt: tuple[ResolvedProvider, ...] = chain
        if first_stt is not None:
            first_url = stack.enter_context(running(first_stt))
            stt = (ResolvedProvider("openai", Origin.TENANT, "test", first_url, "first", "key"), provider)
        context = TenantContext("bakery", "call", NUMBER, "any", config, 1, "hash", stt, chain, chain)
        async with ProviderClient() as http:
            resources = PipelineResources(
                providers=ProviderAccess(Embedded(url), http),
                budgets=budgets or Budgets(),
                phrases=PhraseCache(directory / "phrases"),
                clock=lambda: datetime(2026, 1, 5, 9, 0, tzinfo=UTC),
            )
            link, notes = SimulatedLink(), Notes()
            pipeline = CallPipeline(context, link, resources, notes)
            task = asyncio.create_task(pipeline.run())
            talk = Conversation(pipeline, link, notes, script, task)
            await pipeline.greet()
            await talk.heard_out()
            assert notes.lines == [("receptionist", GREETING)]
            try:
                yield talk
            finally:
                await pipeline.cancel("test over")
                await task
