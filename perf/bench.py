"""``make bench``: what a call costs and how fast it answers, as one table and in ``perf/results/``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from perf import bench_calls, bench_engine
from perf.audio import questions
from perf.results import Row, better, table, write

RESULTS = Path(__file__).parent / "results"


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


def one_round() -> list[Row]:
    """Every measurement once, one after the other."""
    utterances = questions()
    measured: list[Row] = []
    for what, measure in (
        ("the leg's stages in Rust", bench_engine.stages),
        ("a hundred legs on sockets", lambda: bench_engine.on_the_wire(utterances)),
        ("the detector and onnxruntime", lambda: bench_engine.detector(utterances)),
        ("events into Python", bench_engine.crossing),
        ("whole calls", lambda: bench_calls.measure(utterances)),
    ):
        print(f"measuring {what} ...", file=sys.stderr, flush=True)
        measured += measure()
    return measured


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m perf.bench", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=1, help="measure so often and keep the better of each row"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    options = parser.parse_args()
    load_before, began = os.getloadavg()[0], time.monotonic()
    rows = better([one_round() for _ in range(options.rounds)])
    rows += conditions(load_before, options.rounds, time.monotonic() - began)
    print(table(rows))
    for path in write(rows, options.results, datetime.now(UTC).date()):
        print(f"written: {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
