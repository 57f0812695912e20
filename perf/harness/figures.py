"""From what the callers heard and the processes spent to the figures of one step. Sans-IO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from perf.harness.generator import Heard
from perf.results import percentile

PERCENTS = (50.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of samples in milliseconds; None without samples."""

    samples: int
    p50: float | None
    p95: float | None
    p99: float | None
    p99_9: float | None
    max: float | None

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Spread:
        """The spread of samples."""
        if not samples_ms:
            return cls(0, None, None, None, None, None)
        p50, p95, p99, p99_9 = (round(percentile(samples_ms, percent), 3) for percent in PERCENTS)
        return cls(len(samples_ms), p50, p95, p99, p99_9, round(max(samples_ms), 3))

    @classmethod
    def reported(cls, spread: Mapping[str, Any]) -> Spread:
        """The spread of the generator's histogram."""
        names = ("samples", "p50_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms")
        samples, p50, p95, p99, p99_9, largest = (spread[name] for name in names)
        return cls(samples, p50, p95, p99, p99_9, largest)


@dataclass(frozen=True, slots=True)
class Spent:
    """What processes used while the time that counts ran."""

    cpu_s: Mapping[str, float]
    """By ``process.stage``, the server's."""
    waited_s: float
    """The server's threads for a processor."""
    generator_s: float
    providers_s: float
    pss_before_mb: float
    """The server's memory before the first call of the step."""
    pss_mb: float
    """At the end."""
    providers_late_ms: Spread
    """What the providers' answers came later than the scenario says."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One step: so many calls at a time for so long."""

    server: str
    shape: str
    """``ramp``, ``knee``, ``soak`` or ``burst``."""
    calls: int
    lasted_s: float
    call_s: float
    placed: int
    failed: int
    outcomes: Mapping[str, int]
    turns: int
    call_s_per_turn: float | None
    turns_unanswered: int
    latency_ms: Spread
    """Last packet with the caller's speech to first packet with the answer's; barge-ins and false ends left out."""
    latency_paused_ms: Spread
    """The same of the sentences with a pause in them alone."""
    latency_less_wait_ms: Spread | None
    """The same of all, less the fixed wait for the end of a turn, where there is one."""
    false_ends_percent: float
    """Turns into which an answer began too early."""
    false_ends_by_utterance: Mapping[str, str]
    """``false/all`` of the sentences that had any."""
    silenced_ms: Spread
    """Barge-ins: first packet of speech to last of the answer's."""
    setup_ms: Spread
    """INVITE to 200."""
    greeting_ms: Spread
    """ACK to first packet with speech."""
    spacing_error_ms: Spread
    """Distance of the server's audible packets from 20 ms."""
    packets_lost_percent: float
    generator_late_ms: Spread
    """How late the callers' own packets left."""
    cpu_ms: Mapping[str, float]
    """Per second of call, by ``process.stage``."""
    waited_ms: float
    """Per second of call: how long the server's threads waited for a processor. With much of it the machine was shared."""
    providers_late_ms: Spread
    """What the providers' answers came later than the scenario says: it is in the latency and not the server's."""
    generator_cpu_ms: float
    providers_cpu_ms: float
    memory_mb: float
    memory_mb_per_call: float | None

    @property
    def cpu_ms_whole(self) -> float:
        """The server's CPU-ms per second of call, all of it."""
        return sum(self.cpu_ms.values())

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "cpu_ms_whole": round(self.cpu_ms_whole, 4)}


def figures(
    heard: Heard,
    spent: Spent | None,
    *,
    server: str,
    shape: str,
    calls: int,
    paused: frozenset[str],
    wait_ms: float | None = None,
) -> Figures:
    """Work a step's figures out.

    ``paused``: the names of the sentences with a pause. ``wait_ms``: the server's fixed wait for the end of a turn.
    """
    turns = heard.measured_turns
    plain = [turn for turn in turns if not turn["barge_in"]]
    answered = [turn for turn in plain if turn["latency_ms"] is not None and not turn["false_ends"]]
    outcomes = Counter(
        f"{call['outcome']} {call['status']}" if call["outcome"] == "refused" else call["outcome"]
        for call in heard.calls
    )
    false_ends = Counter(turn["utterance"] for turn in plain if turn["false_ends"])
    of_each = Counter(turn["utterance"] for turn in plain)
    received = sum(call["received"] for call in heard.calls)
    lost = sum(call["lost"] for call in heard.calls)
    call_s = max(heard.call_s, 1e-9)
    cpu_s = spent.cpu_s if spent else {}
    return Figures(
        server=server,
        shape=shape,
        calls=calls,
        lasted_s=round(heard.lasted_s, 3),
        call_s=round(heard.call_s, 3),
        placed=len(heard.calls),
        failed=len(heard.calls) - outcomes["completed"],
        outcomes=dict(outcomes),
        turns=len(turns),
        call_s_per_turn=round(heard.call_s / len(turns), 3) if turns else None,
        turns_unanswered=sum(turn["latency_ms"] is None and not turn["talked_over"] for turn in turns),
        latency_ms=Spread.of([turn["latency_ms"] for turn in answered]),
        latency_less_wait_ms=None
        if wait_ms is None
        else Spread.of([turn["latency_ms"] - wait_ms for turn in answered]),
        latency_paused_ms=Spread.of([turn["latency_ms"] for turn in answered if turn["utterance"] in paused]),
        false_ends_percent=round(100 * sum(false_ends.values()) / max(1, len(plain)), 3),
        false_ends_by_utterance={
            name: f"{count}/{of_each[name]}" for name, count in sorted(false_ends.items())
        },
        silenced_ms=Spread.of([turn["silenced_ms"] for turn in turns if turn["silenced_ms"] is not None]),
        setup_ms=Spread.of(_present(heard, "setup_ms")),
        greeting_ms=Spread.of(_present(heard, "greeting_ms")),
        spacing_error_ms=Spread.reported(heard.summary["spacing"]),
        packets_lost_percent=round(100 * lost / max(1, received + lost), 4),
        generator_late_ms=Spread.reported(heard.summary["lateness"]),
        cpu_ms={name: round(seconds * 1000 / call_s, 4) for name, seconds in sorted(cpu_s.items())},
        waited_ms=round(spent.waited_s * 1000 / call_s, 4) if spent else 0.0,
        providers_late_ms=spent.providers_late_ms if spent else Spread.of([]),
        generator_cpu_ms=round(spent.generator_s * 1000 / call_s, 4) if spent else 0.0,
        providers_cpu_ms=round(spent.providers_s * 1000 / call_s, 4) if spent else 0.0,
        memory_mb=round(spent.pss_mb, 2) if spent else 0.0,
        memory_mb_per_call=round((spent.pss_mb - spent.pss_before_mb) / calls, 3) if spent else None,
    )


def _present(heard: Heard, name: str) -> list[float]:
    return [call[name] for call in heard.calls if call[name] is not None]
