"""The three stages of a call over simulated providers, without a pipeline around them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from pipecat.frames.frames import ErrorFrame, TranscriptionFrame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.processors.aggregators.llm_context import LLMContext

from mediaserver.phrase_cache import PhraseCache
from mediaserver.pipeline.hearing import Hearing
from mediaserver.pipeline.providers import Budgets
from mediaserver.pipeline.replying import Replier, Replying
from mediaserver.pipeline.services import (
    Embedded,
    ProviderAccess,
    model_repliers,
    synthesizers,
    transcribers,
)
from mediaserver.pipeline.speaking import Speaking
from mediaserver.providers.asking import ProviderCare
from mediaserver.providers.breaker import Stage
from mediaserver.providers.connections import ProviderClient
from mediaserver.telemetry.turns import TurnClock, TurnWaits
from tenancy.providers import ResolvedProvider
from vault.resolver import Origin

CANARY = "sk-canary-8d1f00c5"
BUDGETS = Budgets(
    stt_final_ms=1_000,
    llm_first_token_ms=1_000,
    tts_first_audio_ms=1_000,
    stream_stall_ms=1_000,
    stream_total_ms=4_000,
    stt_hedge_ms=0,
    llm_hedge_ms=0,
    tts_hedge_ms=0,
)
"""For a provider that is silent: it costs the test so long, and nobody else may be held up for as long."""
PATIENT = Budgets(stt_hedge_ms=0, llm_hedge_ms=0, tts_hedge_ms=0)
"""For who answers: seconds, which a machine that pauses does not use up."""
APOLOGY = b"\x01\x00" * 480
FAILURE = b"\x02\x00" * 480
SENTENCE = "We are open from nine to five."
WAV = (
    b"RIFF\x64\x06\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80\x3e\x00\x00\x00\x7d\x00\x00"
    b"\x02\x00\x10\x00data\x40\x06\x00\x00" + bytes(1_600)
)


def provider(url: str, model: str, key: str = CANARY) -> ResolvedProvider:
    """A tenant's provider at ``url``."""
    return ResolvedProvider("openai", Origin.TENANT, "named by the test", url, model, key)


def waits() -> TurnWaits:
    """Of nobody's turn."""
    return TurnWaits(TurnClock(), lambda: 0)


class CapturedReplying(Replying):
    """Keeps what it would push into the pipeline."""

    def __init__(self, chain: Sequence[Replier], budgets: Budgets, care: ProviderCare) -> None:
        super().__init__(
            chain,
            budgets,
            care,
            apology="One moment.",
            failure="Sorry.",
            waits=waits(),
            is_wanted=lambda _: True,
        )
        self.said: list[str] = []

    async def _push_llm_text(self, text: str) -> None:
        self.said.append(text)


class CallStages:
    """What one call asks its providers."""

    def __init__(
        self,
        chain: Sequence[ResolvedProvider],
        http: ProviderClient,
        care: ProviderCare,
        cache: PhraseCache | None = None,
        budgets: Budgets = BUDGETS,
    ) -> None:
        access = ProviderAccess(Embedded("http://127.0.0.1:9/v1"), http, care)
        self.hearing = Hearing(
            transcribers(chain, access), budgets, care, apology="One moment.", waits=waits()
        )
        self.replying = CapturedReplying(model_repliers(chain, access, "Be brief."), budgets, care)
        self.speaking = Speaking(
            synthesizers(chain, access, "alloy", 1.0),
            budgets,
            care,
            cache or PhraseCache(Path("/nonexistent")),
            owner="test",
            waits=waits(),
            voice="alloy",
            speed=1.0,
            apology="One moment.",
            failure="Sorry.",
        )
        phrases = self.speaking._speech_cache
        phrases.put(self.speaking.phrase_key("One moment."), APOLOGY)
        phrases.put(self.speaking.phrase_key("Sorry."), FAILURE)

    async def hear(self) -> tuple[str, int]:
        """What an utterance is transcribed to, and how many apologies it cost."""
        apologies, heard = 0, []
        async with aclosing(self.hearing.run_stt(WAV)) as frames:
            async for frame in frames:
                apologies += isinstance(frame, TTSSpeakFrame)
                if isinstance(frame, TranscriptionFrame):
                    heard.append(frame.text)
        (text,) = heard
        return text, apologies

    async def reply(self) -> tuple[str, int]:
        """The answer to a question, and how many apologies it cost."""
        self.replying.said.clear()
        context = LLMContext([{"role": "user", "content": "When are you open?"}])
        await self.replying._reply_to(context)
        apologies = self.replying.said.count("One moment. ")
        return "".join(one for one in self.replying.said if one != "One moment. "), apologies

    async def speak(self, text: str = SENTENCE) -> tuple[bytes, int]:
        """The audio of a sentence, and how many apologies it cost."""
        chunks = []
        async with aclosing(self.speaking.run_tts(text, "context")) as frames:
            async for frame in frames:
                assert not isinstance(frame, ErrorFrame)
                if isinstance(frame, TTSAudioRawFrame):
                    chunks.append(frame.audio)
        return b"".join(one for one in chunks if one != APOLOGY), chunks.count(APOLOGY)

    async def do(self, stage: Stage) -> tuple[str | bytes, int]:
        """The stage's work."""
        match stage:
            case Stage.STT:
                return await self.hear()
            case Stage.LLM:
                return await self.reply()
            case Stage.TTS:
                return await self.speak()
