"""The edge: SIP events in, calls out. It knows tenants and admission, and never runs a tenant's code itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

from loguru import logger

from admission import AdmissionGate, Admit, Lease, Reject
from mediaserver._native import MediaError
from mediaserver.call import Call
from mediaserver.media_link import EngineHub, LocalMediaLink
from mediaserver.media_session import MediaPolicy, stream_arguments
from mediaserver.pipeline.call_pipeline import PipelineResources
from sipbridge import (
    CallAnswered,
    CallEnded,
    CallFailed,
    CallRinging,
    DialogId,
    InviteConfirmed,
    InviteReceived,
    OfferReceived,
    SipEndpoint,
    SipEvent,
)
from sipbridge.sdp import (
    Negotiated,
    NotAcceptable,
    SessionDescription,
    accept_answer,
    remote_host,
    succeed,
)
from tenancy import CallRecord, Registry, TenancyError, TenantContext, TenantSuspended, UnknownNumber

MEDIA_TIMEOUT_MS = 30_000
"""A caller whose packets stop for this long has gone, whatever signalling says."""
MAX_CALL_S = 3_600
"""No conversation with a receptionist takes an hour."""
MAX_HOLD_S = 300
"""A leg on hold (one direction is off) has no media to time out; longer than this nobody comes back."""
MAX_LOGGED_CHARACTERS = 64
"""Of what a stranger chose; logged quoted, so that it can be no line of its own."""
DRAIN_RETRY_AFTER_S = 10
WORD_ABOUT_OVERLOAD = "all lines are busy"
DISCARD_PORT = 9
"""Stands in an answer that is made only to learn whether an offer is acceptable (RFC 863)."""


@dataclass(slots=True)
class _Leg:
    """The media side of a dialog."""

    link: LocalMediaLink
    address: str
    port: int
    local: SessionDescription
    """What we sent last: our answer, or our offer where the INVITE had none."""
    negotiated: Negotiated | None = None
    """What offer and answer agreed on, once both have been exchanged."""


@dataclass(slots=True)
class _Active:
    """What the edge holds for one dialog."""

    call: Call
    lease: Lease
    leg: _Leg
    deadline: asyncio.TimerHandle | None = None
    hold: asyncio.TimerHandle | None = None
    ending: bool = False


class Edge:
    """Turns invitations into calls and ends them exactly once."""

    def __init__(
        self,
        *,
        registry: Registry,
        gate: AdmissionGate,
        hub: EngineHub,
        resources: PipelineResources,
        media: MediaPolicy,
    ) -> None:
        self._registry = registry
        self._gate = gate
        self._hub = hub
        self._resources = resources
        self._media = media
        self._sip: SipEndpoint | None = None
        self._active: dict[DialogId, _Active] = {}
        self._pending: dict[DialogId, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    def use(self, sip: SipEndpoint) -> None:
        """The endpoint that the events come from; set once, before it starts."""
        self._sip = sip

    @property
    def active_calls(self) -> int:
        """Calls in progress."""
        return len(self._active)

    def sip_event(self, event: SipEvent) -> None:
        """Take an event from the SIP endpoint."""
        match event:
            case InviteReceived():
                task = self._spawn(self._invited(event), f"invite-{event.call_id}")
                self._pending[event.dialog] = task
                task.add_done_callback(lambda _: self._pending.pop(event.dialog, None))
            case InviteConfirmed():
                self._confirmed(event)
            case OfferReceived():
                self._reoffered(event)
            case CallEnded():
                self._ended(
                    event.dialog, f"{event.cause}: {event.detail}" if event.detail else str(event.cause)
                )
            case CallRinging() | CallAnswered() | CallFailed():
                logger.warning("unexpected {} on a server that places no calls", type(event).__name__)
            case _:
                assert_never(event)

    @staticmethod
    def _now_ms() -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    def drain(self) -> None:
        """Take no further calls; those that are up go on."""
        self._draining = True

    async def idle(self) -> None:
        """Wait until no call is in progress or being wound up."""
        await self._quiet.wait()

    @property
    def _endpoint(self) -> SipEndpoint:
        if self._sip is None:
            raise RuntimeError("Edge.use was not called")
        return self._sip

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        self._quiet.clear()
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("{} failed", task.get_name())
        if not self._tasks and not self._active:
            self._quiet.set()

    # -- an invitation ---------------------------------------------------------------------------------

    async def _invited(self, event: InviteReceived) -> None:
        sip = self._endpoint
        if self._draining:
            sip.reject(event.dialog, 503, retry_after_s=DRAIN_RETRY_AFTER_S)
            return
        called = event.called.user or ""
        try:
            tenant = await self._registry.context_for(called, call_id=event.call_id)
        except UnknownNumber:
            logger.info("call to an unknown number refused: {!r}", called[:MAX_LOGGED_CHARACTERS])
            sip.reject(event.dialog, 404)
            return
        except TenantSuspended:
            sip.reject(event.dialog, 480, "Temporarily Unavailable")
            return
        except TenancyError as error:
            logger.error("tenant lookup failed: {}", error)
            sip.reject(event.dialog, 503, retry_after_s=5)
            return
        decision = self._gate.request(tenant.tenant_id, tenant.config.max_concurrent_calls, self._now_ms())
        match decision:
            case Reject():
                logger.warning("call refused: {}", decision.reason)
                sip.reject(
                    event.dialog, decision.status, WORD_ABOUT_OVERLOAD, retry_after_s=decision.retry_after_s
                )
            case Admit():
                self._admitted(event, tenant, decision.lease)
            case _:
                assert_never(decision)

    def _admitted(self, event: InviteReceived, tenant: TenantContext, lease: Lease) -> None:
        sip = self._endpoint
        try:
            leg = self._open_leg(event.offer, tenant, event.source[0])
        except NotAcceptable as refusal:
            self._gate.release(lease, self._now_ms())
            sip.reject(event.dialog, refusal.status, warning=(refusal.warning, str(refusal)))
            return
        except (MediaError, ValueError) as error:
            logger.error("no media for a call: {}", error)
            self._gate.release(lease, self._now_ms())
            sip.reject(event.dialog, 503, retry_after_s=5)
            return
        try:
            call = Call(
                tenant,
                str(event.caller.uri),
                leg.link,
                self._resources,
                lambda why: self._over(event.dialog, why),
            )
        except Exception:  # noqa: BLE001 - the call's outer boundary: what was taken is given back
            logger.exception("the call's pipeline could not be built")
            self._hub.detach(leg.link)
            self._gate.release(lease, self._now_ms())
            sip.reject(event.dialog, 500)
            return
        active = self._active[event.dialog] = _Active(call, lease, leg)
        if leg.negotiated is not None:
            self._watch_hold(event.dialog, active, leg.negotiated)
        call.start()
        sip.answer(event.dialog, str(leg.local))
        logger.bind(call=tenant.call_id, tenant=tenant.tenant_id).info(
            "answering {!r} for {}",
            str(event.caller.uri)[:MAX_LOGGED_CHARACTERS],
            tenant.config.business_name,
        )

    def _open_leg(self, offer: SessionDescription | None, tenant: TenantContext, caller_host: str) -> _Leg:
        """Open the media of a call. Without an offer the 200 carries ours and the ACK the answer (RFC 3264 4)."""
        turns = tenant.config.turn_taking
        address = self._media.address_towards((remote_host(offer) if offer else None) or caller_host)
        remote = self._media.answer(offer, address, DISCARD_PORT).remote if offer else None
        stream, port = self._hub.engine.open_stream(
            remote=remote,
            origin=caller_host,
            vad_threshold=turns.vad_threshold,
            speech_start_ms=turns.speech_start_ms,
            speech_stop_ms=turns.speech_stop_ms,
            preroll_ms=turns.preroll_ms,
            media_timeout_ms=MEDIA_TIMEOUT_MS,
        )
        link = self._hub.attach(stream)
        try:
            if offer is None:
                return _Leg(link, address, port, self._media.offer(address, port))
            negotiated = self._media.answer(offer, address, port)
            self._connect(stream, negotiated)
            return _Leg(link, address, port, negotiated.answer, negotiated)
        except (NotAcceptable, MediaError, ValueError):
            self._hub.detach(link)
            raise

    def _watch_hold(self, dialog: DialogId, active: _Active, negotiated: Negotiated) -> None:
        """Bound a hold, and forget the bound when both directions are on again."""
        if active.hold is not None:
            active.hold.cancel()
            active.hold = None
        if not (negotiated.send and negotiated.receive):
            loop = asyncio.get_running_loop()
            active.hold = loop.call_later(MAX_HOLD_S, self._over, dialog, "on hold for too long")

    def _connect(self, stream: int, negotiated: Negotiated) -> None:
        self._hub.engine.connect_stream(stream, **stream_arguments(negotiated))

    # -- a call in progress ----------------------------------------------------------------------------

    def _confirmed(self, event: InviteConfirmed) -> None:
        active = self._active.get(event.dialog)
        if active is None:
            return
        if not event.initial:
            # The ACK of a re-INVITE to which our 200 made the offer; an answer that cannot be used changes nothing.
            self._take_answer(active, event.sdp)
            return
        if active.leg.negotiated is None and not self._take_answer(active, event.sdp):
            self._over(event.dialog, "no usable SDP answer in the ACK")
            return
        active.deadline = asyncio.get_running_loop().call_later(
            MAX_CALL_S, self._over, event.dialog, "maximum call length"
        )
        self._spawn(active.call.greet(), "greeting")

    def _take_answer(self, active: _Active, answer: SessionDescription | None) -> bool:
        if answer is None:
            return False
        try:
            negotiated = accept_answer(active.leg.local, answer)
            self._connect(active.leg.link.stream, negotiated)
        except (NotAcceptable, MediaError) as error:
            logger.warning("SDP answer refused: {}", error)
            return False
        active.leg.negotiated = negotiated
        return True

    def _reoffered(self, event: OfferReceived) -> None:
        sip = self._endpoint
        active = self._active.get(event.dialog)
        if active is None:
            sip.reject(event.dialog, 481)
            return
        if event.offer is None:
            # A re-INVITE without an offer asks for ours: the session as it stands (RFC 3261 14.2).
            sip.answer(event.dialog, str(active.leg.local))
            return
        try:
            leg = active.leg
            negotiated = self._media.answer(event.offer, leg.address, leg.port, leg.negotiated)
            self._connect(leg.link.stream, negotiated)
        except NotAcceptable as refusal:
            # The session goes on as it was (RFC 3261 14.2).
            sip.reject(event.dialog, refusal.status, warning=(refusal.warning, str(refusal)))
            return
        except MediaError as error:
            logger.error("no media for a new offer: {}", error)
            sip.reject(event.dialog, 488)
            return
        active.leg.local = succeed(active.leg.local, negotiated.answer)
        active.leg.negotiated = negotiated
        self._watch_hold(event.dialog, active, negotiated)
        sip.answer(event.dialog, str(active.leg.local))

    def _over(self, dialog: DialogId, why: str) -> None:
        """The conversation ended on our side: hang up. The dialog's end brings `_ended`."""
        active = self._active.get(dialog)
        if active is not None and not active.ending:
            active.ending = True
            logger.bind(call=active.call.tenant.call_id).info("hanging up: {}", why)
            self._endpoint.hang_up(dialog)

    def _ended(self, dialog: DialogId, why: str) -> None:
        pending = self._pending.pop(dialog, None)
        if pending is not None:
            pending.cancel()
        active = self._active.pop(dialog, None)
        if active is None:
            return
        active.ending = True
        for timer in (active.deadline, active.hold):
            if timer is not None:
                timer.cancel()
        self._spawn(self._wind_up(active, why), "wind-up")

    async def _wind_up(self, active: _Active, why: str) -> None:
        call = active.call
        bound = logger.bind(call=call.tenant.call_id, tenant=call.tenant.tenant_id)
        try:
            await call.end(why)
        finally:
            self._hub.detach(call.link)
            self._gate.release(active.lease, self._now_ms())
        bound.info("call ended: {}", why)
        try:
            await self._registry.record_call(call.tenant, record_of(call, why))
        except TenancyError as error:
            bound.error("the call's record could not be written: {}", error)

    async def close(self) -> None:
        """Take no further call, hang up those that are up and wind them up."""
        self.drain()
        for dialog in list(self._active):
            self._over(dialog, "server stopping")
        await self._settled()

    async def finish(self) -> None:
        """Wind up what the closed endpoint left: a call that was just being answered has a record as well."""
        for dialog in list(self._active):
            self._ended(dialog, "server stopping")
        await self._settled()

    async def _settled(self) -> None:
        while self._tasks:
            await asyncio.wait(set(self._tasks))


def record_of(call: Call, cause: str) -> CallRecord:
    """The durable record of a finished call."""
    conversation = call.conversation
    return CallRecord(
        call_id=call.tenant.call_id,
        caller=call.caller,
        called=call.tenant.called_number,
        config_version=call.tenant.config_version,
        started_at=call.started_at,
        ended_at=datetime.now(UTC),
        cause=cause,
        transcript=[
            {
                "speaker": str(line.speaker),
                "text": line.text,
                "at": line.at.isoformat(),
                "interrupted": line.interrupted,
            }
            for line in conversation.lines
        ],
        messages=[
            {"name": message.name, "number": message.number, "reason": message.reason}
            for message in conversation.messages
        ],
    )
