"""The launch gate: what a step must keep, and whether it did. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perf.harness.figures import Figures

Value = Callable[[Figures], float | None]


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and the most that it may be."""

    name: str
    value: Value
    most: float
    unit: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A bar held against a step."""

    name: str
    value: float | None
    most: float
    unit: str

    @property
    def kept(self) -> bool:
        """A figure that nobody measured is not kept."""
        return self.value is not None and self.value <= self.most


WHOLE = (
    Bar("failed calls", lambda step: step.failed, 0, "calls"),
    Bar("unanswered turns", lambda step: step.turns_unanswered, 0, "turns"),
    Bar("packets lost", lambda step: step.packets_lost_percent, 0.1, "%"),
)

SOUND = (*WHOLE, Bar("playout spacing error p99.9", lambda step: step.spacing_error_ms.p99_9, 10, "ms"))
"""What the search for the knee asks of a step, with the latency below."""

FAST = (
    Bar("turn latency p50", lambda step: step.latency_ms.p50, 350, "ms"),
    Bar("turn latency p95", lambda step: step.latency_ms.p95, 450, "ms"),
    Bar("turn latency p99", lambda step: step.latency_ms.p99, 500, "ms"),
)

LAUNCH = (
    *SOUND,
    *FAST,
    Bar("false ends of turns", lambda step: step.false_ends_percent, 3, "%"),
    Bar("greeting after ACK p99", lambda step: step.greeting_ms.p99, 50, "ms"),
)
"""At 100 calls at a time, with providers at 80, 150 and 80 ms."""

SHORT = (
    *WHOLE,
    # Of the few thousand packets of a short step one in a thousand is the machine's hiccup and not the server's.
    Bar("playout spacing error p99", lambda step: step.spacing_error_ms.p99, 10, "ms"),
    Bar("turn latency p95", lambda step: step.latency_ms.p95, 1_200, "ms"),
    Bar("greeting after ACK p99", lambda step: step.greeting_ms.p99, 250, "ms"),
)
"""For CI, whose processors are shared by who knows whom: sound conversations, and no latency out of all proportion."""


def judge(step: Figures, bars: Sequence[Bar]) -> list[Judged]:
    """Every bar against a step."""
    return [Judged(bar.name, bar.value(step), bar.most, bar.unit) for bar in bars]


def passes(step: Figures, bars: Sequence[Bar]) -> bool:
    """Whether a step keeps all of them."""
    return all(judged.kept for judged in judge(step, bars))
