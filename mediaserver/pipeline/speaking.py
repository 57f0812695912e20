"""Text to speech: cached phrases at once, everything else through the tenant's chain of synthesis services."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from loguru import logger
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    TTSAudioRawFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService

from mediaserver.phrase_cache import PHRASE_RATE_HZ, PhraseCache, PhraseKey
from mediaserver.pipeline.clauses import FirstClauseAggregator
from mediaserver.pipeline.providers import Budgets, ChainLink
from mediaserver.providers.asking import Chain, Link, Piece, ProviderCare
from mediaserver.providers.breaker import Stage
from mediaserver.telemetry.turns import TurnWaits


class Synthesizer(ChainLink, Protocol):
    """A synthesis provider."""

    def speak(self, text: str) -> AsyncGenerator[bytes, None]:
        """A sentence as 16-bit mono at `PHRASE_RATE_HZ`, in pieces of whole samples; raises anything.

        The first piece is early, the others grow: each costs a walk through the pipeline.
        """
        ...


class Speaking(TTSService):
    """Pipecat's TTS stage over the phrase cache and a chain of its services."""

    def __init__(
        self,
        chain: Sequence[Synthesizer],
        budgets: Budgets,
        care: ProviderCare,
        cache: PhraseCache,
        *,
        owner: str,
        phrases_of: str | None = None,
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
        self._text_aggregator = FirstClauseAggregator()
        self._speech_phrases_of = phrases_of or chain[0].name
        """Whose phrases may be played, where the first of the chain is another while that one's key is held off."""
        self._speech_keeps = self._speech_phrases_of == chain[0].name
        self._speech_links = Chain(
            Stage.TTS,
            [
                Link(one.name, one.speak, one.breaker, last_resort=one.last_resort, key=one.key_ref)
                for one in chain
            ],
            care,
            budgets.terms(Stage.TTS),
        )
        self._speech_cache = cache
        self._speech_owner = owner
        self._speech_voice = voice
        self._speech_speed = speed
        self._speech_apology = apology
        self._speech_failure = failure
        self._speech_waits = waits

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Stop speaking an answer that is withdrawn as one that is interrupted."""
        if isinstance(frame, EagerEndOfTurnCancelFrame) and direction is FrameDirection.DOWNSTREAM:
            await self._start_interruption()  # type: ignore[no-untyped-call]
            await self._handle_interruption(InterruptionFrame(), direction)
        await super().process_frame(frame, direction)

    def phrase_key(self, text: str) -> PhraseKey:
        """The cache key of a text in this call's voice."""
        return PhraseKey.of(
            self._speech_owner, self._speech_phrases_of, self._speech_voice, self._speech_speed, text
        )

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Speak one sentence."""
        cached = self._speech_cache.get(self.phrase_key(text))
        if cached is not None:
            yield self._audio(cached, context_id)
            return
        spoken = bytearray()
        speaker: int | None = None
        apologised = False
        first_audio = self._speech_waits.asked("tts")
        async with aclosing(self._speech_links.ask(text)) as answer:
            async for told in answer:
                if isinstance(told, Piece):
                    first_audio()
                    speaker = told.position
                    spoken += told.item
                    yield self._audio(told.item, context_id)
                    continue
                logger.warning("synthesis failed: {}", told.failure)
                spoken, speaker = bytearray(), None
                apology = self._speech_cache.get(self.phrase_key(self._speech_apology))
                if apology is not None and not apologised:
                    apologised = True
                    yield self._audio(apology, context_id)
        if speaker is None:
            yield self._failure(context_id)
            return
        if speaker == 0 and self._speech_keeps:
            # What another voice had to say is not what this chain sounds like.
            self._speech_cache.put(self.phrase_key(text), bytes(spoken))

    def _failure(self, context_id: str) -> Frame:
        """What is left to say when nobody could speak."""
        pcm = self._speech_cache.get(self.phrase_key(self._speech_failure))
        if pcm is not None:
            return self._audio(pcm, context_id)
        return ErrorFrame("no synthesis provider could speak, and no phrase is cached")

    def _audio(self, pcm: bytes, context_id: str) -> TTSAudioRawFrame:
        return TTSAudioRawFrame(pcm, PHRASE_RATE_HZ, 1, context_id=context_id)
