"""Makes the fixed phrases of every tenant before the first call needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing

from loguru import logger

from config.tenant import TenantConfig
from mediaserver.phrase_cache import PhraseCache, PhraseKey
from mediaserver.pipeline.services import ProviderAccess, synthesizer
from mediaserver.providers.failures import failure_of
from mediaserver.receptionist import Phrases
from tenancy import ResolvedProvider

CONCURRENT_SYNTHESES = 2
SYNTHESIS_TIMEOUT_S = 20.0


class PhraseWarmer:
    """Synthesises what the cache lacks, first provider of the tenant first."""

    def __init__(
        self, cache: PhraseCache, access: ProviderAccess, at_once: int = CONCURRENT_SYNTHESES
    ) -> None:
        self._cache = cache
        self._access = access
        self._slots = asyncio.Semaphore(at_once)

    async def warm(self, config: TenantConfig, chain: Iterable[ResolvedProvider]) -> int:
        """Bring every fixed phrase of a tenant into the cache; returns how many are missing still."""
        providers = tuple(chain)
        texts = (config.greeting, *Phrases.of(config).all())
        done = await asyncio.gather(*(self._warm_one(config, providers, text) for text in texts))
        return done.count(False)

    async def _warm_one(self, config: TenantConfig, chain: tuple[ResolvedProvider, ...], text: str) -> bool:
        key = self._key(config, chain, text)
        if await self._cache.load(key):
            return True
        async with self._slots:
            for provider in chain:
                pcm = await self._synthesise(config, provider, text)
                if pcm:
                    await self._cache.store(key, pcm)
                    return True
        return False

    async def warm_in_memory(
        self, config: TenantConfig, chain: tuple[ResolvedProvider, ...], text: str
    ) -> bool:
        """Bring one sentence into memory, with the first provider only: nobody waits for it. False: it could not."""
        key = self._key(config, chain, text)
        if self._cache.get(key) is None:
            self._cache.put(key, await self._synthesise(config, chain[0], text))
        return self._cache.get(key) is not None

    @staticmethod
    def _key(config: TenantConfig, chain: tuple[ResolvedProvider, ...], text: str) -> PhraseKey:
        return PhraseKey.of(config.tenant_id, chain[0].name, config.voice.name, config.voice.speed, text)

    async def _synthesise(self, config: TenantConfig, provider: ResolvedProvider, text: str) -> bytes:
        pieces = synthesizer(provider, self._access, config.voice.name, config.voice.speed).speak(text)
        try:
            async with asyncio.timeout(SYNTHESIS_TIMEOUT_S), aclosing(pieces):
                pcm = b"".join([piece async for piece in pieces])
        except Exception as error:  # noqa: BLE001 - a stranger's answer in somebody else's library may raise anything
            logger.warning("phrase not synthesised: {}", failure_of(provider.name, error))
            return b""
        return pcm
