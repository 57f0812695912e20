"""Who may have the floor, a tenant's turn-taking, and what is counted of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum


class State(Enum):
    """Who has the floor."""

    IDLE = "idle"
    """Nobody: the caller may speak."""
    SPEAKING = "speaking"
    """The caller, aloud."""
    WAITING = "waiting"
    """The caller, silent: it is decided whether the turn is over."""
    ANSWERING = "answering"
    """The receptionist: what she has to say is due, queued or sounding."""
    HELD = "held"
    """The receptionist, held while the caller makes a sound."""
    DECIDING = "deciding"
    """The receptionist, still held: the sound has ended, its words are awaited."""
    CLOSING = "closing"
    """The receptionist, for her last words: the time is up."""
    OVER = "over"


@dataclass(frozen=True, slots=True)
class TurnParams:
    """A tenant's turn-taking, in milliseconds."""

    complete_wait_ms: int = 300
    end_of_turn_ms: int = 450
    unfinished_wait_ms: int = 1_200
    transcript_wait_ms: int = 6_000
    """Silence after which a turn ends although a transcription is outstanding."""
    barge_in_ms: int = 700
    decision_ms: int = 500
    silence_prompt_ms: int = 15_000
    max_call_ms: int = 3_600_000
    goodbye_before_ms: int = 8_000
    speculate: bool = True
    ask_model: bool = False


@dataclass(slots=True)
class TurnCounters:
    """What became of the turns of a call."""

    turns: int = 0
    empty_turns: int = 0
    """Turns in which nothing was understood."""
    speculations: int = 0
    speculations_confirmed: int = 0
    speculations_discarded: int = 0
    transcriptions: int = 0
    transcriptions_withdrawn: int = 0
    holds: int = 0
    resumed: int = 0
    """Holds for a cough or a backchannel."""
    interrupted: int = 0
    late_interruptions: int = 0
    """Interruptions by words that came after the playout had gone on."""
    model_asked: int = 0
    silence_prompts: int = 0

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return {field.name: int(getattr(self, field.name)) for field in fields(self)}
