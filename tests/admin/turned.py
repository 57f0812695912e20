"""Clocks that a test turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from admin.clocks import Clocks

NOON_MS = 1_800_000_000_000


@dataclass
class Turned:
    """Clocks that stand until they are turned."""

    wall_ms: int = NOON_MS
    steady_ms: int = 5_000_000
    clocks: Clocks = field(init=False)

    def __post_init__(self) -> None:
        self.clocks = Clocks(lambda: self.wall_ms, lambda: self.steady_ms)

    def turn(self, by_ms: int) -> None:
        self.wall_ms += by_ms
        self.steady_ms += by_ms

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.wall_ms / 1000, UTC)
