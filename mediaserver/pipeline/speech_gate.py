"""What the output does with speech that nobody may hear yet.

Pipecat's own `SpeculationGate` holds a speculative answer at the language model, as text; here the answer is synthesised
too, and its audio waits at the output with the frames that must stay in step with it. Rules:

- OPEN: everything passes.
- HOLDING: an answer to a turn that may not be over is kept, in order.
- DROPPING: the answer was discarded, and what is left of it on its way is dropped until somebody opens the gate.

What must not be lost (uninterruptible frames, the end of the call) passes or outlives a discard. System frames never come here.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from pipecat.frames.frames import EndFrame, Frame

MAX_HELD_FRAMES = 2_000
"""An answer is some dozens; past this the rest is dropped, and counted."""


class GateState(Enum):
    """What happens to speech."""

    OPEN = "open"
    HOLDING = "holding"
    DROPPING = "dropping"


class SpeechGate:
    """Decides about each frame on its way to the playout; sans-IO."""

    def __init__(self) -> None:
        self.state = GateState.OPEN
        self.dropped_frames = 0
        """Of discarded answers."""
        self._held: deque[Frame] = deque()

    def hold(self) -> None:
        """An answer is begun that may not be heard yet."""
        self._discard_held()
        self.state = GateState.HOLDING

    def drop(self) -> tuple[Frame, ...]:
        """The answer is void. Returns what of it must go on all the same."""
        kept = self._discard_held()
        self.state = GateState.DROPPING
        return kept

    def admit(self, frame: Frame) -> tuple[Frame, ...]:
        """The frames that pass now, for one that comes."""
        if self.state is GateState.OPEN:
            return (frame,)
        if isinstance(frame, EndFrame):
            kept = self._discard_held()
            self.state = GateState.OPEN
            return (*kept, frame)
        if self.state is GateState.HOLDING and len(self._held) < MAX_HELD_FRAMES:
            self._held.append(frame)
            return ()
        if not frame.interruptible:
            return (frame,)
        self.dropped_frames += 1
        return ()

    def next_released(self) -> Frame | None:
        """The next of what was held, for an answer that may be heard; None opens the gate.

        One at a time: what comes while they are delivered is held behind them.
        """
        if self._held:
            return self._held.popleft()
        self.state = GateState.OPEN
        return None

    def open(self) -> None:
        """What comes is meant to be heard."""
        self._discard_held()
        self.state = GateState.OPEN

    def _discard_held(self) -> tuple[Frame, ...]:
        kept = tuple(frame for frame in self._held if not frame.interruptible)
        self.dropped_frames += len(self._held) - len(kept)
        self._held.clear()
        return kept
