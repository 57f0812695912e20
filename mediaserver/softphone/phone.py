"""The softphone's shell: SIP and media around the dialogue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from mediaserver._native import Activity, MediaEngine, Played, StreamFailed
from mediaserver.errors import LinkClosed, MediaServerError
from mediaserver.media_link import EngineHub, LocalMediaLink, MediaEvent
from mediaserver.media_session import NARROWBAND_ONLY, MediaPolicy, stream_arguments
from mediaserver.softphone.caller import Caller, now_us
from mediaserver.softphone.listening import Ear
from mediaserver.softphone.report import CallReport
from mediaserver.softphone.speech import SPEECH_RATE_HZ, Utterance
from sipbridge import (
    CallAnswered,
    CallEnded,
    CallFailed,
    CallRinging,
    DialogId,
    InviteConfirmed,
    InviteReceived,
    OfferReceived,
    SipAddress,
    SipEndpoint,
    SipEndpointConfig,
    SipEvent,
    SipUri,
)
from sipbridge.sdp import (
    Negotiated,
    NotAcceptable,
    SessionDescription,
    SrtpPolicy,
    accept_answer,
    succeed,
)

RING_TIMEOUT_S = 30.0
MAX_CALL_S = 300.0
BYE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class PhoneOptions:
    """How to place a call."""

    target: SipUri
    utterances: tuple[Utterance, ...]
    local_host: str
    vad_model: bytes
    transport: str = "udp"
    codecs: tuple[str, ...] = NARROWBAND_ONLY
    """Codecs to offer, best first."""
    srtp: SrtpPolicy = SrtpPolicy.OFF
    record: Path | None = None
    quiet_ms: int = 1_300
    """Silence that ends a stretch of the other side's speech."""
    interrupt_greeting_ms: int | None = None
    """Speak over the greeting this long after it began."""
    transcribe: bool = True
    """Whether what was heard is turned into text."""


@dataclass(slots=True)
class _Line:
    """The media side of the call."""

    hub: EngineHub
    link: LocalMediaLink
    port: int
    local: SessionDescription
    """What we sent last."""
    negotiated: Negotiated

    def connect(self) -> None:
        """Tell the engine what was agreed on."""
        self.hub.engine.connect_stream(self.link.stream, **stream_arguments(self.negotiated))


