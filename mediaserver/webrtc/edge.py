"""The web edge: offers in, calls out. What a call is to the node it leaves to the `Switchboard`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from loguru import logger

from mediaserver._native import (
    ChannelMessage,
    ChannelOpened,
    DtmfDigit,
    MediaError,
    WebRtcConnected,
    WebRtcEnded,
)
from mediaserver.call import Line, Speaker
from mediaserver.calls import ActiveCall, CallRefused, Switchboard
from mediaserver.media_link import LegEvent, LocalMediaLink
from mediaserver.telemetry.schema import ANSWER_SECONDS, CALLS_REFUSED
from mediaserver.webrtc.rtvi import PEER_LEFT, HangUp, Press, RtviAction, RtviConversation, Send
from mediaserver.webrtc.sessions import (
    CANDIDATE_RATE,
    Session,
    SessionBook,
    SessionBookFull,
    SessionState,
    SourceLimit,
)
from mediaserver.webrtc.signalling import Candidates, Offer, StartRequest, WebRefusal
from mediaserver.webrtc.waiting import WaitingCalls, WaitingPlace
from tenancy import Called, CalledNumber, CalledSite, TenantContext, Trunk
from tenancy.routing import UNKNOWN

TOKEN_BYTES = 16
CONNECT_TIMEOUT_S = 20.0
"""From the answer to media: past it the browser is behind a network that lets nothing through."""
FAREWELL_S = 0.2
"""Between our last word on the data channel and the end of the connection that carries it."""
FULL_BOOK_RETRY_AFTER_S = 10
WAITING_PER_SOURCE = 8
WAITING_RETRY_AFTER_S = 5
KEY_DURATION_MS = 100
"""A key from the page has no length of its own."""
HTTP_STATUS = {486: 503}
"""SIP's word for a refusal in HTTP, where it is another; a tenant at its limit is no fault of the client's either."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an offer is answered with."""

    sdp: str
    pc_id: str


class WebCall:
    """A call from a browser: what its leg reports, and what its page is told. Listens to its `Call`."""

    def __init__(self, switchboard: Switchboard, waiting: WaitingPlace) -> None:
        self._switchboard = switchboard
        self._waiting = waiting
        self._rtvi = RtviConversation()
        self._connected = False
        self._deadline: asyncio.TimerHandle | None = None
        self._link: LocalMediaLink | None = None
        self._active: ActiveCall | None = None
        self._our_reason: str | None = None
        self.unsent = 0
        """Messages that the data channel did not take."""

    def begin(self, active: ActiveCall) -> None:
        """The call runs; the connection is to follow."""
        self._active, self._link = active, active.call.link
        self._deadline = asyncio.get_running_loop().call_later(
            CONNECT_TIMEOUT_S, self._switchboard.over, active, "the browser never connected"
        )

    def leg_event(self, event: LegEvent) -> None:
        """Take an event of the connection."""
        if self._active is None:
            return
        match event:
            case WebRtcConnected():
                if not self._connected:
                    self._connected = True
                    self._waiting.leave()
                    self._stop_waiting()
                    self._switchboard.connected(self._active)
            case ChannelOpened():
                pass  # The client's first message says that it is ready.
            case ChannelMessage():
                self._perform(self._rtvi.received(event.text, _now_ms()))
            case WebRtcEnded():
                self._end(event.reason)
            case _:
                assert_never(event)

    def hang_up(self, why: str) -> None:
        """Our side ends the call: say so, then close."""
        self._our_reason = f"local_close: {why}"
        self._perform((Send(PEER_LEFT),))
        self._switchboard.spawn(self._close_after_farewell(self._our_reason), "web-farewell")

    async def _close_after_farewell(self, why: str) -> None:
        if self._connected:
            await asyncio.sleep(FAREWELL_S)
        self._end(why)

    def _end(self, why: str) -> None:
        """The call is over; a client that leaves because we do is not who ended it."""
        self._stop_waiting()
        if self._active is not None:
            self._switchboard.ended(self._active, self._our_reason or why)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # -- what the page is told (CallListener) ----------------------------------------------------------

    def said(self, line: Line) -> None:
        self._perform(self._rtvi.said(line))

    def speaking(self, speaker: Speaker, *, active: bool) -> None:
        self._perform(self._rtvi.speaking(speaker, active=active))

    def sentence(self, text: str) -> None:
        self._perform(self._rtvi.sentence(text))

    def _perform(self, actions: Iterable[RtviAction]) -> None:
        link = self._link
        if link is None:
            return
        for action in actions:
            match action:
                case Send():
                    try:
                        link.send_message(action.text)
                    except MediaError:
                        # No channel, or a peer that does not read: the call goes on without its words.
                        self.unsent += 1
                case Press():
                    for key in action.keys:
                        link.deliver(DtmfDigit(stream=link.stream, digit=key, duration_ms=KEY_DURATION_MS))
                case HangUp():
                    self._end("remote_close: the caller hung up")
                case _:
                    assert_never(action)


