"""How long a simulated provider takes and how often it fails, as a script says. Sans-IO: draws come in as arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from random import Random
from typing import Any

P99_SIGMAS = 2.326_348
"""The 0.99 quantile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Latency:
    """A distribution of delays in milliseconds: lognormal by its median and p99, or fixed where both are the same."""

    p50_ms: float = 0.0
    p99_ms: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Latency:
        """``80`` is always 80 ms; ``80,200`` has half of all below 80 and one in a hundred above 200.

        Raises:
            ValueError: Neither, or not in order.
        """
        median, _, tail = text.partition(",")
        p50_ms = float(median)
        p99_ms = float(tail) if tail else p50_ms
        if not 0 <= p50_ms <= p99_ms or (p50_ms == 0 and p99_ms > 0) or not math.isfinite(p99_ms):
            raise ValueError(f"{text!r} is not a median and a p99 above it")
        return cls(p50_ms, p99_ms)

    def draw_ms(self, random: Random) -> float:
        """One delay."""
        if self.p99_ms == self.p50_ms:
            return self.p50_ms
        sigma = math.log(self.p99_ms / self.p50_ms) / P99_SIGMAS
        return random.lognormvariate(math.log(self.p50_ms), sigma)

    def __str__(self) -> str:
        return f"{self.p50_ms:g}" if self.p99_ms == self.p50_ms else f"{self.p50_ms:g},{self.p99_ms:g}"


class Fault(Enum):
    """What a request may meet instead of an answer."""

    ERROR = "error"
    """Status 500."""
    HANG = "hang"
    """Accepted, and silent from then on."""
    RESET = "reset"
    """The connection is reset, in a streamed answer after its first piece."""
    GARBAGE = "garbage"
    """Status 200 and octets that mean nothing."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One simulated API. Rates are shares of all requests, together at most 1."""

    latency: Latency = Latency()
    """From the whole request to the first byte of the answer (chat: the first token; speech: the first audio)."""
    error: float = 0.0
    hang: float = 0.0
    reset: float = 0.0
    garbage: float = 0.0

    def draw(self, random: Random) -> tuple[float, Fault | None]:
        """What one request meets: the delay in ms, and a fault."""
        delay_ms, at = self.latency.draw_ms(random), random.random()
        for fault in Fault:
            at -= getattr(self, fault.value)
            if at < 0:
                return delay_ms, fault
        return delay_ms, None


DEFAULT_REPLIES = (
    "Yes number {n}, we are open from nine to five.",
    "Number {n}, that is possible. Shall I book it?",
    "For number {n}, we are at Mill Lane, next to the church.",
    "Of course number {n}, I have made a note of it.",
)
"""``{n}`` counts: no clause comes twice, so that none is spoken from a server's cache. They begin with a short clause, as our
server asks models to do."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """All stages, and what comes after the first byte."""

    stt: Stage = Stage()
    llm: Stage = Stage()
    tts: Stage = Stage()
    token_ms: float = 10.0
    """From one token of a reply to the next."""
    speech_rate: float = 10.0
    """Seconds of speech that are synthesised in a second, after the first piece."""
    seed: int = 1
    replies: tuple[str, ...] = field(default=DEFAULT_REPLIES)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Scenario:
        """From the JSON that `document` gives. Absent is default.

        Raises:
            ValueError: A name that is not known, or a value that cannot be.
        """
        unknown = set(document) - {entry.name for entry in fields(cls)}
        if unknown:
            raise ValueError(f"not known: {', '.join(sorted(unknown))}")
        values = dict(document)
        for name in ("stt", "llm", "tts"):
            values[name] = _stage(values.get(name, {}))
        values["replies"] = tuple(values.get("replies", DEFAULT_REPLIES))
        return cls(**values)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        stages = {name: getattr(self, name) for name in ("stt", "llm", "tts")}
        return {
            **{
                name: {
                    "latency": str(stage.latency),
                    **{fault.value: getattr(stage, fault.value) for fault in Fault},
                }
                for name, stage in stages.items()
            },
            "token_ms": self.token_ms,
            "speech_rate": self.speech_rate,
            "seed": self.seed,
            "replies": list(self.replies),
        }


def _stage(document: Mapping[str, Any]) -> Stage:
    rates = {fault.value: float(document.get(fault.value, 0.0)) for fault in Fault}
    unknown = set(document) - {"latency", *rates}
    if unknown:
        raise ValueError(f"not known: {', '.join(sorted(unknown))}")
    if any(rate < 0 for rate in rates.values()) or sum(rates.values()) > 1:
        raise ValueError("rates of faults are shares and together at most 1")
    return Stage(latency=Latency.parse(str(document.get("latency", "0"))), **rates)


PRESETS = {
    "launch": Scenario(stt=Stage(Latency(80, 80)), llm=Stage(Latency(150, 150)), tts=Stage(Latency(80, 80))),
    "stock": Scenario(
        stt=Stage(Latency(150, 150)), llm=Stage(Latency(150, 150)), tts=Stage(Latency(100, 100))
    ),
    "zero": Scenario(token_ms=0.0, speech_rate=1000.0),
    "spread": Scenario(
        stt=Stage(Latency(80, 250)), llm=Stage(Latency(150, 600)), tts=Stage(Latency(80, 300))
    ),
    "faulty": Scenario(
        stt=Stage(Latency(80, 250), error=0.01, hang=0.005, reset=0.01, garbage=0.005),
        llm=Stage(Latency(150, 600), error=0.01, hang=0.005, reset=0.01, garbage=0.005),
        tts=Stage(Latency(80, 300), error=0.01, hang=0.005, reset=0.01, garbage=0.005),
    ),
}
"""Scenarios by name: the launch gate's, the one that the stock pipeline was first measured with, and others."""
