"""The softphone's shell over WebRTC: aiortc and the signalling of Pipecat's small-webrtc clients around the caller."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from mediaserver._native import SpeechAudio
from mediaserver.errors import MediaServerError
from mediaserver.softphone.caller import Caller, now_us
from mediaserver.softphone.listening import Ear
from mediaserver.softphone.report import CallReport
from mediaserver.softphone.speech import Utterance
from mediaserver.softphone.web_line import (
    Arrivals,
    Audibility,
    HeardFrame,
    Mouth,
    StereoRecording,
    listen,
)

CONNECT_TIMEOUT_S = 20.0
HTTP_TIMEOUT_S = 10.0
MAX_CALL_S = 300.0
BEAT_S = 0.02
PREROLL_FRAMES = 20
ABOUT: Final = "mediaserver softphone"
RTVI_VERSION: Final = "2.1.0"


@dataclass(frozen=True, slots=True)
class WebPhoneOptions:
    """How to place a call."""

    url: str
    """The server's root, for example ``http://127.0.0.1:8080``."""
    number: str | None
    """Whom to call; none: the first number that the server lists."""
    utterances: tuple[Utterance, ...]
    record: Path | None = None
    quiet_ms: int = 1_300
    """Silence that ends a stretch of the other side's speech."""


class WebPhone:
    """Places one call over WebRTC. Without an ear nothing is turned into text."""

    def __init__(self, options: WebPhoneOptions, ear: Ear | None, say: Callable[[str], None]) -> None:
        self._options = options
        self._print = say
        self._report = CallReport(
            target=options.url, requested=len(options.utterances), connected_by="the connection"
        )
        self._caller = Caller(
            options.utterances,
            self._report,
            say,
            ear=ear,
            quiet_ms=options.quiet_ms,
        )
        self._audibility = Audibility()
        self._before: deque[bytes] = deque(maxlen=PREROLL_FRAMES)
        """What came in last and has not been handed to the ear: the onset of a word is softer than the word."""
        self._recording: StereoRecording | None = None
        self._connected = asyncio.Event()
        self._gone = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self.told: list[dict[str, object]] = []
        """The messages of the data channel, in order."""

    async def call(self) -> CallReport:
        """Place the call; returns when it is over."""
        # Without servers to ask for its own address: the peer is reached from here, or it is not.
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        if self._options.record is not None:
            self._recording = StereoRecording(self._options.record)
        try:
            async with httpx2.AsyncClient(base_url=self._options.url, timeout=HTTP_TIMEOUT_S) as http:
                await self._place(connection, http)
        except httpx2.HTTPError as error:
            raise MediaServerError(f"{self._options.url}: {str(error) or type(error).__name__}") from error
        finally:
            await connection.close()
            if self._listening is not None:
                await asyncio.wait([self._listening])
            if self._recording is not None:
                self._recording.close()
        return self._report

    async def _place(self, connection: RTCPeerConnection, http: httpx2.AsyncClient) -> None:
        mouth = Mouth(self._sent, self._caller.dialogue.said)
        connection.addTrack(mouth)
        channel = connection.createDataChannel("chat")
        self._watch(connection, channel)
        placed_at = time.monotonic()
        answer = await self._signal(connection, http)
        if answer is None:
            return
        self._report.setup_ms = int((time.monotonic() - placed_at) * 1000)
        await connection.setRemoteDescription(answer)
        if not await self._connects():
            return
        self._report.answered = True
        self._report.codec, self._report.encrypted = "opus", True
        self._report.recording = self._options.record
        self._caller.dialogue.connected(now_us())
        await self._converse(mouth)
        await self._note_statistics(connection)
        if channel.readyState == "open":
            channel.send(_rtvi("disconnect-bot", {}))
            await asyncio.sleep(BEAT_S)

    def _watch(self, connection: RTCPeerConnection, channel: RTCDataChannel) -> None:
        @connection.on("track")
        def track(track: object) -> None:
            (receiver,) = (t.receiver for t in connection.getTransceivers() if t.receiver.track is track)
            work = listen(receiver.track, Arrivals(receiver), self._heard)
            self._listening = asyncio.get_running_loop().create_task(work, name="softphone-listening")

        @connection.on("connectionstatechange")
        def state_changed() -> None:
            if connection.connectionState == "connected":
                self._connected.set()
            elif connection.connectionState in {"failed", "closed"}:
                self._gone.set()

        @channel.on("open")
        def opened() -> None:
            channel.send(_rtvi("client-ready", {"version": RTVI_VERSION, "about": {"library": ABOUT}}))

        @channel.on("message")
        def message(text: object) -> None:
            told = json.loads(text) if isinstance(text, str) else {}
            self.told.append(told)
            if told.get("type") == "signalling" and told.get("message", {}).get("type") == "peerLeft":
                self._gone.set()

        channel.on("close", self._gone.set)

    async def _signal(
        self, connection: RTCPeerConnection, http: httpx2.AsyncClient
    ) -> RTCSessionDescription | None:
        """Ask for a session and make the offer; none when the call is refused, which the report then says."""
        number = self._options.number or await self._first_number(http)
        self._report.target = f"{number} at {self._options.url}"
        session = await self._post(http, "/start", {"number": number})
        if session is None:
            return None
        await connection.setLocalDescription(await connection.createOffer())
        offer = connection.localDescription
        path = f"/sessions/{session['sessionId']}/api/offer"
        answer = await self._post(http, path, {"sdp": offer.sdp, "type": offer.type})
        if answer is None:
            return None
        return RTCSessionDescription(str(answer["sdp"]), str(answer["type"]))

    async def _first_number(self, http: httpx2.AsyncClient) -> str:
        response = await http.get("/api/numbers")
        listed = response.json() if response.is_success else []
        if not listed:
            raise MediaServerError(f"{self._options.url} lists no number to call: give --number")
        return str(listed[0]["number"])

    async def _post(
        self, http: httpx2.AsyncClient, path: str, body: dict[str, object]
    ) -> dict[str, object] | None:
        response = await http.post(path, json=body)
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise MediaServerError(f"{self._options.url}{path} did not answer with a JSON object")
        if response.is_success:
            return document
        self._report.status = response.status_code
        self._report.reason = str(document.get("detail", response.reason_phrase))
        return None

    async def _connects(self) -> bool:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._connected.wait()
        except TimeoutError:
            self._report.reason = f"no connection within {CONNECT_TIMEOUT_S:.0f} s"
            return False
        return True

    async def _converse(self, mouth: Mouth) -> None:
        """Run the dialogue until either side hangs up."""
        give_up_us = now_us() + int(MAX_CALL_S * 1_000_000)
        while now_us() < give_up_us:
            if self._gone.is_set():
                await self._caller.remote_hung_up()
                return
            # Against the clock as well: a peer that stops sending when it is silent is silent, too.
            if self._audibility.fell_silent(now_us()):
                self._caller.dialogue.remote_quiet(self._audibility.last_audible_us)
            if await self._caller.poll(now_us(), mouth.say):
                return
            await asyncio.sleep(BEAT_S)

    def _sent(self, pcm: bytes) -> None:
        if self._recording is not None and self._connected.is_set():
            self._recording.sent(pcm)

    def _heard(self, frame: HeardFrame) -> None:
        if self._recording is not None:
            self._recording.heard(frame.pcm)
        self._before.append(frame.pcm)
        if self._audibility.heard(frame.at_us, audible=frame.audible):
            self._caller.dialogue.remote_active(frame.at_us)
        if self._caller.ear is not None and self._audibility.active:
            self._caller.ear.event(SpeechAudio(stream=0, media_ms=0, pcm=b"".join(self._before)))
            self._before.clear()

    async def _note_statistics(self, connection: RTCPeerConnection) -> None:
        for statistic in (await connection.getStats()).values():
            if statistic.type == "inbound-rtp":
                self._report.packets_received = statistic.packetsReceived
                self._report.packets_lost = statistic.packetsLost


def _rtvi(kind: str, data: dict[str, object]) -> str:
    """A request of the RTVI protocol."""
    return json.dumps({"label": "rtvi-ai", "type": kind, "id": kind, "data": data})
