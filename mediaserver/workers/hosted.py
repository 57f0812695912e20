"""A call in the edge whose pipeline runs in a worker: `Conversing` for the `Switchboard`, with the call's journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import orjson
from loguru import logger

from mediaserver._native import (
    BackgroundEnded,
    Flushed,
    MarkReached,
    MediaError,
    Played,
    PlayoutStarted,
    SpeechStopped,
)
from mediaserver.errors import LinkClosed, MediaServerError
from mediaserver.journal import CallJournal, Next, Restored
from mediaserver.media_link import LocalMediaLink, MediaEvent
from mediaserver.pipeline.call_pipeline import CallObserver
from mediaserver.pipeline.transport import TurnMeasured
from mediaserver.providers.key_watch import KeyReport
from mediaserver.receptionist import Action, EndCall, HumanRequested, MessageTaken
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import TAKEOVER_SECONDS, TAKEOVERS, TOLD_TO_WAIT_SECONDS
from mediaserver.telemetry.turns import TurnParts
from mediaserver.turns import TurnCounters
from mediaserver.workers.key_told import report_of
from mediaserver.workers.messages import (
    Acted,
    CallerSaid,
    CallOver,
    CallTaken,
    CancelCall,
    Flush,
    Greet,
    KeyTold,
    LinkEnded,
    MediaEnded,
    Message,
    OpenCall,
    Pause,
    Play,
    ProviderTold,
    ReceptionistSaid,
    ReceptionistState,
    ReplyQueued,
    Resume,
    SentenceBegins,
    SentenceQueued,
    Speaking,
    TurnLatency,
    TurnsCounted,
    UsageTold,
    WireError,
)
from mediaserver.workers.provider_told import event_of
from mediaserver.workers.usage_told import usage_of

ANNOUNCEMENT_MARKS_FROM = 1 << 31
"""Marks of what the edge itself says; a worker's count from 1 on."""
MAX_WAIT_S = 10.0
"""For a worker, where all are lost at once: starting one takes milliseconds, and seconds where its nursery is lost too."""
MAX_TAKEOVERS = 5
"""A call that so many workers died with is what kills them."""


class WorkersUnavailable(MediaServerError):  # noqa: N818 - names the state
    """No worker can take the call at the moment."""


class WorkerHandle(Protocol):
    """A worker as its calls see it."""

    def send(self, call: int, message: Message) -> None:
        """Send it a message."""
        ...


class Host(Protocol):
    """Who finds a worker for a call: the pool."""

    def place(self, call: HostedCall) -> WorkerHandle:
        """Give the call to a worker. Raises `WorkersUnavailable` where none is free; `HostedCall.assigned` follows then."""
        ...

    def forget(self, call: HostedCall) -> None:
        """The call is over."""
        ...


