"""Speaks the built-in receptionist's likeliest answers before anybody asks.

The answers follow from the configuration, so their audio can be there when the question comes; a turn then costs the
end-of-turn wait and nothing else. Work is done one sentence at a time, in memory, while no call is up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime

from loguru import logger

from config.tenant import TenantConfig
from mediaserver.phrase_warmer import PhraseWarmer
from mediaserver.pipeline.clauses import FirstClauseAggregator
from mediaserver.receptionist import ConversationState, Receptionist
from tenancy import TenantContext

MAX_TENANTS = 50
"""A node with more warms the first of them; the others' answers are kept once they were given."""
MAX_QUESTIONS = 60
GENERAL_QUESTIONS = (
    "What are your opening hours?",
    "Are you open today?",
    "Are you open tomorrow?",
    "Where are you?",
    "How do I get there?",
    "What services do you offer?",
    "Can I leave a message?",
    "Can I talk to a person?",
    "Thank you, goodbye.",
)


def likely_questions(config: TenantConfig) -> tuple[str, ...]:
    """What callers of this business ask most."""
    emergency = (config.emergency.keywords[0],) if config.emergency else ()
    days = tuple(f"Are you open on {day.value}?" for day in config.hours)
    services = tuple(f"How much is {service.name}?" for service in config.services)
    questions = tuple(entry.question for entry in config.faq)
    return (*emergency, *GENERAL_QUESTIONS, *questions, *days, *services)[:MAX_QUESTIONS]


async def sentences(text: str) -> list[str]:
    """The text as the synthesis stage cuts it, so that the cache is asked for the same pieces."""
    aggregator = FirstClauseAggregator()
    found = [piece.text async for piece in aggregator.aggregate(text)]
    rest = await aggregator.flush()
    if rest is not None:
        found.append(rest.text)
    return [sentence.strip() for sentence in found if sentence.strip()]


class AnswerWarmer:
    """Fills the phrase cache with answers; see the module's docstring."""

    def __init__(
        self, phrases: PhraseWarmer, clock: Callable[[], datetime], idle: Callable[[], Awaitable[None]]
    ) -> None:
        self._phrases = phrases
        self._clock = clock
        self._idle = idle
        self.warmed = 0

    async def run(self, tenants: Iterable[TenantContext]) -> None:
        """Warm the tenants whose replies come from the built-in receptionist."""
        own = [tenant for tenant in tenants if tenant.llm[0].kind == "embedded"][:MAX_TENANTS]
        for tenant in own:
            receptionist = Receptionist(tenant.config)
            for question in likely_questions(tenant.config):
                reply = receptionist.reply(ConversationState(), question, self._clock())
                for sentence in await sentences(reply.text):
                    await self._idle()
                    self.warmed += await self._phrases.warm_in_memory(tenant.config, tenant.tts, sentence)
        logger.info("{} sentences of likely answers are ready", self.warmed)
