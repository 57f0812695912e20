"""A language model as who replies in a replayed conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import datetime

from pipecat.processors.aggregators.llm_context import LLMContext

from config.tenant import TenantConfig
from mediaserver.configuring.replay import MODEL_TIMEOUT_S
from mediaserver.errors import MediaServerError
from mediaserver.pipeline.services import Embedded, ProviderAccess, model_repliers
from mediaserver.providers.connections import ProviderClient
from mediaserver.providers.failures import failure_of
from mediaserver.receptionist import first_message, system_prompt
from tenancy import ResolvedProvider


@asynccontextmanager
async def model_speakers(
    config: TenantConfig, provider: ResolvedProvider
) -> AsyncIterator[Callable[[], ModelSpeaker]]:
    """Makes speakers that share one client."""
    async with ProviderClient() as http:
        access = ProviderAccess(Embedded("http://127.0.0.1:9/v1"), http)
        yield lambda: ModelSpeaker(config, provider, access)


class ModelSpeaker:
    """One conversation with a model, which is told what it would have said before."""

    over = False
    """A model ends no call."""

    def __init__(self, config: TenantConfig, provider: ResolvedProvider, access: ProviderAccess) -> None:
        self._config = config
        self._provider = provider
        self._access = access
        self._context = LLMContext([{"role": "assistant", "content": first_message(config)}])

    async def reply(self, heard: str, at: datetime) -> str:
        """Ask the model. Raises `MediaServerError` where it does not answer."""
        (replier,) = model_repliers((self._provider,), self._access, system_prompt(self._config, at))
        self._context.add_message({"role": "user", "content": heard})
        try:
            async with asyncio.timeout(MODEL_TIMEOUT_S), aclosing(replier.reply(self._context)) as pieces:
                said = "".join([piece async for piece in pieces])
        except TimeoutError:
            raise MediaServerError(f"{self._provider.name}: no answer within {MODEL_TIMEOUT_S:g} s") from None
        except Exception as error:  # noqa: BLE001 - a stranger's answer in somebody else's library may raise anything
            raise failure_of(self._provider.name, error) from None
        if not said.strip():
            raise MediaServerError(f"{self._provider.name}: an empty answer")
        self._context.add_message({"role": "assistant", "content": said})
        return said
