"""``make bench``: what a call costs and how fast it answers, as one table and in ``perf/results/``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mediaserver.softphone.speech import Utterance
from perf import (
    bench_calls,
    bench_engine,
    bench_load,
    bench_parts,
    bench_routing,
    bench_stores,
    bench_webrtc,
)
from perf.audio import questions
from perf.results import Row, better, table, write

RESULTS = Path(__file__).parent / "results"

Measurement = Callable[[tuple[Utterance, ...]], list[Row]]

MEASUREMENTS: dict[str, Measurement] = {
    "leg": lambda _: bench_engine.leg(),
    "load": bench_load.five_hundred,
    "interpreter": bench_load.held_interpreter,
    "detector": bench_engine.detector,
    "crossing": lambda _: bench_engine.crossing(),
    "codecs": lambda _: bench_parts.codecs(),
    "srtp": lambda _: bench_parts.srtp(),
    "buffers": lambda _: bench_parts.jitter_buffers(),
    "webrtc": bench_webrtc.measure,
    "calls": bench_calls.measure,
}
LONG: dict[str, Measurement] = {
    "ladder": bench_load.ladder,
    "stores": lambda _: bench_stores.measure(),
    "routing": lambda _: bench_routing.measure(),
}
"""``make perf`` alone."""


def conditions(load_before: float, rounds: int, took_s: float) -> list[Row]:
    """What the figures depend on."""
    return [
        Row("condition: cores", os.cpu_count() or 1, "cores"),
        Row("condition: Python", float(".".join(platform.python_version_tuple()[:2])), "version"),
        Row("condition: load average before", load_before, "processes"),
        Row("condition: load average after", os.getloadavg()[0], "processes"),
        Row("condition: rounds, the better of which each row shows", rounds, "rounds"),
        Row("condition: benchmark took", took_s, "s"),
    ]


def one_round(which: dict[str, Measurement]) -> list[Row]:
    """Every measurement once, one after the other."""
    utterances = questions()
    measured: list[Row] = []
    for name, measure in which.items():
        load, began = os.getloadavg()[0], time.monotonic()
        measured += measure(utterances)
        took_s = time.monotonic() - began
        print(
            f"measured: {name}, {took_s:.0f} s, load average {load:.1f} before", file=sys.stderr, flush=True
        )
    return measured


def main() -> int:
    """Measure, print, write."""
    everything = MEASUREMENTS | LONG
    parser = argparse.ArgumentParser(prog="python -m perf.bench", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=1, help="measure so often and keep the better of each row"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    parser.add_argument("--long", action="store_true", help="the long measurements too (make perf)")
    parser.add_argument(
        "--only", nargs="+", choices=everything, help="these measurements; printed, not written to a file"
    )
    options = parser.parse_args()
    which = everything if options.long else MEASUREMENTS
    if options.only:
        which = {name: everything[name] for name in options.only}
    load_before, began = os.getloadavg()[0], time.monotonic()
    rows = better([one_round(which) for _ in range(options.rounds)])
    rows += conditions(load_before, options.rounds, time.monotonic() - began)
    print(table(rows))
    if options.only:
        return 0
    for path in write(rows, options.results, datetime.now(UTC).date()):
        print(f"written: {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