class HostedCall:
    """One call's pipeline, wherever it runs; the same interface as `CallPipeline`."""

    def __init__(
        self,
        number: int,
        tenant_text: Callable[[], str],
        link: LocalMediaLink,
        observer: CallObserver,
        host: Host,
        *,
        meters: Meters,
        announcement: tuple[bytes, int] | None,
        on_key: Callable[[KeyReport], None] = lambda _: None,
    ) -> None:
        self.number = number
        self.journal = CallJournal()
        self._tenant_text = tenant_text
        self._link = link
        self._observer = observer
        self._host = host
        self._meters = meters
        self._on_key = on_key
        self._missed_since_us: int | None = None
        """The last sign of life of the call's worker where it is missed, until another one has the call."""
        self._announced_since_us: int | None = None
        """Since when nobody talks to the caller, until the first packet of the announcement."""
        self._quiet_since_us = 0
        """When what was being said had been said, by either side."""
        self._announcement = announcement
        """What the caller hears when the worker is gone: PCM and its rate."""
        self._announcement_mark = ANNOUNCEMENT_MARKS_FROM
        self._last_mark = 0
        """Of the workers so far."""
        self._unplayed: set[int] = set()
        self._own_flushes = 0
        """Whose answers are no worker's business."""
        self._worker: WorkerHandle | None = None
        self._over: asyncio.Future[CallOver] | None = None
        self._greeted = False
        self._announced = False
        self._takeovers = 0
        self._restored: Restored | None = None
        """What the next worker goes on from."""
        self._give_up_timer: asyncio.TimerHandle | None = None
        """While the call waits for a worker."""
        self.cancelled = False

    # -- what the call asks (Conversing) ---------------------------------------------------------------

    async def run(self) -> None:
        """Run until the conversation is over or cancelled. Raises `WorkersUnavailable`."""
        self._over = asyncio.get_running_loop().create_future()
        self._find_worker()
        reader = asyncio.create_task(self._read(), name="hosted-call-media")
        try:
            outcome = await self._over
        finally:
            reader.cancel()
            self._stop_waiting()
            self._host.forget(self)
        if outcome.failed and not self.cancelled:
            raise WorkersUnavailable(outcome.why)

    async def greet(self) -> None:
        """Both sides can be heard."""
        self._greeted = True
        self._send(Greet())

    async def cancel(self, why: str) -> None:
        """End the pipeline; `run` returns when the worker says that it has."""
        self.cancelled = True
        if self._worker is None:
            self._end(why)
        else:
            self._send(CancelCall(why))

    # -- the media -------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                self._event(await self._link.next_event())
        except LinkClosed:
            self._send(LinkEnded())

    def _event(self, event: MediaEvent) -> None:
        match event:
            case PlayoutStarted() | Played() | MarkReached() | BackgroundEnded() if (
                event.mark >= ANNOUNCEMENT_MARKS_FROM
            ):
                if isinstance(event, PlayoutStarted) and self._announced_since_us is not None:
                    told_after_us = event.at_us - self._announced_since_us
                    self._meters.observe(TOLD_TO_WAIT_SECONDS, told_after_us / 1_000_000)
                    self._announced_since_us = None
                return
            case Played():
                self._unplayed.discard(event.mark)
            case Flushed():
                self._unplayed.clear()
                if self._own_flushes:
                    self._own_flushes -= 1
                    return
                if event.mark >= ANNOUNCEMENT_MARKS_FROM:
                    event = _of_nothing(event)
        self.journal.event(event)
        self._send(event)
        if isinstance(event, Played | SpeechStopped):
            self._quiet_since_us = event.at_us
            if self._missed_since_us is not None and not self._announced and not self._unplayed:
                self._announce()

    def _send(self, message: Message) -> None:
        if self._worker is not None:
            self._worker.send(self.number, message)

    # -- what the worker says --------------------------------------------------------------------------

    def take(self, worker: WorkerHandle, message: Message) -> None:
        """Take a message of a worker; what a former one still says is not heard."""
        if worker is not self._worker:
            return
        try:
            self._obey(message)
        except MediaError as error:
            logger.warning("speech dropped: {}", error)

    def _obey(self, message: Message) -> None:
        match message:
            case Play():
                self._last_mark = max(self._last_mark, message.mark)
                self._link.play(message.blob, message.rate_hz, message.mark)
                self._unplayed.add(message.mark)
            case Pause():
                self._link.pause()
            case Resume():
                self._link.resume()
            case Flush():
                self._link.flush()
            case CallTaken():
                if self._missed_since_us is not None:
                    self._meters.inc(TAKEOVERS, "resumed")
                    self._meters.observe(TAKEOVER_SECONDS, (_now_us() - self._missed_since_us) / 1_000_000)
                    self._missed_since_us = None
            case CallOver():
                self._worker = None
                self._end(message.why, failed=message.failed)
            case _:
                self._observe(message)

    def _observe(self, message: Message) -> None:
        """What the pipeline observed: for the record, and for the journal where the conversation moved on."""
        journal, observer = self.journal, self._observer
        match message:
            case Speaking(caller=True):
                observer.caller_speaking(active=message.active)
            case Speaking():
                observer.receptionist_speaking(active=message.active)
            case TurnLatency():
                observer.turn_measured(TurnMeasured(message.latency_ms, _parts(message.parts)))
            case Acted():
                action = _action(message)
                if journal.acted(message.detail + message.kind, closes=isinstance(action, EndCall)):
                    observer.action(action)
            case TurnsCounted():
                observer.turns_counted(_counters(message.counters))
            case MediaEnded():
                observer.media_ended(message.why)
            case KeyTold() | UsageTold() | ProviderTold():
                self._tell_of_providers(message)
            case _:
                self._move_on(message)

    def _tell_of_providers(self, message: KeyTold | UsageTold | ProviderTold) -> None:
        match message:
            case KeyTold():
                self._on_key(report_of(message))
            case UsageTold():
                self._observer.spent(*usage_of(message))
            case ProviderTold():
                self._observer.provider_event(event_of(message))

    def _move_on(self, message: Message) -> None:
        journal, observer = self.journal, self._observer
        match message:
            case CallerSaid():
                journal.caller_said(message.text)
                observer.caller_said(message.text)
            case ReceptionistSaid():
                journal.receptionist_said(message.text)
                observer.receptionist_said(message.text, interrupted=message.interrupted)
            case SentenceQueued():
                journal.sentence_queued(message.text)
            case ReplyQueued():
                journal.reply_queued()
            case SentenceBegins():
                journal.sentence_begins(message.text)
                observer.sentence_begins(message.text)
            case ReceptionistState():
                journal.receptionist_state(message.state)
            case _:
                logger.warning("a worker sent a {} for a call", type(message).__name__)

    def _end(self, why: str, *, failed: bool = False) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(CallOver(why, failed))

    # -- a worker hangs or is lost ---------------------------------------------------------------------

    def suspected(self, silent_ms: int) -> None:
        """The worker has not answered for so long: a caller who hears nothing is told to wait. What is being said goes on."""
        self._missed(silent_ms)
        if not self._announced and not self._unplayed:
            self._announce()

    def _missed(self, silent_ms: int = 0) -> None:
        if self._missed_since_us is None:
            self._missed_since_us = _now_us() - 1000 * silent_ms

    def well_again(self) -> None:
        """It answers after all."""
        self._announced = False
        self._missed_since_us = None

    def _announce(self) -> None:
        """Once for each time that a worker is lost; never into the caller's own words."""
        if (
            self._announcement is None
            or self.cancelled
            or not self._greeted
            or self.journal.is_caller_speaking
        ):
            return
        self._announced = True
        # Who was talked to, or spoke, has waited for nothing yet.
        since_us = self._missed_since_us or 0
        self._announced_since_us = _now_us() if self._unplayed else max(since_us, self._quiet_since_us)
        self._announcement_mark += 1
        try:
            self._link.play(*self._announcement, self._announcement_mark)
        except MediaError as error:
            logger.warning("the caller could not be told to wait: {}", error)

    def lost(self, why: str) -> None:
        """The worker is gone: the caller is told to wait. `go_on` follows."""
        self._worker = None
        if self.cancelled:
            self._end(why)
            return
        self._takeovers += 1
        if self._takeovers > MAX_TAKEOVERS:
            self._meters.inc(TAKEOVERS, "failed")
            self._end(f"{MAX_TAKEOVERS} workers were lost with this call; the last one: {why}", failed=True)
            return
        self._missed()
        restored, heard = self.journal.lost()
        if heard:
            self._observer.receptionist_said(heard, interrupted=True)
        if not self._announced:
            # What is queued will be said again, by a worker to which its marks mean nothing.
            self._own_flushes += 1
            self._link.flush()
            self._announce()
        self._announced = False
        self._restored = restored

    def is_patient(self) -> bool:
        """Whether the caller waits for nothing at the moment."""
        return self.journal.next is Next.LISTEN

    def go_on(self) -> None:
        """The next worker goes on from the journal."""
        if self._restored is not None and not self.cancelled:
            self._find_worker()

    def _find_worker(self) -> None:
        """Go on in a worker; where there is none at the moment, in the next that comes, for which the pool calls `assigned`."""
        try:
            self.assigned(self._host.place(self))
        except WorkersUnavailable:
            self._give_up_timer = asyncio.get_running_loop().call_later(MAX_WAIT_S, self._give_up)

    def assigned(self, worker: WorkerHandle) -> None:
        """A worker has the call from now on."""
        self._stop_waiting()
        self._worker = worker
        restored, self._restored = self._restored, None
        tenant = self._tenant_text()
        self._send(OpenCall(tenant, restored.to_json() if restored is not None else "", self._last_mark))
        for event in self.journal.unheard:
            self._send(event)
        if self._greeted and (restored is None or restored.next is Next.GREETING):
            self._send(Greet())

    def _give_up(self) -> None:
        self._meters.inc(TAKEOVERS, "failed")
        self._end(f"no call worker was there for {MAX_WAIT_S:.0f} s", failed=True)

    def _stop_waiting(self) -> None:
        if self._give_up_timer is not None:
            self._give_up_timer.cancel()
            self._give_up_timer = None


