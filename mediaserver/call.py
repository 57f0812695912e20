"""One call: its pipeline, and what was said in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from loguru import logger

from mediaserver.media_link import LocalMediaLink
from mediaserver.pipeline.call_pipeline import CallObserver
from mediaserver.pipeline.transport import TurnMeasured
from mediaserver.providers.trail import ProviderEvent, ProviderHistory
from mediaserver.receptionist import Action, EndCall, HumanRequested, MessageTaken
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import GREETING_SECONDS
from mediaserver.telemetry.turns import count_turns, observe_turn
from mediaserver.turns import TurnCounters
from tenancy import TenantContext
from tenancy.spending import CallUsage, Usage

MAX_TRANSCRIPT_LINES = 1_000
"""Lines kept of one conversation; a longer one keeps its newest."""
CANCEL_TIMEOUT_S = 5.0
"""How long a pipeline may take to end after the call has."""


class Speaker(StrEnum):
    """Who said a line of the transcript."""

    CALLER = "caller"
    RECEPTIONIST = "receptionist"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the conversation as it was heard."""

    speaker: Speaker
    text: str
    at: datetime
    interrupted: bool = False


@dataclass(slots=True)
class Conversation:
    """What was said in a call, as its record keeps it."""

    lines: list[Line] = field(default_factory=list)
    messages: list[MessageTaken] = field(default_factory=list)
    turn_latencies_ms: list[int] = field(default_factory=list)
    human_requested: bool = False
    usage: CallUsage = field(default_factory=CallUsage)
    dropped_lines: int = 0
    providers: ProviderHistory = field(default_factory=ProviderHistory)

    def add(self, line: Line) -> None:
        """Append a line, at the cost of the oldest when full."""
        if len(self.lines) >= MAX_TRANSCRIPT_LINES:
            del self.lines[0]
            self.dropped_lines += 1
        self.lines.append(line)


class CallListener(Protocol):
    """Told what happens in the conversation as it happens: the page that shows it."""

    def said(self, line: Line) -> None:
        """A turn is complete, as it was heard."""
        ...

    def speaking(self, speaker: Speaker, *, active: bool) -> None:
        """Somebody began to speak or has finished."""
        ...

    def sentence(self, text: str) -> None:
        """The receptionist begins this sentence."""
        ...


class Conversing(Protocol):
    """What runs a conversation: a pipeline in this process, or one in a call worker."""

    async def run(self) -> None:
        """Run until the conversation ends, or `cancel`."""
        ...

    async def greet(self) -> None:
        """Both sides are connected: speak."""
        ...

    async def cancel(self, why: str) -> None:
        """End at once."""
        ...


Converse = Callable[[TenantContext, LocalMediaLink, CallObserver], Conversing]
"""Builds what runs a conversation."""


class Call:
    """A conversation in progress. The switchboard makes it, greets when both sides are connected, and awaits its end."""

    def __init__(
        self,
        tenant: TenantContext,
        caller: str,
        link: LocalMediaLink,
        converse: Converse,
        on_over: Callable[[str], None],
        *,
        meters: Meters,
        listener: CallListener | None = None,
    ) -> None:
        self.tenant = tenant
        self.caller = caller
        self.link = link
        self.started_at = datetime.now(UTC)
        self.conversation = Conversation()
        self._on_over = on_over
        self._listener = listener
        self._log = logger.bind(call=tenant.call_id, tenant=tenant.tenant_id)
        self._pipeline = converse(tenant, link, self)
        self._task: asyncio.Task[None] | None = None
        self._meters = meters
        self._greeted = False
        self._greeted_at_us: int | None = None
        """When both sides were connected; None before that, and once the greeting is heard."""

    def start(self) -> None:
        """Start the pipeline; it idles until the greeting."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"call-{self.tenant.call_id}")

    async def greet(self) -> None:
        """Both sides are connected: speak."""
        if not self._greeted:
            self._greeted = True
            self._greeted_at_us = time.monotonic_ns() // 1000
            await self._pipeline.greet()

    async def end(self, why: str) -> None:
        """End the pipeline and wait for it, boundedly."""
        if self._task is None or self._task.done():
            return
        await self._pipeline.cancel(why)
        _, pending = await asyncio.wait([self._task], timeout=CANCEL_TIMEOUT_S)
        if pending:
            self._log.error("pipeline did not end within {} s, abandoning it", CANCEL_TIMEOUT_S)
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CANCEL_TIMEOUT_S)

    async def _run(self) -> None:
        try:
            await self._pipeline.run()
        except Exception:  # noqa: BLE001 - the call's outer boundary: its end is handled right here
            self._log.exception("pipeline failed; ending the call")
            self._on_over("pipeline failed")
        else:
            self._on_over("conversation over")

    # What the pipeline reports (CallObserver).

    def caller_said(self, text: str) -> None:
        """A finished turn of the caller."""
        self._add(Line(Speaker.CALLER, text, datetime.now(UTC)))

    def receptionist_said(self, text: str, *, interrupted: bool) -> None:
        """What the caller heard of an answer."""
        self._add(Line(Speaker.RECEPTIONIST, text, datetime.now(UTC), interrupted))

    def _add(self, line: Line) -> None:
        self.conversation.add(line)
        if self._listener is not None:
            self._listener.said(line)

    def caller_speaking(self, *, active: bool) -> None:
        """The caller's turn began or ended."""
        if self._listener is not None:
            self._listener.speaking(Speaker.CALLER, active=active)

    def receptionist_speaking(self, *, active: bool) -> None:
        """The receptionist became audible or fell silent."""
        if self._greeted_at_us is not None and (heard_at_us := self.link.first_playout_at_us) is not None:
            self._meters.observe(GREETING_SECONDS, (heard_at_us - self._greeted_at_us) / 1_000_000)
            self._greeted_at_us = None
        if self._listener is not None:
            self._listener.speaking(Speaker.RECEPTIONIST, active=active)

    def sentence_begins(self, text: str) -> None:
        """The first packet of a sentence goes out."""
        if self._listener is not None:
            self._listener.sentence(text)

    def sentence_queued(self, text: str) -> None:
        """Nothing to do: who hosts the pipeline journals it."""

    def reply_queued(self) -> None:
        """Nothing to do, as above."""

    def receptionist_state(self, state: str) -> None:
        """Nothing to do, as above."""

    def turn_measured(self, turn: TurnMeasured) -> None:
        """The wire latency of an answered turn."""
        self.conversation.turn_latencies_ms.append(turn.latency_ms)
        observe_turn(self._meters, turn.latency_ms, turn.parts)
        self._log.bind(event="turn_answered").info("turn answered after {} ms", turn.latency_ms)

    def action(self, action: Action) -> None:
        """Something that the receptionist wants done."""
        match action:
            case MessageTaken():
                self.conversation.messages.append(action)
                self._log.info("message taken")
            case HumanRequested():
                self.conversation.human_requested = True
                self._log.info("caller asked for a human")
            case EndCall():
                self._log.info("conversation closed by the receptionist")

    def turns_counted(self, counters: TurnCounters) -> None:
        """What became of the turns."""
        count_turns(self._meters, counters.as_dict())
        self._log.bind(turns=counters.as_dict()).info("turns: {}", counters.as_dict())

    def spent(self, service: str, provider: str, usage: Usage) -> None:
        """What a request to a provider has used."""
        self.conversation.usage.add(service, provider, usage)

    def provider_event(self, event: ProviderEvent) -> None:
        """A provider served, failed or was passed over."""
        self.conversation.providers.take(event)

    def media_ended(self, why: str) -> None:
        """The caller's media has stopped."""
        self._on_over(why)
