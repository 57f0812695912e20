"""The arithmetic of the benchmarks."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf.results import (
    Row,
    better,
    document,
    histogram_percentile,
    percentile,
    spacing_errors_ms,
    table,
    write,
)

SAMPLES = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


def test_percentiles_by_nearest_rank() -> None:
    samples = [15.0, 20.0, 35.0, 40.0, 50.0]
    assert [percentile(samples, p) for p in (5, 30, 40, 50, 100)] == [15, 20, 20, 35, 50]


@given(SAMPLES, st.integers(1, 100))
def test_a_percentile_is_a_sample_that_so_many_do_not_exceed(samples: list[float], percent: int) -> None:
    found = percentile(samples, percent)
    assert found in samples
    assert sum(sample <= found for sample in samples) * 100 >= percent * len(samples)
    assert sum(sample < found for sample in samples) * 100 < percent * len(samples)


@pytest.mark.parametrize("percent", [0, 100.5, -1])
def test_a_percentile_out_of_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="not above 0"):
        percentile([1.0], percent)
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_a_histogram_gives_upper_bounds() -> None:
    buckets = {250.0: 98, 1000.0: 1, float("inf"): 1}
    assert [histogram_percentile(buckets, p) for p in (50, 98, 99, 100)] == [250, 250, 1000, float("inf")]
    with pytest.raises(ValueError, match="no samples"):
        histogram_percentile({250.0: 0}, 50)


def test_spacing_counts_only_packets_that_follow_one_another() -> None:
    arrivals_us = [0.0, 20_500.0, 39_000.0, 100_000.0, 120_000.0]
    sequences = [65_534, 65_535, 0, 3, 4]
    assert spacing_errors_ms(arrivals_us, sequences, 20) == [0.5, 1.5, 0.0]


def test_of_several_rounds_the_better_value_is_kept_in_order() -> None:
    first = [Row("a", 2.0, "ms"), Row("b", 1.0, "ms", peer=4.0)]
    second = [Row("a", 1.5, "ms"), Row("b", 3.0, "ms", peer=9.0)]
    assert better([first, second]) == [second[0], first[1]]


def test_of_several_rounds_a_worst_case_is_the_worst_of_all() -> None:
    rounds = [[Row("a", 2.0, "ms", worst=True)], [Row("a", 3.0, "ms", worst=True)]]
    assert better(rounds) == rounds[1]


def test_the_ratio_says_how_many_times_better_than_the_peer() -> None:
    assert Row("a", 20.0, "us", peer=120.0).ratio == 6.0
    assert Row("a", 0.0, "us", peer=120.0).ratio is None
    assert Row("a", 20.0, "us").ratio is None


def test_the_table_says_which_bar_was_missed() -> None:
    lines = table(
        [Row("one", 59.9, "ms", bar=60), Row("two", 60.1, "ms", bar=60), Row("three", 1, "ms")]
    ).splitlines()
    assert [("kept" in line, "MISSED" in line) for line in lines[1:]] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_results_are_written_twice_in_one_shape(tmp_path: Path) -> None:
    rows = [Row("vad", 20.0, "us", peer=120.0, design="13"), Row("turn", 41.0, "ms", bar=60)]
    newest, dated = write(rows, tmp_path / "results", date(2026, 1, 31))
    assert (newest.name, dated.name) == ("bench.json", "2026-01-31-bench.json")
    assert newest.read_bytes() == dated.read_bytes()
    assert (
        orjson.loads(newest.read_bytes())
        == document(rows)
        == {
            "vad": {"value": 20.0, "unit": "us", "peer": 120.0, "ratio": 6.0, "design": "13"},
            "turn": {"value": 41.0, "unit": "ms", "peer": None, "ratio": None, "bar": 60},
        }
    )
