"""The speaking side of the transport: whole chunks into the engine's playout, frames in step with what was heard.

`EngineOutput` puts a sender of our own where Pipecat's `BaseOutputTransport.MediaSender` paces 20 ms chunks
(`_media_senders` is a private hook of Pipecat 1.14; `tests/mediaserver/test_pipecat_seams.py` holds it). Audio is written
whole; frames between chunks wait until the chunks before them have been played; an interruption asks the engine how
much was heard and tells the context exactly that. An answer to a turn that may not be over waits at the gate before all that.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol, TypeGuard

from loguru import logger
from pipecat.frames.frames import (
    AggregatedTextFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    OutputAudioRawFrame,
    OutputTransportReadyFrame,
    StartFrame,
    SystemFrame,
    TextFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams

from mediaserver._native import Flushed, MediaError, Played, PlayoutStarted
from mediaserver.media_link import MediaLink
from mediaserver.pipeline.heard import HeardLedger
from mediaserver.pipeline.speech_gate import SpeechGate

FLUSH_ANSWER_TIMEOUT_S = 0.25
"""The engine answers a flush within one 20 ms tick; past this it is taken to be gone."""
DRAIN_GRACE_S = 2.0
"""Added to the queued speech when the call waits for its last words."""


MORE_MS = 10_000
"""Stands for speech that is still being synthesised."""


@dataclass
class HeardTextFrame(SystemFrame, TextFrame):
    """The part of a sentence that was heard before an interruption.

    A system frame, so that it reaches the assistant's context before the `InterruptionFrame` that follows it.
    """


class SpeechObserver(Protocol):
    """Told what goes out on the wire, for measurement."""

    def speech_went_out(self, at_us: int) -> None:
        """The first packet of an answer was sent."""
        ...

    def speaking(self, *, active: bool) -> None:
        """Speech became audible on the wire or ended."""
        ...

    def sentence_begins(self, text: str) -> None:
        """What was queued before this sentence has been heard."""
        ...

    def sentence_queued(self, text: str) -> None:
        """A sentence's audio is about to be queued."""
        ...

    def reply_queued(self) -> None:
        """The present reply, or phrase, has no further sentence."""
        ...


class EngineOutput(BaseOutputTransport):
    """Pipecat output transport over a `MediaLink`."""

    def __init__(self, link: MediaLink, params: TransportParams, observer: SpeechObserver) -> None:
        super().__init__(params)
        self._sender = PlayoutSender(self, link, observer)
        self._speech_observer = observer
        self._speech_gate = SpeechGate()

    async def start(self, frame: StartFrame) -> None:
        """Register the sender where Pipecat looks for one, and report ready."""
        await super().start(frame)
        self._media_senders[None] = self._sender  # type: ignore[assignment] # the documented private hook
        await self.push_frame(OutputTransportReadyFrame(), FrameDirection.UPSTREAM)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Let speech through the gate; on an interruption, settle what was heard before anyone downstream hears of it."""
        if isinstance(frame, InterruptionFrame):
            heard = await self._sender.interrupt()
            if heard:
                await self.push_frame(HeardTextFrame(heard))
        if isinstance(frame, SystemFrame) or direction is FrameDirection.UPSTREAM:
            await super().process_frame(frame, direction)
            return
        for passing in self._speech_gate.admit(frame):
            await super().process_frame(passing, direction)

    def hold_speech(self) -> None:
        """Keep the answer that comes: the turn that it answers may not be over."""
        self._speech_gate.hold()

    async def release_speech(self) -> None:
        """The turn is over: play what was kept, and what follows."""
        while (frame := self._speech_gate.next_released()) is not None:
            await super().process_frame(frame, FrameDirection.DOWNSTREAM)

    async def drop_speech(self) -> None:
        """The answer is void: nothing of it is heard, whatever is still on its way."""
        for kept in self._speech_gate.drop():
            await super().process_frame(kept, FrameDirection.DOWNSTREAM)

    def open_gate(self) -> None:
        """What comes from here on is meant to be heard; what is kept is void."""
        self._speech_gate.open()

    @property
    def speech_left_ms(self) -> int:
        """How much is left to say, as far as it is known."""
        return self._sender.left_ms()

    async def media_event(self, event: PlayoutStarted | Played | Flushed) -> None:
        """A playout event of the link, from the transport's reader."""
        if isinstance(event, PlayoutStarted):
            self._speech_observer.speech_went_out(event.at_us)
        await self._sender.media_event(event)

    def hold(self) -> None:
        """Silence the playout while it is decided whether the caller interrupts."""
        self._sender.hold()

    def release_hold(self) -> None:
        """Go on if nothing was interrupted."""
        self._sender.release_hold()

    def link_lost(self) -> None:
        """The media has ended: nobody will hear the rest, so nobody waits for it."""
        self._sender.link_lost()


