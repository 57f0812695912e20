"""The transport of a call: the media link's events become Pipecat frames, and speech becomes playout."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol

from loguru import logger
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    InputDTMFFrame,
    StartFrame,
)
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_transport import BaseTransport, TransportParams

from mediaserver._native import (
    Activity,
    BackgroundEnded,
    DtmfDigit,
    Flushed,
    MarkReached,
    MediaTimeout,
    Played,
    PlayoutStarted,
    RecordingFailed,
    SpeechAudio,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
    StreamFailed,
)
from mediaserver.errors import LinkClosed
from mediaserver.media_link import MediaEvent, MediaLink
from mediaserver.pipeline.output import EngineOutput
from mediaserver.pipeline.turn_shell import TurnShell
from mediaserver.telemetry.turns import TurnClock, TurnParts
from mediaserver.turns import events as turn

KEYPAD = frozenset(entry.value for entry in KeypadEntry)
CALLER_RATE_HZ = 16_000
"""What the engine hands over, and what VAD and transcription want."""


BYTES_PER_MS = CALLER_RATE_HZ * 2 // 1000
DETECTOR_TAIL_MS = 220
"""The detector holds on to speech for two or three windows; what it calls speech past that was there, and quiet."""
MAX_UTTERANCE_MS = 30_000
"""Speech that goes on for longer (a television, a caller who tells everything) is transcribed in pieces of this length."""


@dataclass(slots=True)
class UtteranceLimit:
    """Cuts speech without a pause, so that no buffer grows with it."""

    from_ms: int = 0

    def started(self, media_ms: int) -> None:
        """Speech begins."""
        self.from_ms = media_ms

    def exceeded(self, media_ms: int) -> bool:
        """Whether the speech up to here is a piece; the next one begins where it ends."""
        if media_ms - self.from_ms < MAX_UTTERANCE_MS:
            return False
        self.from_ms = media_ms
        return True


@dataclass(frozen=True, slots=True)
class TurnMeasured:
    """One answered turn, in wire time of this server."""

    latency_ms: int
    """Arrival of the last packet with caller speech to departure of the first packet of the answer."""
    parts: TurnParts = field(default_factory=TurnParts)


class TransportObserver(Protocol):
    """Told what the transport sees of a conversation."""

    def turn_measured(self, turn: TurnMeasured) -> None:
        """The wire latency of an answered turn."""
        ...

    def media_ended(self, why: str) -> None:
        """The caller's media has stopped."""
        ...

    def receptionist_speaking(self, *, active: bool) -> None:
        """The receptionist became audible or fell silent."""
        ...

    def sentence_begins(self, text: str) -> None:
        """The first packet of a sentence goes out."""
        ...

    def sentence_queued(self, text: str) -> None:
        """A sentence's audio is about to be queued."""
        ...

    def reply_queued(self) -> None:
        """The present reply, or phrase, has no further sentence."""
        ...


class EngineInput(BaseInputTransport):
    """Pipecat input transport over a `MediaLink`: keys alone.

    What the caller says goes to the turn-taking and from there to transcription; neither its audio nor its boundaries walk
    through the pipeline.
    """

    async def start(self, frame: StartFrame) -> None:
        """Ready at once: the media is already running."""
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def digit(self, event: DtmfDigit) -> None:
        """A key that the caller pressed; A to D are on no telephone and in no frame of Pipecat's."""
        if event.digit in KEYPAD:
            await self.push_frame(InputDTMFFrame(button=KeypadEntry(event.digit)))


