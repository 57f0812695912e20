"""When the caller's turn has ended.

The turn ends when the caller has been silent for the tenant's end-of-turn wait and every utterance of the turn has
come back from transcription, whether as text, as nothing or as a failure. An utterance that transcribes to nothing (a
cough, a slammed door) therefore ends its turn at once instead of after a watchdog, and Pipecat's empty-turn handling
can pick the conversation up again.
"""

from __future__ import annotations

import asyncio

from pipecat.frames.frames import (
    Frame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.turns.types import ProcessFrameResult
from pipecat.turns.user_stop.base_user_turn_stop_strategy import BaseUserTurnStopStrategy


class TranscribedSilenceStop(BaseUserTurnStopStrategy):  # type: ignore[no-untyped-call] # Pipecat's __init_subclass__
    """Silence of a fixed length after the last speech, and no transcription outstanding."""

    def __init__(self, *, end_of_turn_ms: int) -> None:
        super().__init__()
        self._end_of_turn_ms = end_of_turn_ms
        self._turn_speaking = False
        self._turn_outstanding = 0
        self._turn_wait_over = False
        self._turn_timer: asyncio.TimerHandle | None = None
        self._turn_task: asyncio.Task[None] | None = None

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        """Follow the speech boundaries and the transcripts."""
        if isinstance(frame, VADUserStartedSpeakingFrame):
            self._turn_speaking = True
            self._cancel_timer()
        elif isinstance(frame, VADUserStoppedSpeakingFrame):
            self._turn_speaking = False
            self._turn_outstanding += 1
            self._start_timer(max(0.0, self._end_of_turn_ms / 1000 - frame.stop_secs))
        elif isinstance(frame, TranscriptionFrame):
            self._turn_outstanding = max(0, self._turn_outstanding - 1)
            await self._maybe_stop()
        return ProcessFrameResult.CONTINUE

    async def handle_user_turn_stopped(self) -> None:
        """Forget the turn, however it ended."""
        self._cancel_timer()
        self._turn_wait_over = False
        self._turn_outstanding = 0

    async def cleanup(self) -> None:
        """End the timer with the call."""
        await super().cleanup()  # type: ignore[no-untyped-call]
        self._cancel_timer()

    def _start_timer(self, delay_s: float) -> None:
        self._cancel_timer()
        self._turn_timer = asyncio.get_running_loop().call_later(delay_s, self._timer_fired)

    def _cancel_timer(self) -> None:
        self._turn_wait_over = False
        if self._turn_timer is not None:
            self._turn_timer.cancel()
            self._turn_timer = None

    def _timer_fired(self) -> None:
        self._turn_timer = None
        self._turn_wait_over = True
        self._turn_task = self.task_manager.create_task(self._maybe_stop(), f"{self}::end_of_turn")

    async def _maybe_stop(self) -> None:
        if self._turn_wait_over and not self._turn_speaking and self._turn_outstanding == 0:
            self._turn_wait_over = False
            await self.trigger_user_turn_stopped()
