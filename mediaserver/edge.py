"""The SIP edge: invitations in, calls out. What a call is to the node it leaves to the `Switchboard`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import assert_never

from loguru import logger

from mediaserver._native import MediaError
from mediaserver.calls import ActiveCall, CallRefused, Switchboard
from mediaserver.media_link import LocalMediaLink
from mediaserver.media_session import MediaPolicy, stream_arguments, unconfirmed_arguments
from mediaserver.telemetry.schema import ANSWER_SECONDS, CALLS_REFUSED
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
from tenancy import CalledUri, TenantContext, Trunks

MEDIA_TIMEOUT_MS = 30_000
"""A caller whose packets stop for this long has gone, whatever signalling says."""
MAX_HOLD_S = 300
"""A leg on hold (one direction is off) has no media to time out; longer than this nobody comes back."""
NO_MEDIA_RETRY_AFTER_S = 5
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
class _SipCall:
    """A dialog and its call."""

    active: ActiveCall
    leg: _Leg
    hold: asyncio.TimerHandle | None = None


class Edge:
    """Turns SIP invitations into calls, and follows their dialogs to the end."""

    def __init__(self, switchboard: Switchboard, media: MediaPolicy, trunks: Trunks) -> None:
        self._switchboard = switchboard
        self._hub = switchboard.hub
        self._media = media
        self._trunks = trunks
        self._sip: SipEndpoint | None = None
        self._dialogs: dict[DialogId, _SipCall] = {}
        self._pending: dict[DialogId, asyncio.Task[None]] = {}

    def use(self, sip: SipEndpoint) -> None:
        """The endpoint that the events come from; set once, before it starts."""
        self._sip = sip

    def sip_event(self, event: SipEvent) -> None:
        """Take an event from the SIP endpoint."""
        match event:
            case InviteReceived():
                task = self._switchboard.spawn(self._invited(event, _now_s()), f"invite-{event.call_id}")
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

    @property
    def _endpoint(self) -> SipEndpoint:
        if self._sip is None:
            raise RuntimeError("Edge.use was not called")
        return self._sip

    # -- an invitation ---------------------------------------------------------------------------------

    async def _invited(self, event: InviteReceived, since_s: float) -> None:
        try:
            trunk = self._trunks.from_source(event.source[0], event.transport)
            called = CalledUri(trunk, event.request_uri)
            tenant = await self._switchboard.tenant_for(called, event.call_id)
            answer = self._answer(event, tenant)
        except CallRefused as refusal:
            self._endpoint.reject(
                event.dialog,
                refusal.status,
                refusal.why or None,
                retry_after_s=refusal.retry_after_s,
                contact=refusal.answer.contact if refusal.answer is not None else None,
            )
        except NotAcceptable as refusal:
            self._switchboard.meters.inc(CALLS_REFUSED, "unacceptable_offer")
            self._endpoint.reject(event.dialog, refusal.status, warning=(refusal.warning, str(refusal)))
        else:
            self._endpoint.answer(event.dialog, str(answer))
            self._switchboard.meters.observe(ANSWER_SECONDS, _now_s() - since_s, "sip")

    def _answer(self, event: InviteReceived, tenant: TenantContext) -> SessionDescription:
        """Take the call. Raises `CallRefused` or `NotAcceptable`, with nothing left behind."""
        lease = self._switchboard.admit(tenant)
        try:
            leg = self._open_leg(event.offer, tenant, event.source[0])
        except NotAcceptable:
            self._switchboard.give_back(lease)
            raise
        except (MediaError, ValueError) as error:
            logger.error("no media for a call: {}", error)
            self._switchboard.meters.inc(CALLS_REFUSED, "no_media")
            self._switchboard.give_back(lease)
            raise CallRefused(503, retry_after_s=NO_MEDIA_RETRY_AFTER_S) from error
        active = self._switchboard.begin(
            tenant,
            str(event.caller.uri),
            lease,
            leg.link,
            hang_up=lambda _: self._endpoint.hang_up(event.dialog),
        )
        held = self._dialogs[event.dialog] = _SipCall(active, leg)
        if leg.negotiated is not None:
            self._watch_hold(held, leg.negotiated)
        return leg.local

    def _open_leg(self, offer: SessionDescription | None, tenant: TenantContext, caller_host: str) -> _Leg:
        """Open the media of a call; we send from the ACK on.

        Without an offer the 200 carries ours and the ACK the answer (RFC 3264 4).
        """
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
            pause_ms=turns.pause_ms,
            media_timeout_ms=MEDIA_TIMEOUT_MS,
        )
        link = self._hub.attach(stream)
        try:
            if offer is None:
                return _Leg(link, address, port, self._media.offer(address, port))
            negotiated = self._media.answer(offer, address, port)
            self._hub.engine.connect_stream(stream, **unconfirmed_arguments(negotiated))
            return _Leg(link, address, port, negotiated.answer, negotiated)
        except (NotAcceptable, MediaError, ValueError):
            self._hub.detach(link)
            raise

    def _watch_hold(self, held: _SipCall, negotiated: Negotiated) -> None:
        """Bound a hold, and forget the bound when both directions are on again."""
        if held.hold is not None:
            held.hold.cancel()
            held.hold = None
        if not (negotiated.send and negotiated.receive):
            held.hold = asyncio.get_running_loop().call_later(
                MAX_HOLD_S, self._switchboard.over, held.active, "on hold for too long"
            )

    def _connect(self, stream: int, negotiated: Negotiated) -> None:
        self._hub.engine.connect_stream(stream, **stream_arguments(negotiated))

    # -- a call in progress ----------------------------------------------------------------------------

    def _confirmed(self, event: InviteConfirmed) -> None:
        held = self._dialogs.get(event.dialog)
        if held is None:
            return
        if not event.initial:
            # The ACK of a re-INVITE to which our 200 made the offer; an answer that cannot be used changes nothing.
            self._take_answer(held.leg, event.sdp)
        elif (negotiated := held.leg.negotiated) is None:
            if self._take_answer(held.leg, event.sdp):
                self._switchboard.connected(held.active)
            else:
                self._switchboard.over(held.active, "no usable SDP answer in the ACK")
        else:
            self._begin_sending(held, negotiated)

    def _begin_sending(self, held: _SipCall, negotiated: Negotiated) -> None:
        """The ACK is there, and no later offer before it (`Sessions` answers that with 491): as agreed from now on."""
        try:
            self._connect(held.leg.link.stream, negotiated)
        except (MediaError, ValueError) as error:
            logger.error("no media for a confirmed call: {}", error)
            self._switchboard.over(held.active, "no media")
        else:
            self._switchboard.connected(held.active)

    def _take_answer(self, leg: _Leg, answer: SessionDescription | None) -> bool:
        if answer is None:
            return False
        try:
            negotiated = accept_answer(leg.local, answer, leg.negotiated)
            self._connect(leg.link.stream, negotiated)
        except (NotAcceptable, MediaError) as error:
            logger.warning("SDP answer refused: {}", error)
            return False
        leg.negotiated = negotiated
        return True

    def _reoffered(self, event: OfferReceived) -> None:
        sip = self._endpoint
        held = self._dialogs.get(event.dialog)
        if held is None:
            sip.reject(event.dialog, 481)
            return
        leg = held.leg
        if event.offer is None:
            # A re-INVITE without an offer asks for ours: the session as it stands (RFC 3261 14.2).
            sip.answer(event.dialog, str(leg.local))
            return
        try:
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
        leg.local = succeed(leg.local, negotiated.answer)
        leg.negotiated = negotiated
        self._watch_hold(held, negotiated)
        sip.answer(event.dialog, str(leg.local))

    def _ended(self, dialog: DialogId, why: str) -> None:
        pending = self._pending.pop(dialog, None)
        if pending is not None:
            pending.cancel()
        held = self._dialogs.pop(dialog, None)
        if held is None:
            return
        if held.hold is not None:
            held.hold.cancel()
        self._switchboard.ended(held.active, why)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
