"""Pipecat's user turn, begun and ended by our turn-taking.

The aggregator's turn controller asks strategies when a turn begins and ends. These two decide nothing: the turn-taking core
does, and the shell around it calls them. No voice activity frames enter the pipeline, and caller audio neither.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from pipecat.frames.frames import Frame, TranscriptionFrame
from pipecat.turns.types import ProcessFrameResult
from pipecat.turns.user_start.base_user_turn_start_strategy import BaseUserTurnStartStrategy
from pipecat.turns.user_stop.base_user_turn_stop_strategy import BaseUserTurnStopStrategy

TURN_END_TIMEOUT_S = 1.0
"""The aggregator ends a turn within some loop iterations; past this it is taken to be ending."""


@dataclass
class CallerTurnFrame(TranscriptionFrame):
    """All that the caller said in a turn that is over; ends it when the aggregator has taken the text."""

    speculated: bool = False
    """Its answer is on its way already."""
    interruptible: bool = field(default=False, init=False)


class CallerTurnStart(BaseUserTurnStartStrategy):  # type: ignore[no-untyped-call] # Pipecat's __init_subclass__
    """Begins turns when told to."""

    async def begin(self) -> None:
        """The caller has the floor: interrupt whatever is said, thought or queued."""
        await self.trigger_user_turn_started()

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:  # noqa: ARG002 - Pipecat's signature
        """No frame begins a turn."""
        return ProcessFrameResult.CONTINUE


class CallerTurnStop(BaseUserTurnStopStrategy):  # type: ignore[no-untyped-call]
    """Ends turns, and withdraws answers that were begun too early."""

    def __init__(self) -> None:
        super().__init__()
        self._turn_ended = asyncio.Event()

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        """End the turn with its text."""
        if isinstance(frame, CallerTurnFrame):
            if frame.speculated:
                await self.trigger_user_turn_finalized(confirms_speculation=True)
            else:
                await self.trigger_user_turn_stopped()
        return ProcessFrameResult.CONTINUE

    async def withdraw(self) -> None:
        """Stop the answer that was begun."""
        await self.trigger_user_turn_speculation_cancelled()  # type: ignore[no-untyped-call]

    async def handle_user_turn_started(self) -> None:
        """Arm `wait_for_end`."""
        self._turn_ended.clear()

    async def handle_user_turn_stopped(self) -> None:
        """Let `wait_for_end` go on."""
        self._turn_ended.set()

    async def wait_for_end(self) -> None:
        """Return when the turn is over for Pipecat too, so that the next can begin."""
        try:
            await asyncio.wait_for(self._turn_ended.wait(), TURN_END_TIMEOUT_S)
        except TimeoutError:
            return
