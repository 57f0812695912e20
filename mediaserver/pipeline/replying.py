"""The reply to a turn, through the tenant's chain of language models down to the built-in receptionist."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from typing import Protocol

from loguru import logger
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import LLMService
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.settings import LLMSettings
from pipecat.turns.speculation_gate import GatedFrame, SpeculationGate

from mediaserver.errors import ProviderFailed
from mediaserver.pipeline.providers import PROVIDER_ERRORS, Budgets
from mediaserver.telemetry.turns import TurnWaits


class Replier(Protocol):
    """One link of the chain: a source of reply text for a conversation."""

    name: str

    def reply(self, context: LLMContext) -> AsyncGenerator[str, None]:
        """The reply to the conversation so far, in deltas; raises `ProviderFailed`."""
        ...


class ModelReplier:
    """A language model behind an OpenAI-compatible API, asked through Pipecat's service."""

    def __init__(self, name: str, service: OpenAILLMService) -> None:
        self.name = name
        self._service = service

    async def reply(self, context: LLMContext) -> AsyncGenerator[str, None]:
        """Stream the model's text."""
        try:
            stream = await self._service.get_chat_completions(context)
            async with stream:
                async for chunk in stream:
                    if chunk.choices and chunk.choices[0].delta.content:
                        yield chunk.choices[0].delta.content
        except (*PROVIDER_ERRORS, ValueError) as error:
            raise ProviderFailed(self.name, type(error).__name__) from error


class _OpenGate(SpeculationGate):
    """In the place of Pipecat's gate, which would hold a speculative answer as text: ours waits at the output, spoken."""

    def process(self, frame: Frame, direction: FrameDirection) -> list[GatedFrame]:
        """Hold nothing."""
        return [(frame, direction)]


class Replying(LLMService):
    """Pipecat's LLM stage over a chain of repliers.

    It answers the turn that is over, or ahead of that one that may be (a speculation), as long as ``is_wanted``.

    A replier that fails before its first word costs the caller a short apology and is followed by the next one; one
    that breaks off later ends its reply where it broke.
    """

    def __init__(
        self,
        chain: Sequence[Replier],
        budgets: Budgets,
        apology: str,
        failure: str,
        *,
        waits: TurnWaits,
        is_wanted: Callable[[LLMContext], bool],
    ) -> None:
        # The stage itself asks no model: every setting is given so that Pipecat does not warn of missing ones.
        super().__init__(
            settings=LLMSettings(
                model=chain[0].name,
                system_instruction=None,
                temperature=None,
                max_tokens=None,
                top_p=None,
                top_k=None,
                frequency_penalty=None,
                presence_penalty=None,
                seed=None,
                filter_incomplete_user_turns=False,
                user_turn_completion_config=None,
            )
        )
        self._reply_chain = tuple(chain)
        self._reply_budgets = budgets
        self._reply_apology = apology
        self._reply_failure = failure
        self._reply_waits = waits
        self._reply_wanted = is_wanted
        self._speculation_gate = _OpenGate()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer an `LLMContextFrame`; pass everything else on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, EagerEndOfTurnCancelFrame):
            await self._start_interruption()  # type: ignore[no-untyped-call]
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        if frame.speculation and not self._reply_wanted(frame.context):
            # It was withdrawn while it waited: a withdrawal overtakes what it withdraws.
            return
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            await self._reply_to(frame.context)
        finally:
            await self.push_frame(LLMFullResponseEndFrame())

    async def _reply_to(self, context: LLMContext) -> None:
        for replier in self._reply_chain:
            try:
                if await self._stream(replier, context):
                    return
                failure = ProviderFailed(replier.name, "an empty reply")
            except ProviderFailed as error:
                failure = error
            logger.warning("reply failed, trying the next provider: {}", failure)
            if replier is self._reply_chain[0] and len(self._reply_chain) > 1:
                await self._push_llm_text(self._reply_apology + " ")
        await self._push_llm_text(self._reply_failure)

    async def _stream(self, replier: Replier, context: LLMContext) -> bool:
        """Push one replier's text; False when it said nothing. Raises `ProviderFailed` before its first word."""
        said, first_token = False, self._reply_waits.asked("llm")
        deltas = replier.reply(context)
        budget_ms = self._reply_budgets.llm_first_token_ms
        try:
            while True:
                try:
                    async with asyncio.timeout(budget_ms / 1000):
                        delta = await anext(deltas)
                except StopAsyncIteration:
                    return said
                except TimeoutError:
                    raise ProviderFailed(replier.name, f"no text within {budget_ms} ms") from None
                first_token()
                said = said or bool(delta.strip())
                budget_ms = self._reply_budgets.stream_stall_ms
                await self._push_llm_text(delta)
        except ProviderFailed as failure:
            if not said:
                raise
            logger.warning("reply broke off: {}", failure)
            return True
        finally:
            await deltas.aclose()


Clock = Callable[[], datetime]
"""The time, aware, for what depends on it (opening hours)."""
