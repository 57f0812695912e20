"""What a benchmark measured: rows, the arithmetic on samples, the table and the files.

Rows are better when they are lower, except those that only describe what was run. ``ratio`` is peer / value: how many times better than what was measured beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure."""

    name: str
    value: float
    unit: str
    peer: float | None = None
    """The same figure of the thing compared with, measured in the same run."""
    design: str = ""
    """The design's figure for it, as it stands there."""
    bar: float | None = None
    """What the value must not exceed."""
    worst: bool = False
    """Over several rounds the higher value counts: the worst case of all of them."""

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer."""
        return None if self.peer is None or self.value == 0 else self.peer / self.value

    @property
    def within_bar(self) -> bool | None:
        """Whether the bar is kept; None without one."""
        return None if self.bar is None else self.value <= self.bar


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least ``percent`` of all do not exceed (nearest rank)."""
    if not samples:
        raise ValueError("no samples")
    if not 0 < percent <= 100:
        raise ValueError(f"{percent} is not above 0 and up to 100")
    return sorted(samples)[math.ceil(percent * len(samples) / 100) - 1]


def histogram_percentile(buckets: Mapping[float, int], percent: float) -> float:
    """The upper bound of the bucket in which the percentile falls; bounds may end in infinity."""
    total = sum(buckets.values())
    if total == 0:
        raise ValueError("no samples")
    rank = math.ceil(percent * total / 100)
    passed = 0
    for bound in sorted(buckets):
        passed += buckets[bound]
        if passed >= rank:
            return bound
    raise ValueError(f"{percent} is not up to 100")


def spacing_errors_ms(
    arrivals_us: Sequence[float], sequences: Sequence[int], packet_ms: float
) -> list[float]:
    """How far the distance of packets that follow one another is from the packet time. A lost packet breaks the chain."""
    return [
        abs(arrivals_us[at + 1] - arrivals_us[at] - packet_ms * 1000) / 1000
        for at in range(len(arrivals_us) - 1)
        if (sequences[at + 1] - sequences[at]) & 0xFFFF == 1
    ]


def better(rounds: Sequence[Sequence[Row]]) -> list[Row]:
    """The lower value of each row over several rounds (of a worst case the higher), in the order of the first."""
    best: dict[str, Row] = {}
    for row in (row for measured in rounds for row in measured):
        kept = best.get(row.name)
        if kept is None or (row.value > kept.value if row.worst else row.value < kept.value):
            best[row.name] = row
    return list(best.values())


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value != 0 and abs(value) < 0.1:
        return f"{value:.3f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def table(rows: Iterable[Row]) -> str:
    """The rows for people."""
    lines = [("measurement", "value", "unit", "peer", "ratio", "bar", "design")]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}x"
        bar = "" if row.bar is None else f"{row.bar:g} {'kept' if row.within_bar else 'MISSED'}"
        lines.append((row.name, _number(row.value), row.unit, _number(row.peer), ratio, bar, row.design))
    widths = [max(len(line[column]) for line in lines) for column in range(7)]
    right_aligned = {1, 3, 4}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right_aligned else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def document(rows: Iterable[Row]) -> dict[str, dict[str, float | str | None]]:
    """The rows as they are kept: ``{name: {value, unit, peer, ratio}}``, with bar and design where there are any."""
    kept: dict[str, dict[str, float | str | None]] = {}
    for row in rows:
        entry: dict[str, float | str | None] = {
            "value": round(row.value, 4),
            "unit": row.unit,
            "peer": None if row.peer is None else round(row.peer, 4),
            "ratio": None if row.ratio is None else round(row.ratio, 3),
        }
        if row.bar is not None:
            entry["bar"] = row.bar
        if row.design:
            entry["design"] = row.design
        kept[row.name] = entry
    return kept


def write(rows: Sequence[Row], directory: Path, day: date) -> tuple[Path, Path]:
    """Write the newest results and their dated copy."""
    directory.mkdir(parents=True, exist_ok=True)
    text = orjson.dumps(document(rows), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    paths = directory / "bench.json", directory / f"{day.isoformat()}-bench.json"
    for path in paths:
        path.write_bytes(text)
    return paths
