"""Turn-taking: who has the floor, when a turn is over, what interrupts and what does not. Sans-IO."""

from __future__ import annotations

from mediaserver.turns.state import State, TurnCounters, TurnParams
from mediaserver.turns.taker import TurnTaker

__all__ = ["State", "TurnCounters", "TurnParams", "TurnTaker"]