class WebEdge:
    """Sessions and offers of a node."""

    def __init__(
        self, switchboard: Switchboard, trunk: Trunk, waiting_per_source: int = WAITING_PER_SOURCE
    ) -> None:
        self._switchboard = switchboard
        self._trunk = trunk
        self._waiting = WaitingCalls(waiting_per_source)
        self.refusals: Counter[int] = Counter()
        """Requests refused, by HTTP status."""
        self._book = SessionBook()
        self._sources = SourceLimit()
        self._calls: dict[str, ActiveCall] = {}
        """The calls that are up, by pc_id."""

    @property
    def waiting_calls(self) -> int:
        """Calls that are not connected yet."""
        return len(self._waiting)

    @property
    def sessions(self) -> int:
        """Sessions that wait for their call or have it."""
        return len(self._book)

    def origin_of(self, token: str) -> str | None:
        """The page that a session belongs to, where a site key admitted it."""
        session = self._book.find(token, _now_ms())
        return None if session is None else session.origin

    async def start(self, request: StartRequest, source: str, origin: str | None = None) -> str:
        """A token for one call to a number, or by a site key from a page of this origin. Raises `WebRefusal`."""
        wait_ms = self._sources.wait_ms(source, _now_ms())
        if wait_ms:
            raise WebRefusal(429, "too many calls from your address", retry_after_s=-(-wait_ms // 1000))
        called: Called
        if request.site_key is not None:
            called = CalledSite(request.site_key, origin)
        else:
            called = CalledNumber(self._trunk, request.number or "")
        try:
            tenant = await self._switchboard.tenant_for(called, "web-session")
            self._switchboard.look_for_room(tenant)
        except CallRefused as refusal:
            raise _translated(refusal) from refusal
        token = secrets.token_urlsafe(TOKEN_BYTES)
        try:
            self._book.issue(token, called, tenant.tenant_id, source, _now_ms())
        except SessionBookFull:
            raise WebRefusal(503, "too many callers at once", retry_after_s=FULL_BOOK_RETRY_AFTER_S) from None
        return token

    async def offer(self, token: str, offer: Offer, source: str) -> Answer:
        """Answer an offer: the session's call, or a change of its connection. Raises `WebRefusal`."""
        session = self._session(token)
        wait_ms = session.offer_wait_ms(_now_ms())
        if wait_ms:
            raise WebRefusal(429, "too many offers of this session", retry_after_s=-(-wait_ms // 1000))
        in_call = session.state is SessionState.IN_CALL
        if not self._book.claim(session):
            raise WebRefusal(409, "an offer of this session is being answered already")
        try:
            if in_call:
                return await self._renegotiate(session, offer)
            return await self._take_call(session, offer, source)
        except CallRefused as refusal:
            raise _translated(refusal) from refusal
        except MediaError as error:
            # A call that is up goes on as it was (RFC 9429 4.1.10.2: the offerer rolls back).
            if not in_call:
                self._switchboard.meters.inc(CALLS_REFUSED, "unacceptable_offer")
            logger.info("an offer was refused: {}", error)
            raise WebRefusal(422, f"the offer cannot be used: {error}") from error
        finally:
            self._book.unclaim(session)

    def candidates(self, token: str, request: Candidates) -> None:
        """Take trickled candidates of a call that is up. Raises `WebRefusal`.

        An ICE-lite agent learns the browser's addresses from its checks and needs none of them (RFC 8445 section 2.5).
        """
        session = self._session(token)
        wait_ms = session.candidates_wait_ms(len(request.candidates), _now_ms())
        if wait_ms:
            text = f"too many candidates of this session: {CANDIDATE_RATE.burst} at once are possible"
            raise WebRefusal(429, text, retry_after_s=-(-wait_ms // 1000))
        self._call_of(session, request.pc_id)

    def _session(self, token: str) -> Session:
        session = self._book.find(token, _now_ms())
        if session is None:
            raise WebRefusal(404, "no such session: it was never started, has expired, or its call is over")
        return session

    async def _take_call(self, session: Session, offer: Offer, source: str) -> Answer:
        waiting = self._waiting.enter(source)
        if waiting is None:
            text = f"{self._waiting.most} calls from your address wait for their connection already"
            raise WebRefusal(429, text, retry_after_s=WAITING_RETRY_AFTER_S)
        try:
            return await self._call_waiting(session, offer, source, waiting)
        except BaseException:
            waiting.leave()
            raise

    async def _call_waiting(
        self, session: Session, offer: Offer, source: str, waiting: WaitingPlace
    ) -> Answer:
        since_ms = _now_ms()
        pc_id = str(uuid.uuid4())
        tenant = await self._switchboard.tenant_for(session.called, pc_id)
        if tenant.tenant_id != session.tenant_id:
            raise CallRefused.unrouted(UNKNOWN)
        lease = self._switchboard.admit(tenant)
        try:
            stream, answer = await self._opened(tenant, offer.sdp)
        except BaseException:
            self._switchboard.give_back(lease)
            raise
        # From here on nothing waits, and the lease is the call's.
        web_call = WebCall(self._switchboard, waiting)
        link = self._switchboard.hub.attach(stream, web_call.leg_event)
        active = self._switchboard.begin(
            tenant, f"web:{source}", lease, link, hang_up=web_call.hang_up, listener=web_call
        )
        web_call.begin(active)
        self._book.begin(session, pc_id)
        self._calls[pc_id] = active
        active.on_ended = lambda: self._forget(session, pc_id, waiting)
        self._switchboard.meters.observe(ANSWER_SECONDS, (_now_ms() - since_ms) / 1000, "webrtc")
        return Answer(answer, pc_id)

    async def _opened(self, tenant: TenantContext, offer: str) -> tuple[int, str]:
        """Open a leg beside the event loop; one that nobody waits for any more is closed. Raises `MediaError`."""
        opening = asyncio.ensure_future(asyncio.to_thread(self._open, tenant, offer))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._close_unused)
            raise

    def _close_unused(self, opening: asyncio.Future[tuple[int, str]]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._close_leg(opening.result()[0])

    def _close_leg(self, stream: int) -> None:
        with contextlib.suppress(MediaError):  # The engine was shut down first.
            self._switchboard.hub.engine.close_stream(stream)

    def _open(self, tenant: TenantContext, offer: str) -> tuple[int, str]:
        turns = tenant.config.turn_taking
        return self._switchboard.hub.engine.open_webrtc(
            offer=offer,
            vad_threshold=turns.vad_threshold,
            speech_start_ms=turns.speech_start_ms,
            speech_stop_ms=turns.speech_stop_ms,
            preroll_ms=turns.preroll_ms,
            pause_ms=turns.pause_ms,
        )

    async def _renegotiate(self, session: Session, offer: Offer) -> Answer:
        if offer.pc_id is None:
            raise WebRefusal(409, "the session has its call: a further offer must carry its pc_id")
        call = self._call_of(session, offer.pc_id).call
        hub = self._switchboard.hub
        if not offer.restart_pc:
            answer = await asyncio.to_thread(hub.engine.reoffer_webrtc, call.link.stream, offer.sdp)
            return Answer(answer, offer.pc_id)
        # The browser has made a new connection, with keys of its own: a new leg takes over the call.
        stream, answer = await self._opened(call.tenant, offer.sdp)
        try:
            self._call_of(session, offer.pc_id)  # It may have ended meanwhile.
            hub.move(call.link, stream)
        except BaseException:
            self._close_leg(stream)
            raise
        return Answer(answer, offer.pc_id)

    def _call_of(self, session: Session, pc_id: str) -> ActiveCall:
        active = self._calls.get(pc_id) if session.pc_id == pc_id else None
        if active is None:
            raise WebRefusal(404, "no such peer connection in this session")
        return active

    def _forget(self, session: Session, pc_id: str, waiting: WaitingPlace) -> None:
        waiting.leave()
        self._calls.pop(pc_id, None)
        self._book.close(session)


def _translated(refusal: CallRefused) -> WebRefusal:
    """A refused call in HTTP."""
    answer = refusal.answer
    if answer is not None:
        return WebRefusal(answer.http_status, answer.text, location=answer.location)
    texts = {
        486: "all lines of this number are busy",
        503: "all lines are busy",
    }
    return WebRefusal(
        HTTP_STATUS.get(refusal.status, refusal.status),
        texts.get(refusal.status, "the call could not be set up"),
        retry_after_s=refusal.retry_after_s,
    )


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)
