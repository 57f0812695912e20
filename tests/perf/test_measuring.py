"""What the benchmarks read: printed stages, counters, /proc, the line's codes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from perf.audio import FRAME, SILENCE, audible, encode, packet
from perf.bench_engine import parse_stages
from perf.cpu import stat_cpu_s, thread_cpu_s
from perf.load import lateness_us

PRINTED = """\
100 streams of 30 s; 5566 events; CPU-us per call-second:
  jitter buffer, decode        15.9
  resample 8 to 16 kHz        128.3
  together                    617.0
  93700 windows, of which 21840 were too quiet for the model
"""


def test_stages_are_read_as_the_benchmark_prints_them() -> None:
    assert parse_stages(PRINTED) == {
        "jitter buffer, decode": 15.9,
        "resample 8 to 16 kHz": 128.3,
        "together": 617.0,
    }


def test_lateness_is_what_was_added_between_two_readings() -> None:
    before = {"ticks": 9, "tick_lateness_max_us": 70, "tick_lateness_le_250_us": 8, "tick_lateness_more": 1}
    after = {"ticks": 20, "tick_lateness_max_us": 99, "tick_lateness_le_250_us": 18, "tick_lateness_more": 2}
    assert lateness_us(before, after) == {250.0: 10, float("inf"): 1}


def test_a_thread_name_may_look_like_fields() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    stat = f"7 (a) R (b c) S 1 2 3 4 5 6 7 8 9 10 {3 * ticks} {ticks} 0 0 20 0 1"
    assert stat_cpu_s(stat) == 4.0


def test_cpu_time_of_threads_by_name() -> None:
    assert thread_cpu_s("no such thread") == 0.0
    assert thread_cpu_s(Path("/proc/self/comm").read_text().strip()) > 0.0


def test_the_line_carries_g711() -> None:
    # G.711 table 2a: the ends of the first and the last segment, and zero.
    samples = np.array([0, 32_124, -32_124, 132, -132], dtype=np.int16)
    assert encode(samples)[1:3] == bytes([0x80, 0x00])
    assert encode(samples)[0] in (0xFF, 0x7F)
    assert len(SILENCE) == FRAME
    assert not audible(SILENCE)
    assert not audible(b"\x7f\xff\x7e" * 10)
    assert audible(SILENCE[1:] + encode(np.array([1000], dtype=np.int16)))


def test_a_packet_is_rtp() -> None:
    datagram = packet(65_537, (1 << 32) + 5, 7, b"xy")
    assert datagram == bytes([0x80, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 7]) + b"xy"
