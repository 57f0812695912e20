"""What the Rust benchmarks print is read as they print it, and the parts' figures stand beside the right ones."""

from __future__ import annotations

import pytest

from perf.bench_parts import (
    AIORTC_MS,
    NETEQ,
    Buffered,
    of_the_network,
    parse_buffers,
    parse_codecs,
    parse_profiles,
)
from perf.examples import ROOT
from perf.impairment import read_trace

CODECS = """\
CPU-ms per call-second

| codec | encode | decode | conceal |
| --- | --- | --- | --- |
| PCMU | 0.003 | 0.004 | 0.330 |
| opus | 1.420 | 0.710 | 1.110 |
| CN | 0.070 | 0.090 | |

| Opus | input | kbit/s asked | complexity | kbit/s | encode | decode | spectral distance |
| low delay | 24000 | 32 | 0 | 32.1 | 0.80 | 0.40 | 5.10 dB |
"""
PROFILES = """\
profile                    protect   unprotect   both directions
AEAD_AES_128_GCM            320 ns      381 ns   0.0350 CPU-ms per call-second
AES_CM_128_HMAC_SHA1_80     470 ns      482 ns   0.0476 CPU-ms per call-second
"""
BUFFERS = """\
delay ms / concealed %, 60 s; bridging: mean (worst) over 20 phases of the clock
trace    | listening    | bridging, worst, scaled %     | NetEQ        | fixed 60   | aiortc
lan      |   0.8 / 0.00 |  22.9 / 0.00 ( 30.1 / 0.00) 0.3 |    32 / 0.43 |  60 /    0 |   81
wifi     |   8.3 / 0.83 | 113.6 / 1.01 (120.0 / 1.20) 2.1 |   139 / 1.39 |  60 /  2.9 |  274
spikes   |   9.9 / 0.10 | 100.0 / 0.20 (101.0 / 0.30) 1.0 |
CPU-us per call-second: listening 2.0, bridging with G.711 200.0
"""


def test_codecs() -> None:
    assert parse_codecs(CODECS) == {
        "PCMU": {"encode": 0.003, "decode": 0.004, "conceal": 0.33},
        "opus": {"encode": 1.42, "decode": 0.71, "conceal": 1.11},
        "CN": {"encode": 0.07, "decode": 0.09},
    }


def test_profiles() -> None:
    assert parse_profiles(PROFILES) == {"AEAD_AES_128_GCM": 0.035, "AES_CM_128_HMAC_SHA1_80": 0.0476}


def test_buffers() -> None:
    assert parse_buffers(BUFFERS) == {
        "lan": (Buffered(0.8, 0.0), Buffered(22.9, 0.0)),
        "wifi": (Buffered(8.3, 0.83), Buffered(113.6, 1.01)),
        "spikes": (Buffered(9.9, 0.1), Buffered(100.0, 0.2)),
    }


def test_what_is_printed_otherwise_is_not_read() -> None:
    assert not parse_codecs(PROFILES)
    assert not parse_profiles(BUFFERS)
    assert not parse_buffers(CODECS)


@pytest.mark.parametrize(
    ("name", "delay_ms", "loss_percent"),
    [("lan", 0.8, 0), ("wifi", 8.3, 0.83), ("lte", 29.0, 1.53), ("step", 22.5, 0), ("ge5", 4.9, 5.63)],
)
def test_the_networks_own_delay_and_loss(name: str, delay_ms: float, loss_percent: float) -> None:
    own = of_the_network(read_trace(ROOT / "tests" / "traces_network" / f"{name}.txt"))
    assert own.delay_ms == pytest.approx(delay_ms, abs=0.05)
    assert own.concealed_percent == pytest.approx(loss_percent, abs=0.005)


def test_the_peers_figures_are_those_of_the_traces() -> None:
    table = (ROOT / "tests" / "traces_network" / "README.md").read_text()
    for trace, (delay_ms, concealed) in NETEQ.items():
        row = next(line for line in table.splitlines() if line.startswith(f"| {trace} |"))
        cells = [cell.strip() for cell in row.split("|")]
        assert cells[2] == f"{delay_ms} / {concealed}"
        assert cells[4].split(",")[0] == str(AIORTC_MS[trace])
