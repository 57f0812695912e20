"""Speech to text: one utterance at a time, through the tenant's chain of transcription services."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from loguru import logger
from pipecat.frames.frames import Frame, TranscriptionFrame, TTSSpeakFrame
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.utils.time import time_now_iso8601

from mediaserver.errors import ProviderFailed
from mediaserver.pipeline.providers import Budgets, frames_within
from mediaserver.telemetry.turns import TurnWaits


@dataclass(frozen=True, slots=True)
class Transcriber:
    """A transcription service of the chain and the name that it has in logs and metrics."""

    name: str
    service: SegmentedSTTService


class Hearing(SegmentedSTTService):
    """Pipecat's segmented STT stage over a chain of its services.

    Every utterance is answered by exactly one `TranscriptionFrame`, empty when nothing was said or nobody could
    transcribe it, so that the end of the turn never waits for a transcript that will not come.
    """

    def __init__(
        self, chain: Sequence[Transcriber], budgets: Budgets, apology: str, waits: TurnWaits
    ) -> None:
        super().__init__(
            ttfs_p99_latency=budgets.stt_final_ms / 1000,
            trailing_silence_secs=0.2,
            settings=STTSettings(model=chain[0].name, language=None),
        )
        self._hearing_chain = tuple(chain)
        self._hearing_budgets = budgets
        self._hearing_apology = apology
        self._hearing_waits = waits

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override] # as Pipecat's own do
        """Give the chain's services the pipeline's clock and rates."""
        await super().setup(setup)
        for link in self._hearing_chain:
            await link.service.setup(setup)

    async def cleanup(self) -> None:
        """Release the chain's services."""
        await super().cleanup()  # type: ignore[no-untyped-call]
        for link in self._hearing_chain:
            await link.service.cleanup()  # type: ignore[no-untyped-call]

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Transcribe one utterance (a WAV file) with the first service that can."""
        heard, transcribed = "", self._hearing_waits.asked("stt")
        for position, link in enumerate(self._hearing_chain):
            try:
                heard = await self._transcribe_with(link, audio)
                break
            except ProviderFailed as failure:
                logger.warning("transcription failed, trying the next provider: {}", failure)
                if position == 0:
                    yield TTSSpeakFrame(self._hearing_apology, append_to_context=False)
        transcribed()
        yield TranscriptionFrame(heard, "caller", time_now_iso8601())

    async def _transcribe_with(self, link: Transcriber, audio: bytes) -> str:
        budgets = self._hearing_budgets
        texts = [
            frame.text
            async for frame in frames_within(
                link.name, link.service.run_stt(audio), budgets.stt_final_ms, budgets.stream_stall_ms
            )
            if isinstance(frame, TranscriptionFrame)
        ]
        return " ".join(texts).strip()
