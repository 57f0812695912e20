"""Text to speech: cached phrases at once, everything else through the tenant's chain of synthesis services."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

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

from mediaserver.phrase_cache import PHRASE_RATE_HZ, PhraseCache, PhraseKey
from mediaserver.pipeline.clauses import FirstClauseAggregator
from mediaserver.pipeline.providers import Budgets, frames_of
from mediaserver.providers.asking import Chain, Link, Piece, ProviderCare
from mediaserver.providers.breaker import BreakerKey, Stage
from mediaserver.telemetry.turns import TurnWaits

FIRST_CHUNK_BYTES = PHRASE_RATE_HZ * 2 // 10
"""The first 100 ms of a sentence go out as soon as they are there."""
MAX_CHUNK_BYTES = PHRASE_RATE_HZ * 2
"""Later chunks grow with what is already playing, up to a second: each costs a walk through the pipeline, and waiting
for no more than half of what was sent never starves a playout that the provider feeds faster than real time."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """What is to be said, and Pipecat's name for the occasion."""

    text: str
    context_id: str


@dataclass(frozen=True, slots=True)
class Synthesizer:
    """A synthesis service of the chain and the name that it has in logs and metrics."""

    name: str
    service: TTSService
    breaker: BreakerKey
    last_resort: bool

    async def speak(self, sentence: Sentence) -> AsyncGenerator[bytes, None]:
        """The sentence as PCM at `PHRASE_RATE_HZ`, in pieces as they come."""
        frames = frames_of(self.name, self.service.run_tts(sentence.text, sentence.context_id))
        async with aclosing(frames):
            async for frame in frames:
                if isinstance(frame, TTSAudioRawFrame) and frame.audio:
                    yield frame.audio


@dataclass(slots=True)
class Cutter:
    """Cuts a provider's audio anew: the first piece early, the rest coarse."""

    _pending: bytearray = field(default_factory=bytearray)
    _target: int = FIRST_CHUNK_BYTES
    _sent: int = 0

    def feed(self, pcm: bytes) -> Iterator[bytes]:
        """Take what came; the chunks that are complete."""
        self._pending += pcm
        while len(self._pending) >= self._target:
            chunk = bytes(self._pending[: self._target])
            del self._pending[: self._target]
            self._sent += len(chunk)
            self._target = max(FIRST_CHUNK_BYTES, min(MAX_CHUNK_BYTES, self._sent // 4 * 2))
            yield chunk

    def rest(self) -> bytes:
        """What is left, in whole samples."""
        return bytes(self._pending[: len(self._pending) // 2 * 2])


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
        self._speech_chain = tuple(chain)
        self._speech_links = Chain(
            Stage.TTS,
            [Link(one.name, one.speak, one.breaker, last_resort=one.last_resort) for one in chain],
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
        spoken = bytearray()
        cutter = Cutter()
        speaker: int | None = None
        apologised = False
        first_audio = self._speech_waits.asked("tts")
        async with aclosing(self._speech_links.ask(Sentence(text, context_id))) as answer:
            async for told in answer:
                if isinstance(told, Piece):
                    first_audio()
                    speaker = told.position
                    for chunk in cutter.feed(told.item):
                        spoken += chunk
                        yield self._audio(chunk, context_id)
                    continue
                logger.warning("synthesis failed: {}", told.failure)
                spoken, cutter, speaker = bytearray(), Cutter(), None
                apology = self._speech_cache.get(self.phrase_key(self._speech_apology))
                if apology is not None and not apologised:
                    apologised = True
                    yield self._audio(apology, context_id)
        if speaker is None:
            yield self._failure(context_id)
            return
        if rest := cutter.rest():
            spoken += rest
            yield self._audio(rest, context_id)
        if speaker == 0:
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