class Phone:
    """Places one call and follows a `Dialogue` through it."""

    def __init__(self, options: PhoneOptions, ear: Ear, say: Callable[[str], None]) -> None:
        self._options = options
        self._media = MediaPolicy(options.local_host, codecs=options.codecs, srtp=options.srtp)
        self._print = say
        self._report = CallReport(target=str(options.target), requested=len(options.utterances))
        self._caller = Caller(
            options.utterances,
            self._report,
            say,
            ear=ear if options.transcribe else None,
            quiet_ms=options.quiet_ms,
            interrupt_greeting_ms=options.interrupt_greeting_ms,
        )
        self._sip_events: asyncio.Queue[SipEvent] = asyncio.Queue(maxsize=64)
        self._utterance_mark: int | None = None

    async def call(self) -> CallReport:
        """Place the call; returns when it is over."""
        engine = MediaEngine(
            self._options.local_host, port_count=1, vad_model=self._options.vad_model, max_streams=1
        )
        hub = EngineHub(engine)
        hub.start()
        sip = SipEndpoint(
            SipEndpointConfig(host=self._options.local_host, port=0, user_agent="mediaserver softphone"),
            self._sip_events.put_nowait,
        )
        try:
            await sip.start()
            await self._place(sip, hub)
        finally:
            await sip.close()
            hub.close()
        return self._report

    async def _place(self, sip: SipEndpoint, hub: EngineHub) -> None:
        stream, port = hub.engine.open_stream(
            remote=None, speech_stop_ms=400, preroll_ms=400, report_activity=True
        )
        link = hub.attach(stream)
        offer = self._media.offer(self._options.local_host, port)
        caller = SipAddress(display="Softphone", uri=SipUri("sip", "softphone", self._options.local_host))
        placed_at = time.monotonic()
        dialog = sip.invite(self._options.target, caller, str(offer), transport=self._options.transport)
        answer = await self._await_answer(sip, dialog)
        if answer is None:
            return
        self._report.setup_ms = int((time.monotonic() - placed_at) * 1000)
        self._report.answered = True
        try:
            negotiated = accept_answer(offer, answer)
        except NotAcceptable as error:
            sip.hang_up(dialog)
            raise MediaServerError(f"the answer's SDP cannot be used: {error}") from error
        if self._options.record is not None:
            hub.engine.record(stream, str(self._options.record))
            self._report.recording = self._options.record
        line = _Line(hub, link, port, offer, negotiated)
        line.connect()
        self._report.codec, self._report.encrypted = negotiated.codec, negotiated.srtp is not None
        self._caller.dialogue.connected(now_us())
        await self._converse(sip, dialog, line)
        stats = hub.engine.stream_stats(stream)
        self._report.packets_received = stats["received"]
        self._report.packets_lost = stats["lost"]
        hub.detach(link)

    async def _await_answer(self, sip: SipEndpoint, dialog: DialogId) -> SessionDescription | None:
        try:
            async with asyncio.timeout(RING_TIMEOUT_S):
                while True:
                    match await self._sip_events.get():
                        case CallAnswered(answer=answer):
                            if answer is None:
                                raise MediaServerError("answered without SDP")
                            return answer
                        case CallFailed(status=status, reason=reason):
                            self._report.status = status
                            self._report.reason = reason
                            return None
                        case CallRinging(status=status):
                            self._print(f"ringing ({status})")
                        case CallEnded(detail=detail):
                            self._report.reason = self._report.reason or detail
                            return None
                        case _:
                            continue
        except TimeoutError:
            sip.hang_up(dialog)
            self._report.reason = f"no answer within {RING_TIMEOUT_S:.0f} s"
            return None

    async def _converse(self, sip: SipEndpoint, dialog: DialogId, line: _Line) -> None:
        """Run the dialogue until either side hangs up."""
        link = line.link
        media: asyncio.Task[MediaEvent] = asyncio.ensure_future(link.next_event())
        signalling: asyncio.Task[SipEvent] = asyncio.ensure_future(self._sip_events.get())
        give_up_us = now_us() + int(MAX_CALL_S * 1_000_000)
        over = False

        def play(pcm: bytes) -> None:
            self._utterance_mark = link.next_mark()
            link.play(pcm, SPEECH_RATE_HZ, self._utterance_mark)

        try:
            while not over and now_us() < give_up_us:
                due_us = min(give_up_us, self._caller.dialogue.deadline_us or give_up_us)
                wait_s = max(0.0, (due_us - now_us()) / 1_000_000)
                done, _ = await asyncio.wait(
                    {media, signalling}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
                )
                if media in done:
                    over = isinstance(media.result(), StreamFailed)
                    self._media_event(media.result())
                    media = asyncio.ensure_future(link.next_event())
                if signalling in done:
                    over = await self._signalling_event(sip, signalling.result(), line) or over
                    signalling = asyncio.ensure_future(self._sip_events.get())
                over = await self._caller.poll(now_us(), play) or over
        except LinkClosed:
            pass
        finally:
            media.cancel()
            signalling.cancel()
        sip.hang_up(dialog)
        await self._await_bye()

    async def _await_bye(self) -> None:
        try:
            async with asyncio.timeout(BYE_TIMEOUT_S):
                while not isinstance(await self._sip_events.get(), CallEnded):
                    continue
        except TimeoutError:
            return

    def _media_event(self, event: MediaEvent) -> None:
        caller = self._caller
        if caller.ear is not None:
            caller.ear.event(event)
        if isinstance(event, Activity):
            if event.active:
                caller.dialogue.remote_active(event.at_us)
            else:
                caller.dialogue.remote_quiet(event.at_us)
        elif isinstance(event, Played) and event.mark == self._utterance_mark:
            caller.dialogue.said(event.at_us)

    async def _signalling_event(self, sip: SipEndpoint, event: SipEvent, line: _Line) -> bool:
        """Handle an event in the call; True when it ended it."""
        match event:
            case CallEnded():
                await self._caller.remote_hung_up()
                return True
            case OfferReceived(dialog=dialog, offer=offer):
                self._reoffered(sip, dialog, offer, line)
                return False
            case InviteReceived(dialog=dialog):
                sip.reject(dialog, 486)
                return False
            case CallRinging() | CallAnswered() | CallFailed() | InviteConfirmed():
                return False
            case _:
                assert_never(event)

    def _reoffered(
        self, sip: SipEndpoint, dialog: DialogId, offer: SessionDescription | None, line: _Line
    ) -> None:
        """Follow a re-INVITE: another address, a hold, new keys."""
        if offer is None:
            sip.reject(dialog, 488)
            return
        try:
            line.negotiated = self._media.answer(offer, self._options.local_host, line.port, line.negotiated)
        except NotAcceptable as refusal:
            sip.reject(dialog, refusal.status, warning=(refusal.warning, str(refusal)))
            return
        line.connect()
        line.local = succeed(line.local, line.negotiated.answer)
        sip.answer(dialog, str(line.local))
