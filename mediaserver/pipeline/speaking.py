"""Text to speech: cached phrases at once, everything else through the tenant's chain of synthesis services."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from loguru import logger
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    TTSAudioRawFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService

from mediaserver.errors import ProviderFailed
from mediaserver.phrase_cache import PHRASE_RATE_HZ, PhraseCache, PhraseKey
from mediaserver.pipeline.providers import Budgets, frames_within
from mediaserver.telemetry.turns import TurnWaits

FIRST_CHUNK_BYTES = PHRASE_RATE_HZ * 2 // 10
"""The first 100 ms of a sentence go out as soon as they are there."""
MAX_CHUNK_BYTES = PHRASE_RATE_HZ * 2
"""Later chunks grow with what is already playing, up to a second: each costs a walk through the pipeline, and waiting
for no more than half of what was sent never starves a playout that the provider feeds faster than real time."""


@dataclass(frozen=True, slots=True)
class Synthesizer:
    """A synthesis service of the chain and the name that it has in logs and metrics."""

    name: str
    service: TTSService


class Speaking(TTSService):
    """Pipecat's TTS stage over the phrase cache and a chain of its services."""

    def __init__(
        self,
        chain: Sequence[Synthesizer],
        budgets: Budgets,
        cache: PhraseCache,
        *,
        owner: str,
        voice: str,
        speed: float,
        apology: str,
        failure: str,
        waits: TurnWaits,
    ) -> None:
        super().__init__(
            sample_rate=PHRASE_RATE_HZ,
            push_start_frame=True,
            push_stop_frames=True,
            settings=TTSSettings(model=chain[0].name, voice=voice, language=None),
        )
        self._speech_chain = tuple(chain)
        self._speech_budgets = budgets
        self._speech_cache = cache
        self._speech_owner = owner
        self._speech_voice = voice
        self._speech_speed = speed
        self._speech_apology = apology
        self._speech_failure = failure
        self._speech_waits = waits

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override] # as Pipecat's own do
        """Give the chain's services the pipeline's clock and rates."""
        await super().setup(setup)
        for link in self._speech_chain:
            await link.service.setup(setup)

    async def cleanup(self) -> None:
        """Release the chain's services."""
        await super().cleanup()  # type: ignore[no-untyped-call]
        for link in self._speech_chain:
            await link.service.cleanup()  # type: ignore[no-untyped-call]

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Stop speaking an answer that is withdrawn as one that is interrupted."""
        if isinstance(frame, EagerEndOfTurnCancelFrame) and direction is FrameDirection.DOWNSTREAM:
            await self._start_interruption()  # type: ignore[no-untyped-call]
            await self._handle_interruption(InterruptionFrame(), direction)
        await super().process_frame(frame, direction)

    def phrase_key(self, text: str) -> PhraseKey:
        """The cache key of a text in this call's voice."""
        return PhraseKey.of(
            self._speech_owner, self._speech_chain[0].name, self._speech_voice, self._speech_speed, text
        )

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Speak one sentence."""
        cached = self._speech_cache.get(self.phrase_key(text))
        if cached is not None:
            yield self._audio(cached, context_id)
            return
        for position, link in enumerate(self._speech_chain):
            spoken, first_audio = bytearray(), self._speech_waits.asked("tts")
            try:
                async for chunk in self._chunks(link, text, context_id):
                    first_audio()
                    spoken += chunk
                    yield self._audio(chunk, context_id)
                if not spoken:
                    raise ProviderFailed(link.name, "no audio")
                if position == 0:
                    # What another voice had to say is not what this chain sounds like.
                    self._speech_cache.put(self.phrase_key(text), bytes(spoken))
                return
            except ProviderFailed as failure:
                logger.warning("synthesis failed, trying the next provider: {}", failure)
            apology = self._speech_cache.get(self.phrase_key(self._speech_apology))
            if position == 0 and apology is not None:
                yield self._audio(apology, context_id)
        failure_pcm = self._speech_cache.get(self.phrase_key(self._speech_failure))
        if failure_pcm is not None:
            yield self._audio(failure_pcm, context_id)
        else:
            yield ErrorFrame("no synthesis provider could speak, and no phrase is cached")

    async def _chunks(self, link: Synthesizer, text: str, context_id: str) -> AsyncGenerator[bytes, None]:
        """A service's audio, re-cut: the first piece early, the rest coarse."""
        pending = bytearray()
        target = FIRST_CHUNK_BYTES
        sent = 0
        budgets = self._speech_budgets
        async for frame in frames_within(
            link.name,
            link.service.run_tts(text, context_id),
            budgets.tts_first_audio_ms,
            budgets.stream_stall_ms,
        ):
            if isinstance(frame, TTSAudioRawFrame):
                pending += frame.audio
            while len(pending) >= target:
                yield bytes(pending[:target])
                del pending[:target]
                sent += target
                target = max(FIRST_CHUNK_BYTES, min(MAX_CHUNK_BYTES, sent // 4 * 2))
        if len(pending) >= 2:
            yield bytes(pending[: len(pending) // 2 * 2])

    def _audio(self, pcm: bytes, context_id: str) -> TTSAudioRawFrame:
        return TTSAudioRawFrame(pcm, PHRASE_RATE_HZ, 1, context_id=context_id)
