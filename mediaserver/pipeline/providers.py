"""What a call's provider chains have in common: budgets and limits.

One processor of the pipeline owns a stage and asks one provider after the other for the same piece of work
(`mediaserver.providers`), so that a failure costs a retry and not the caller's sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mediaserver.providers.breaker import BreakerKey, Stage
from mediaserver.providers.hedge import Terms
from vault.resolver import KeyRef

MAX_TRANSCRIPT_CHARACTERS = 10_000
"""Of one utterance, which is at most half a minute of speech."""
MAX_REPLY_CHARACTERS = 4_000
"""Five minutes of speech; a model that says more has lost its way."""


class ChainLink(Protocol):
    """Who may be asked in a stage."""

    @property
    def name(self) -> str:
        """What it is called in logs and metrics."""
        ...

    @property
    def breaker(self) -> BreakerKey | None:
        """The breaker that it shares with the other calls that reach it with the same key; None: it cannot fail."""
        ...

    @property
    def last_resort(self) -> bool:
        """Whether it is asked after failures only."""
        ...

    @property
    def key_ref(self) -> KeyRef | None:
        """The key that it is asked with, where what its provider says of that is kept."""
        ...


@dataclass(frozen=True, slots=True)
class Budgets:
    """How long a provider may take before the next one is asked."""

    stt_final_ms: int = 4_000
    llm_first_token_ms: int = 3_000
    tts_first_audio_ms: int = 3_000
    stream_stall_ms: int = 5_000
    """Silence allowed inside a stream that has begun."""
    stream_total_ms: int = 60_000
    """For a whole answer."""
    stt_hedge_ms: int | None = None
    """Silence after which the next provider is asked as well. None: half the budget; 0: never."""
    llm_hedge_ms: int | None = None
    tts_hedge_ms: int | None = None

    def terms(self, stage: Stage) -> Terms:
        """The budgets of a stage."""
        first_ms, hedge_ms = {
            Stage.STT: (self.stt_final_ms, self.stt_hedge_ms),
            Stage.LLM: (self.llm_first_token_ms, self.llm_hedge_ms),
            Stage.TTS: (self.tts_first_audio_ms, self.tts_hedge_ms),
        }[stage]
        hedge_ms = first_ms // 2 if hedge_ms is None else hedge_ms
        return Terms(first_ms, self.stream_stall_ms, self.stream_total_ms, hedge_ms or None)
