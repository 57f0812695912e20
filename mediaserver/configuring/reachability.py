"""Whether the providers of a configuration can be reached: one HEAD to each API's root, without a key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import aiohttp

from config.node import PlatformProviders
from config.tenant import TenantConfig
from mediaserver.providers.connections import ProviderClient
from tenancy.providers import resolve

TIMEOUT_S: Final = 5.0
AT_ONCE: Final = 8


async def unreachable(
    config: TenantConfig, platform: PlatformProviders, environ: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The roots that answer, whatever they answer, and those that do not, with why; within `TIMEOUT_S` for each.

    A step that is left out because its key is not set is among the second. Any answer counts: a root need not exist, and
    without a key most say 401 or 404.
    """
    chains = resolve(config.providers, platform, environ)
    steps = (*chains.stt, *chains.llm, *chains.tts)
    roots = dict.fromkeys(step.base_url for step in steps if step.base_url is not None)
    bound = asyncio.Semaphore(AT_ONCE)
    async with ProviderClient() as http:

        async def ask(root: str) -> str | None:
            async with bound:
                return await _why_not(http, root)

        answers = await asyncio.gather(*(ask(root) for root in roots))
    reached = tuple(root for root, why in zip(roots, answers, strict=True) if why is None)
    missed = tuple(f"{root}: {why}" for root, why in zip(roots, answers, strict=True) if why is not None)
    return reached, (*chains.skipped, *missed)


async def _why_not(http: ProviderClient, root: str) -> str | None:
    try:
        async with asyncio.timeout(TIMEOUT_S), http.request("HEAD", root, {}) as answer:
            return f"answers {answer.status}" if answer.status >= 500 else None
    except TimeoutError:
        return f"no answer within {TIMEOUT_S:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"cannot be reached: {type(error).__name__}"