def _announces_speech(frame: Frame) -> TypeGuard[AggregatedTextFrame]:
    """Whether the frame precedes a sentence's audio; what follows it repeats the text as a `TTSTextFrame`."""
    return (
        isinstance(frame, AggregatedTextFrame)
        and not isinstance(frame, TTSTextFrame)
        and frame.will_be_spoken
    )


class PlayoutSender:
    """Writes speech to the link and keeps the pipeline's frames in step with its playout."""

    def __init__(self, transport: EngineOutput, link: MediaLink, observer: SpeechObserver) -> None:
        self._transport = transport
        self._link = link
        self._observer = observer
        self._ledger: HeardLedger[Frame] = HeardLedger()
        self._bot_speaking = False
        self._held = False
        self._flush_answer: asyncio.Future[Flushed] | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        self._queued_ms = 0
        self._in_reply = False
        """Whether a language model's reply is being spoken, rather than a phrase."""
        self._more_comes = False
        """Whether an utterance is being synthesised."""
        self._moved_at_us = 0
        """When the playout last reported."""

    async def handle_audio_frame(self, frame: OutputAudioRawFrame) -> None:
        """Write a chunk whole."""
        if not frame.audio:
            return
        mark = self._link.next_mark()
        try:
            self._link.play(frame.audio, frame.sample_rate, mark)
        except MediaError as error:
            # Two minutes are queued, or the engine is gone: what cannot be heard must not be waited for.
            logger.warning("speech dropped: {}", error)
            return
        duration_ms = len(frame.audio) * 1000 // (2 * frame.sample_rate)
        self._ledger.chunk(mark, duration_ms)
        self._queued_ms += duration_ms
        self._drained.clear()

    async def handle_sync_frame(self, frame: Frame) -> None:
        """Pass a frame on when everything before it has been heard."""
        if isinstance(frame, TTSTextFrame):
            self._ledger.end_sentence()
        elif isinstance(frame, TTSStartedFrame):
            self._more_comes = True
        elif isinstance(frame, AggregatedTextFrame) and frame.will_be_spoken:
            self._ledger.begin_sentence(frame.text)
            self._observer.sentence_queued(frame.text)
        elif isinstance(frame, LLMFullResponseStartFrame):
            self._in_reply = True
        elif isinstance(frame, LLMFullResponseEndFrame) or (
            isinstance(frame, TTSStoppedFrame) and not self._in_reply
        ):
            self._in_reply = False
            self._observer.reply_queued()
        await self._release(self._ledger.frame(frame))

    async def handle_timed_frame(self, frame: Frame) -> None:
        """Presentation times belong to Pipecat's own clock; here the order is the truth."""
        await self.handle_sync_frame(frame)

    async def handle_tts_stopped(self, frame: TTSStoppedFrame) -> None:
        """The end of an utterance, in order."""
        self._more_comes = False
        await self.handle_sync_frame(frame)

    async def handle_interruptions(self, frame: InterruptionFrame) -> None:
        """Nothing left to do: `EngineOutput.process_frame` settled it before passing the frame on."""

    def hold(self) -> None:
        """The caller began to speak: silence first, also for what comes. An interruption or `release_hold` follows."""
        self._held = True
        self._link.pause()

    def left_ms(self) -> int:
        """What is queued and not played yet; a long time while more is being synthesised."""
        since_ms = (time.monotonic_ns() // 1000 - self._moved_at_us) // 1000
        return max(0, self._ledger.pending_ms - since_ms) + (MORE_MS if self._more_comes else 0)

    def release_hold(self) -> None:
        """The caller's speech interrupted nothing: go on where the playout was held."""
        if self._held:
            self._held = False
            self._link.resume()

    async def interrupt(self) -> str:
        """Flush the playout; returns the words heard of the sentence that was cut off."""
        self._more_comes = False
        if not self._ledger.pending_chunks:
            self.release_hold()
            await self._keep(self._ledger.interrupted(None, 0).kept)
            await self._set_bot_speaking(False)
            return ""
        report = await self._flush()
        self.release_hold()
        outcome = self._ledger.interrupted(*((report.mark, report.heard_ms) if report else (None, 0)))
        self._queued_ms = 0
        self._drained.set()
        await self._keep(outcome.kept)
        await self._set_bot_speaking(False)
        return outcome.heard

    async def _flush(self) -> Flushed | None:
        self._flush_answer = asyncio.get_running_loop().create_future()
        self._link.flush()
        try:
            return await asyncio.wait_for(self._flush_answer, FLUSH_ANSWER_TIMEOUT_S)
        except TimeoutError:
            return None
        finally:
            self._flush_answer = None

    async def _keep(self, frames: tuple[Frame, ...]) -> None:
        await self._release(tuple(frame for frame in frames if not frame.interruptible))

    async def media_event(self, event: PlayoutStarted | Played | Flushed) -> None:
        """Follow the playout."""
        self._moved_at_us = event.at_us
        match event:
            case PlayoutStarted():
                await self._set_bot_speaking(True)
            case Played():
                released = self._ledger.played(event.mark)
                if not self._ledger.pending_chunks:
                    self._queued_ms = 0
                    self._drained.set()
                await self._release(released)
            case Flushed():
                if self._flush_answer is not None and not self._flush_answer.done():
                    self._flush_answer.set_result(event)

    async def _release(self, frames: tuple[Frame, ...]) -> None:
        for frame in frames:
            if _announces_speech(frame):
                self._observer.sentence_begins(frame.text)
            await self._transport.push_frame(frame)
            if isinstance(frame, TTSStoppedFrame) and not self._ledger.pending_chunks:
                await self._set_bot_speaking(False)

    async def _set_bot_speaking(self, speaking: bool) -> None:
        if speaking == self._bot_speaking:
            return
        self._bot_speaking = speaking
        self._observer.speaking(active=speaking)
        await self._transport.broadcast_frame(
            BotStartedSpeakingFrame if speaking else BotStoppedSpeakingFrame
        )

    async def stop(self, frame: EndFrame) -> None:  # noqa: ARG002 - Pipecat's signature
        """Wait for the last words, for no longer than they take to say."""
        try:
            await asyncio.wait_for(self._drained.wait(), self._queued_ms / 1000 + DRAIN_GRACE_S)
        except TimeoutError:
            return

    async def cancel(self, frame: CancelFrame) -> None:  # noqa: ARG002 - Pipecat's signature
        """Drop what is queued."""
        self._link.flush()
        self._drained.set()

    async def cleanup(self) -> None:
        """Nothing to release: the link belongs to the call."""

    def link_lost(self) -> None:
        """Nothing more can be heard."""
        self._drained.set()
        if self._flush_answer is not None and not self._flush_answer.done():
            self._flush_answer.cancel()
