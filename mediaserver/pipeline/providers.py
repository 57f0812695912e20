"""What a call's provider chains have in common: budgets, and how a Pipecat service becomes a link of a chain.

A chain holds Pipecat services that are not themselves in the pipeline: one processor owns the stage and asks one
service after the other for the same piece of work, so that a failure costs a retry and not the caller's sentence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import httpx2
import openai
from pipecat.frames.frames import ErrorFrame, Frame

from mediaserver.errors import ProviderFailed

PROVIDER_ERRORS = (openai.OpenAIError, httpx2.HTTPError, OSError)
"""What a provider's client raises: the SDK, the HTTP library below it where a stream breaks off, the socket."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """How long a provider may take before the next one is asked."""

    stt_final_ms: int = 4_000
    llm_first_token_ms: int = 3_000
    tts_first_audio_ms: int = 3_000
    stream_stall_ms: int = 5_000
    """Silence allowed inside a stream that has begun."""


async def frames_within(
    provider: str, frames: AsyncGenerator[Frame | None, None], first_ms: int, stall_ms: int
) -> AsyncIterator[Frame]:
    """Pass on a service's frames while they keep to the budget.

    Raises:
        ProviderFailed: an `ErrorFrame` came, or the next frame did not come in time.
    """
    budget_ms = first_ms
    try:
        while True:
            try:
                async with asyncio.timeout(budget_ms / 1000):
                    frame = await anext(frames)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise ProviderFailed(provider, f"nothing within {budget_ms} ms") from None
            except PROVIDER_ERRORS as error:
                # Not the error's text, here and below: it may repeat the key, or what the caller said.
                raise ProviderFailed(provider, type(error).__name__) from error
            if frame is None:
                continue
            if isinstance(frame, ErrorFrame):
                raise ProviderFailed(provider, "an error of the service")
            budget_ms = stall_ms
            yield frame
    finally:
        await frames.aclose()
