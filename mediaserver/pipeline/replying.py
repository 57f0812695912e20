"""The reply to a turn, through the tenant's chain of language models down to the built-in receptionist."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
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
from pipecat.services.settings import LLMSettings
from pipecat.turns.speculation_gate import GatedFrame, SpeculationGate

from mediaserver.pipeline.providers import Budgets, ChainLink
from mediaserver.providers.asking import Chain, Link, Piece, ProviderCare
from mediaserver.providers.breaker import Stage
from mediaserver.telemetry.turns import TurnWaits


class Replier(ChainLink, Protocol):
    """A source of reply text for a conversation."""

    def reply(self, context: LLMContext) -> AsyncGenerator[str, None]:
        """The reply to the conversation so far, in deltas that begin with a word; raises what its client raises."""
        ...


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
        care: ProviderCare,
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
        self._reply_links = Chain(
            Stage.LLM,
            [
                Link(one.name, one.reply, one.breaker, last_resort=one.last_resort, key=one.key_ref)
                for one in chain
            ],
            care,
            budgets.terms(Stage.LLM),
        )
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
        said = apologised = False
        first_token = self._reply_waits.asked("llm")
        async with aclosing(self._reply_links.ask(context)) as answer:
            async for told in answer:
                if isinstance(told, Piece):
                    first_token()
                    said = True
                    await self._push_llm_text(told.item)
                    continue
                logger.warning("reply {}: {}", "broke off" if said else "failed", told.failure)
                if said:
                    return
                if told.more and not apologised:
                    apologised = True
                    await self._push_llm_text(self._reply_apology + " ")
        if not said:
            await self._push_llm_text(self._reply_failure)


Clock = Callable[[], datetime]
"""The time, aware, for what depends on it (opening hours)."""
