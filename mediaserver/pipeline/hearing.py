"""Speech to text: one utterance at a time, through the tenant's chain of transcription services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from loguru import logger
from pipecat.frames.frames import Frame, TranscriptionFrame, TTSSpeakFrame
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.utils.time import time_now_iso8601

from mediaserver.pipeline.providers import Budgets, ChainLink
from mediaserver.providers.asking import Chain, Link, Piece, ProviderCare
from mediaserver.providers.breaker import Stage
from mediaserver.providers.failures import key_outcome
from mediaserver.providers.utterance import Utterance
from mediaserver.telemetry.turns import TurnWaits


class Transcriber(ChainLink, Protocol):
    """A transcription provider."""

    def open(self) -> None:
        """The call begins. Returns at once."""
        ...

    def hear(self, number: int, pcm: bytes, said_bytes: int) -> None:
        """The next audio of utterance ``number``, as it is spoken; ``said_bytes`` of it are said with that. Returns at once."""
        ...

    def transcribe(self, utterance: Utterance) -> AsyncGenerator[str, None]:
        """The words of an utterance, in one piece; empty when there are none. Raises anything."""
        ...

    async def close(self) -> None:
        """The call is over."""
        ...


class Hearing(SegmentedSTTService):
    """Pipecat's segmented STT stage over a chain of its services.

    Every utterance is answered by exactly one `TranscriptionFrame`, empty when nothing was said or nobody could
    transcribe it, so that the end of the turn never waits for a transcript that will not come.
    """

    def __init__(
        self,
        chain: Sequence[Transcriber],
        budgets: Budgets,
        care: ProviderCare,
        apology: str,
        *,
        waits: TurnWaits,
    ) -> None:
        super().__init__(
            ttfs_p99_latency=budgets.stt_final_ms / 1000,
            trailing_silence_secs=0.2,
            settings=STTSettings(model=chain[0].name, language=None),
        )
        self._hearing_apology = apology
        self._hearing_waits = waits
        self._hearing_chain = tuple(chain)
        self._hearing_care = care
        self._hearing_links = Chain(
            Stage.STT,
            [
                Link(one.name, one.transcribe, one.breaker, last_resort=one.last_resort, key=one.key_ref)
                for one in chain
            ],
            care,
            budgets.terms(Stage.STT),
        )

    def open(self) -> None:
        """The call begins: let who listens connect."""
        self._hearing_chain[0].open()

    async def close(self) -> None:
        """The call is over."""
        await asyncio.gather(*(one.close() for one in self._hearing_chain))

    def hear(self, number: int, pcm: bytes, said_bytes: int) -> None:
        """The next audio of utterance ``number``, for the provider that will be asked first."""
        first = self._hearing_chain[0]
        care, now_ms = self._hearing_care, _now_ms()
        if care.keys.held_off(Stage.STT, first.key_ref, now_ms):
            return
        if first.breaker is None or care.breakers.of(first.breaker).passes(now_ms):
            first.hear(number, pcm, said_bytes)

    def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Transcribe a recording (a WAV file): Pipecat's way in, for audio that walked the pipeline."""
        return self.words_of(Utterance.of_wav(audio))

    async def words_of(self, utterance: Utterance) -> AsyncGenerator[Frame | None, None]:
        """Transcribe one utterance with the first service that can."""
        heard, transcribed = "", self._hearing_waits.asked("stt")
        apologised = False
        async with aclosing(self._hearing_links.ask(utterance)) as answer:
            async for told in answer:
                if isinstance(told, Piece):
                    heard = told.item
                    continue
                logger.warning("transcription failed: {}", told.failure)
                # A key is refused at once: there is no wait to apologise for, and the caller may not even have finished.
                if not apologised and not (told.more and key_outcome(told.failure.cause) is not None):
                    apologised = True
                    yield TTSSpeakFrame(self._hearing_apology, append_to_context=False)
        transcribed()
        yield TranscriptionFrame(heard, "caller", time_now_iso8601())


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)
