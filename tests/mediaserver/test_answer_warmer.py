"""The likely answers are cached in the pieces that the synthesis stage asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mediaserver.answer_warmer import AnswerWarmer, likely_questions, sentences
from mediaserver.phrase_cache import PhraseCache, PhraseKey
from mediaserver.phrase_warmer import PhraseWarmer
from mediaserver.pipeline.services import Embedded, ProviderAccess
from mediaserver.providers.connections import ProviderClient
from mediaserver.receptionist import ConversationState, Receptionist
from perf.simulators import Script, running
from tenancy import TenantContext
from tenancy.providers import ResolvedProvider
from tests.sim.node import NUMBER, tenant
from vault.resolver import Origin

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def _context(url: str, *, llm: str) -> TenantContext:
    config = tenant(url)
    speech = ResolvedProvider("openai", Origin.TENANT, "test", url, "simulated", "key")
    brain = ResolvedProvider(llm, Origin.FALLBACK, "test", url, "simulated", "key")
    return TenantContext(
        "bakery", "warm-up", NUMBER, "none", config, 1, "hash", (speech,), (brain,), (speech,)
    )


async def test_sentences_are_cut_as_the_stage_cuts_them() -> None:
    assert await sentences("We open at 8 a.m. on Mondays. Can I help you? Yes") == [
        "We open at 8 a.m. on Mondays.",
        "Can I help you?",
        "Yes",
    ]
    assert await sentences("  ") == []


async def _warm(directory: Path, llm: str) -> tuple[PhraseCache, TenantContext, Script]:
    script = Script()
    cache = PhraseCache(directory)
    idled = 0

    async def idle() -> None:
        nonlocal idled
        idled += 1

    with running(script) as url:
        async with ProviderClient() as http:
            context = _context(url, llm=llm)
            warmer = AnswerWarmer(PhraseWarmer(cache, ProviderAccess(Embedded(url), http)), lambda: NOW, idle)
            await warmer.run([context])
            assert idled == warmer.warmed
    return cache, context, script


async def test_every_likely_answer_is_in_memory(tmp_path: Path) -> None:
    cache, context, _ = await _warm(tmp_path, "embedded")
    receptionist = Receptionist(context.config)
    for question in likely_questions(context.config):
        for sentence in await sentences(receptionist.reply(ConversationState(), question, NOW).text):
            key = PhraseKey.of(
                context.tenant_id, context.tts[0].name, context.config.voice.name, 1.0, sentence
            )
            assert cache.get(key), sentence


async def test_a_tenant_with_a_language_model_is_left_alone(tmp_path: Path) -> None:
    _, _, script = await _warm(tmp_path, "openai")
    assert script.requests == {}