class CallTransport(BaseTransport):
    """Both sides of a call's media and the one task that reads the link."""

    def __init__(
        self,
        link: MediaLink,
        *,
        turns: TurnShell,
        preroll_ms: int,
        observer: TransportObserver,
    ) -> None:
        super().__init__()
        self._link = link
        self._turns = turns
        self._preroll_ms = preroll_ms
        self._observer = observer
        self.turn_clock = TurnClock()
        self._last_speech_at_us = 0
        self._answer_due_from_us: int | None = None
        """When the caller's last words came that the next speech answers."""
        self._paused_from_ms: int | None = None
        """Within a pause: where it began, in media time."""
        self._utterance = UtteranceLimit()
        self._reader: asyncio.Task[None] | None = None
        # audio_in_enabled stays off: it would only start Pipecat's own audio queue and its 0.5 s wake-ups.
        self._engine_input = EngineInput(
            TransportParams(audio_in_enabled=False, audio_in_sample_rate=CALLER_RATE_HZ)
        )
        self._engine_output = EngineOutput(link, TransportParams(audio_out_enabled=True), self)

    def input(self) -> EngineInput:
        """The processor at the head of the pipeline."""
        return self._engine_input

    def output(self) -> EngineOutput:
        """The processor that speaks."""
        return self._engine_output

    def start_reading(self) -> None:
        """Begin to turn link events into frames; call when the pipeline has started."""
        self._reader = asyncio.get_running_loop().create_task(self._read(), name="call-media")
        self._reader.add_done_callback(self._reading_ended)

    async def stop_reading(self) -> None:
        """End the reader and wait for it."""
        if self._reader is None:
            return
        self._reader.cancel()
        await asyncio.wait([self._reader])

    def _reading_ended(self, reader: asyncio.Task[None]) -> None:
        """A reader that failed leaves a call deaf and dumb: end it."""
        if not reader.cancelled() and (error := reader.exception()) is not None:
            logger.opt(exception=error).error("the media reader failed")
            self._engine_output.link_lost()
            self._observer.media_ended("the media reader failed")

    def speech_went_out(self, at_us: int) -> None:
        """Measure the turn that this speech answers."""
        if self._answer_due_from_us is not None:
            latency_ms = (at_us - self._answer_due_from_us) // 1000
            self._observer.turn_measured(TurnMeasured(latency_ms, self.turn_clock.answered(at_us)))
            self._answer_due_from_us = None

    def answer_due(self) -> None:
        """A turn of the caller is over: what is heard next answers it."""
        self._answer_due_from_us = self._last_speech_at_us
        self.turn_clock.turn_ended(time.monotonic_ns() // 1000)

    def turn_began(self) -> None:
        """The caller has the floor: what was due is not heard any more."""
        self._answer_due_from_us = None

    def speaking(self, *, active: bool) -> None:
        """Pass on that the receptionist became audible or fell silent."""
        self._turns.tell(turn.PlayoutStarted() if active else turn.PlayoutEnded())
        self._observer.receptionist_speaking(active=active)

    def sentence_begins(self, text: str) -> None:
        """Pass on which sentence begins."""
        self._observer.sentence_begins(text)

    def sentence_queued(self, text: str) -> None:
        """Pass on which sentence will be heard."""
        self._observer.sentence_queued(text)

    def reply_queued(self) -> None:
        """Pass on that a reply is whole."""
        self._observer.reply_queued()

    async def _read(self) -> None:
        try:
            while True:
                await self._dispatch(await self._link.next_event())
        except LinkClosed:
            self._engine_output.link_lost()

    async def _dispatch(self, event: MediaEvent) -> None:
        match event:
            case SpeechStarted() | SpeechAudio() | SpeechPaused() | SpeechResumed() | SpeechStopped():
                self._caller_speech(event)
            case PlayoutStarted() | Played() | Flushed():
                await self._engine_output.media_event(event)
            case DtmfDigit():
                self._turns.tell(turn.KeyPressed())
                await self._engine_input.digit(event)
            case MediaTimeout() | StreamFailed():
                self._observer.media_ended(_why_lost(event))
            case RecordingFailed():
                logger.warning("recording failed: {}", event.reason)
            case Activity() | MarkReached() | BackgroundEnded():
                pass

    def _caller_speech(
        self, event: SpeechStarted | SpeechAudio | SpeechPaused | SpeechResumed | SpeechStopped
    ) -> None:
        """Tell the turn-taking; the audio comes before what it is needed for."""
        match event:
            case SpeechStarted():
                self.turn_clock.speech_began()
                self._paused_from_ms = None
                self._utterance.started(event.media_ms)
                self._turns.begin_audio(event.pcm)
                for_ms = max(0, len(event.pcm) // BYTES_PER_MS - self._preroll_ms)
                left_ms = self._engine_output.speech_left_ms
                self._turns.tell(turn.SpeechStarted(for_ms, left_ms), event.at_us)
            case SpeechAudio():
                self._turns.add_audio(event.pcm)
                if self._utterance.exceeded(event.media_ms):
                    self._turns.tell(turn.SpeechCut())
                    self._turns.begin_audio(b"")
            case SpeechPaused():
                self._paused_from_ms = event.media_ms
                self._last_speech_at_us = event.last_speech_at_us
                self.turn_clock.speech_ended(event.last_speech_at_us)
                self._turns.add_audio(event.pcm)
                self._turns.tell(turn.SpeechPaused(_silent_ms(event)), event.at_us)
            case SpeechResumed():
                self._paused_from_ms = None
                self._turns.tell(turn.SpeechResumed(self._engine_output.speech_left_ms), event.at_us)
            case SpeechStopped():
                paused_from_ms, self._paused_from_ms = self._paused_from_ms, None
                said_more = paused_from_ms is not None and event.media_ms > paused_from_ms + DETECTOR_TAIL_MS
                if paused_from_ms is None or said_more:
                    self._last_speech_at_us = event.last_speech_at_us
                    self.turn_clock.speech_ended(event.last_speech_at_us)
                self._turns.add_audio(event.pcm)
                self._turns.tell(turn.SpeechStopped(_silent_ms(event), said_more=said_more), event.at_us)


def _silent_ms(event: SpeechPaused | SpeechStopped) -> int:
    """How long nothing had been heard when it became certain."""
    return (event.at_us - event.last_speech_at_us) // 1000


def _why_lost(event: MediaTimeout | StreamFailed) -> str:
    """Why there are no media any more, for the call's record."""
    if isinstance(event, StreamFailed):
        return event.reason
    return f"no media from the caller for {event.silent_ms} ms"
