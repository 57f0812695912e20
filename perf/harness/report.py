"""A run for people and for programs: the table, the document, the files. `README.md` beside this names the keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import orjson

from perf.harness.figures import Figures, Spread
from perf.harness.gate import Judged
from perf.harness.plot import svg

Row = tuple[str, ...]


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _of(spread: Spread, *names: str) -> str:
    return " / ".join(_ms(getattr(spread, name)) for name in names)


COLUMNS: Mapping[str, Callable[[Figures], str]] = {
    "server": lambda step: step.server,
    "shape": lambda step: step.shape,
    "calls": lambda step: str(step.calls),
    "placed": lambda step: str(step.placed),
    "failed": lambda step: str(step.failed),
    "turns": lambda step: str(step.turns),
    "call-seconds per turn": lambda step: _ms(step.call_s_per_turn),
    "unanswered": lambda step: str(step.turns_unanswered),
    "latency p50/p95/p99/p99.9": lambda step: _of(step.latency_ms, "p50", "p95", "p99", "p99_9"),
    "less the fixed wait p50/p99": lambda step: (
        "-" if step.latency_less_wait_ms is None else _of(step.latency_less_wait_ms, "p50", "p99")
    ),
    "false ends %": lambda step: f"{step.false_ends_percent:.1f}",
    "greeting p50/p99": lambda step: _of(step.greeting_ms, "p50", "p99"),
    "set-up p50/p99": lambda step: _of(step.setup_ms, "p50", "p99"),
    "spacing error p50/p99/p99.9/max": lambda step: _of(step.spacing_error_ms, "p50", "p99", "p99_9", "max"),
    "lost %": lambda step: f"{step.packets_lost_percent:.2f}",
    "CPU-ms/call-s": lambda step: f"{step.cpu_ms_whole:.2f}",
    "of it": lambda step: ", ".join(f"{name} {spent:.2f}" for name, spent in step.cpu_ms.items()),
    "waited for a processor": lambda step: f"{step.waited_ms:.2f}",
    "providers late p50/p99": lambda step: _of(step.providers_late_ms, "p50", "p99"),
    "MB": lambda step: f"{step.memory_mb:.0f}",
    "MB/call": lambda step: "-" if step.memory_mb_per_call is None else f"{step.memory_mb_per_call:.2f}",
    "callers late p99/max": lambda step: _of(step.generator_late_ms, "p99", "max"),
    "callers, providers CPU-ms": lambda step: f"{step.generator_cpu_ms:.2f}, {step.providers_cpu_ms:.2f}",
}


def table(steps: Sequence[Figures]) -> str:
    """A column for each step; times are milliseconds."""
    lines: list[Row] = [(name, *(of(step) for step in steps)) for name, of in COLUMNS.items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(steps) + 1)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def gate_table(judged: Sequence[Judged]) -> str:
    """What was asked and what was kept."""
    width = max(len(bar.name) for bar in judged)
    return "\n".join(
        f"{bar.name.ljust(width)}  {_ms(bar.value):>8} of {bar.most:g} {bar.unit}  {'kept' if bar.kept else 'MISSED'}"
        for bar in judged
    )


def ratios(ours: Sequence[Figures], stock: Sequence[Figures]) -> dict[str, float]:
    """How many times better than the stock pipeline: its best step of each figure over our step with the most calls."""
    pairs: dict[str, Callable[[Figures], float | None]] = {
        "cpu_ms_whole": lambda step: step.cpu_ms_whole,
        "latency_p50_ms": lambda step: step.latency_ms.p50,
        "memory_mb_per_call": lambda step: step.memory_mb_per_call,
    }
    most = max(ours, key=lambda step: step.calls, default=None)
    found = {}
    for name, of in pairs.items():
        mine = of(most) if most is not None else None
        theirs = [value for step in stock if (value := of(step))]
        if mine and theirs:
            found[name] = round(min(theirs) / mine, 3)
    return found


def document(
    steps: Sequence[Figures],
    *,
    conditions: Mapping[str, Any],
    knee: int | None = None,
    judged: Sequence[Judged] = (),
    ratio: Mapping[str, float] | None = None,
    soak: Mapping[str, float] | None = None,
    losses: Mapping[str, float | None] | None = None,
    providers: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Everything that was measured and what it depends on."""
    return {
        "conditions": dict(conditions),
        "steps": [step.document() for step in steps],
        "knee": knee,
        "ratio_to_stock": dict(ratio or {}),
        "soak": dict(soak or {}),
        "losses": dict(losses or {}),
        "providers": dict(providers or {}),
        "gate": [
            {"name": bar.name, "value": bar.value, "most": bar.most, "unit": bar.unit, "kept": bar.kept}
            for bar in judged
        ],
    }


def write(found: Mapping[str, Any], steps: Sequence[Figures], directory: Path, day: date) -> list[Path]:
    """The dated result and its plot."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = directory / f"{day.isoformat()}-harness"
    text, plot = stem.with_suffix(".json"), stem.with_suffix(".svg")
    text.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    plot.write_text(svg(steps))
    return [text, plot]
