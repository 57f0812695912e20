"""What the benchmarks read: printed stages, counters, /proc, the line's codes."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import numpy as np

from mediaserver.softphone.speech import Utterance
from perf.audio import _TABLE, FRAME, SILENCE, audible, encode, packet
from perf.bench_engine import parse_stages
from perf.cpu import process_cpu_s, stat_cpu_s, thread_cpu_s, thread_kernel_s
from perf.interpreter_holder import hold, in_a_thread
from perf.load import Carried, conversation, lateness_us

prctl = ctypes.CDLL(None).prctl
PR_SET_NAME = 15

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


def test_numbered_threads_count_and_their_likes_do_not() -> None:
    stop = threading.Event()
    names = {"perf-0", "perf-12", "perf-x", "perfect"}

    def spin() -> None:
        prctl(PR_SET_NAME, threading.current_thread().name.encode(), 0, 0, 0)
        sum(range(300_000))
        ready.wait()
        stop.wait()

    ready = threading.Barrier(len(names) + 1)
    threads = [threading.Thread(target=spin, name=name) for name in names]
    for thread in threads:
        thread.start()
    ready.wait()
    # In this order: they still use a little as they come to wait, and what is read later has it.
    apart = [thread_cpu_s(name) for name in ("perf-0", "perf-12")]
    together = thread_cpu_s("perf")
    stop.set()
    for thread in threads:
        thread.join()
    assert min(apart) > 0
    assert together >= sum(apart)
    assert 0 <= thread_kernel_s("perf-x") <= thread_cpu_s("perf-x") + 0.02


def test_another_process_s_cpu_time() -> None:
    assert process_cpu_s(os.getpid()) > 0


def test_a_conversation_is_half_silence() -> None:
    utterance = Utterance(None, (np.sin(np.arange(24_000) / 5) * 9000).astype("<i2").tobytes())
    codes = conversation((utterance, utterance))
    payloads = [codes[at : at + FRAME] for at in range(0, len(codes), FRAME)]
    levels = [int(np.abs(_TABLE[np.frombuffer(payload, np.uint8)]).max()) for payload in payloads]
    assert len(codes) % FRAME == 0
    assert sum(level > 1000 for level in levels) == len(levels) / 2
    assert max(levels[len(levels) // 2 :]) <= 60


def test_costs_are_per_call_second() -> None:
    figures = Carried(
        calls=500,
        lasted_s=10.0,
        media_s=4.0,
        kernel_s=1.0,
        python_s=0.25,
        events=20_000,
        packets_per_call_second=50.0,
        late_us={250.0: 990, 5000.0: 8, float("inf"): 2},
        windows=100,
        quiet_windows=40,
        realtime=True,
        generator={"late_bounds_us": [250, 5000, 20000], "late": [70, 20, 8, 2]},
    )
    assert (figures.media_ms, figures.kernel_ms, figures.python_ms) == (0.8, 0.2, 0.05)
    assert (figures.late_ms(50), figures.late_ms(99.5)) == (0.25, 5.0)
    assert figures.late_percent(250) == 1.0
    assert figures.late_percent(5000) == 0.2
    assert figures.callers_late_percent == 10.0


def test_the_interpreter_is_held_as_long_as_was_asked_for() -> None:
    with in_a_thread(0.5) as shares:
        pass
    assert len(shares) == 1
    assert hold(0.5, threading.Event(), seconds=0.0) == 0.0
