"""Every trace replays to itself. ``python -m tests.turns.test_traces`` writes what the core does into them, for review."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.turns.replay import replay

TRACES = sorted((Path(__file__).parent.parent / "traces" / "turns").glob("*.txt"))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_the_core_does_what_the_trace_says(path: Path) -> None:
    trace = path.read_text()
    assert replay(trace) == trace


if __name__ == "__main__":
    for each in TRACES:
        each.write_text(replay(each.read_text()))