def _now_us() -> int:
    """The clock of the engine's events."""
    return time.monotonic_ns() // 1000


def _of_nothing(event: Flushed) -> Flushed:
    """Nothing of the pipeline's was playing."""
    return Flushed(
        stream=event.stream,
        mark=0,
        heard_ms=0,
        chunk_ms=0,
        played_ms=event.played_ms,
        dropped_ms=event.dropped_ms,
        at_us=event.at_us,
    )


def _counters(text: str) -> TurnCounters:
    try:
        return TurnCounters(**orjson.loads(text))
    except (orjson.JSONDecodeError, TypeError):
        return TurnCounters()


def _parts(text: str) -> TurnParts:
    try:
        return TurnParts(**orjson.loads(text))
    except (orjson.JSONDecodeError, TypeError):
        return TurnParts()


def _action(message: Acted) -> Action:
    """Raises `WireError`, which ends the worker."""
    try:
        match message.kind:
            case "MessageTaken":
                return MessageTaken(**orjson.loads(message.detail))
            case "EndCall":
                return EndCall()
            case "HumanRequested":
                return HumanRequested()
            case _:
                raise WireError(f"no action is called {message.kind!r}")
    except (orjson.JSONDecodeError, TypeError) as error:
        raise WireError(f"{message.kind}: {error}") from None
