"""The media engine's parts by themselves: codecs, SRTP, and both jitter buffers on recorded networks.

What they cost comes from the Rust benchmarks (``native/*/examples``); this module reads what they print.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from importlib.util import find_spec

from perf.examples import ROOT, run_example
from perf.impairment import Trace, read_trace
from perf.results import Row

PER_SECOND = "CPU-ms per call-second"
PACKETS_PER_SECOND = 50

CODEC = re.compile(
    r"^\| (?P<name>[\w.]+) \| (?P<encode>[0-9.]+) \| (?P<decode>[0-9.]+) \| (?P<conceal>[0-9.]*) ?\|$"
)
PROFILE = re.compile(r"^(?P<name>A\w+) .* (?P<cpu_ms>[0-9.]+) CPU-ms per call-second$")
_PAIR = r"{0}_delay>[0-9.]+) */ *(?P<{0}_loss>[0-9.]+)"
BUFFERS = re.compile(
    rf"^(?P<trace>\w+) +\| +(?P<{_PAIR.format('listening')} \| +(?P<{_PAIR.format('bridging')} "
    r"\((?P<worst>[^)]*)\) +(?P<scaled>[0-9.]+) \|"
)
BUFFER_COSTS = re.compile(r"listening (?P<listening>[0-9.]+), bridging with G.711 (?P<bridging>[0-9.]+)")

NETEQ = {"lan": (32, 0.43), "wifi": (139, 1.39), "lte": (184, 2.13), "step": (58, 0.33), "ge5": (62, 5.66)}
"""libwebrtc: mean delay in ms above the network's least, and what was concealed in percent (traces_network/README.md)."""
AIORTC_MS = {"lan": 81, "wifi": 274, "lte": 280, "step": 103, "ge5": 246}
"""aiortc 1.16, from the same table."""
LISTENING_EXCESS_MS = 1.0
ROUNDING = 0.005
"""What the Rust benchmark prints has two decimals."""

SRTP_PACKETS = 4000
SRTP_ROUNDS = 7
SRTP_PACKET = 172


# -- codecs --------------------------------------------------------------------------------------------------


def parse_codecs(printed: str) -> dict[str, dict[str, float]]:
    """CPU-ms per call-second by codec and by what it does."""
    return {
        match["name"]: {what: float(match[what]) for what in ("encode", "decode", "conceal") if match[what]}
        for match in map(CODEC.match, printed.splitlines())
        if match
    }


def codecs() -> list[Row]:
    """Every codec both ways, and what concealing a second would cost."""
    found = parse_codecs(run_example("codec", "bench_codecs", "--no-settings"))
    if not found:
        raise ValueError("bench_codecs printed no codec")
    return [
        Row(f"codec {name}: {what}", cost, PER_SECOND)
        for name, costs in found.items()
        for what, cost in costs.items()
    ]


# -- SRTP ----------------------------------------------------------------------------------------------------


def parse_profiles(printed: str) -> dict[str, float]:
    """CPU-ms per call-second, both ways, by protection profile."""
    return {
        match["name"]: float(match["cpu_ms"]) for match in map(PROFILE.match, printed.splitlines()) if match
    }


def srtp() -> list[Row]:
    """Every profile both ways; the peer is libsrtp as aiortc calls it, where it is installed."""
    found = parse_profiles(run_example("rtp", "bench_srtp"))
    if not found:
        raise ValueError("bench_srtp printed no profile")
    return [
        Row(f"SRTP {name}, both ways (peer: pylibsrtp)", cost, PER_SECOND, peer=_by_libsrtp(name))
        for name, cost in found.items()
    ]


def _by_libsrtp(profile: str) -> float | None:
    """CPU-ms per call-second to protect and unprotect; None without libsrtp, or if it has no such profile."""
    if find_spec("pylibsrtp") is None:
        return None
    from pylibsrtp import Policy, Session  # as optional as aiortc is

    profiles = {
        "AES_CM_128_HMAC_SHA1_80": (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
        "AES_CM_128_HMAC_SHA1_32": (Policy.SRTP_PROFILE_AES128_CM_SHA1_32, 30),
        "AEAD_AES_128_GCM": (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
    }
    if profile not in profiles:
        return None
    number, key_octets = profiles[profile]
    spent_s = []
    for _ in range(SRTP_ROUNDS):
        key = bytes([7]) * key_octets
        sender = Session(Policy(key, Policy.SSRC_ANY_OUTBOUND, 0, number))
        receiver = Session(Policy(key, Policy.SSRC_ANY_INBOUND, 0, number))
        plain = [
            b"\x80\x00" + index.to_bytes(2, "big") + bytes(4) + b"\0\0\0\1" + b"\x55" * (SRTP_PACKET - 12)
            for index in range(SRTP_PACKETS)
        ]
        began = time.thread_time()
        for packet in plain:
            receiver.unprotect(sender.protect(packet))
        spent_s.append(time.thread_time() - began)
    return min(spent_s) / SRTP_PACKETS * PACKETS_PER_SECOND * 1000


# -- jitter buffers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Buffered:
    """Mean delay in ms above the network's least, and what was made up in percent."""

    delay_ms: float
    concealed_percent: float


def parse_buffers(printed: str) -> dict[str, tuple[Buffered, Buffered]]:
    """The listening and the bridging buffer by trace."""
    return {
        match["trace"]: (
            Buffered(float(match["listening_delay"]), float(match["listening_loss"])),
            Buffered(float(match["bridging_delay"]), float(match["bridging_loss"])),
        )
        for match in map(BUFFERS.match, printed.splitlines())
        if match
    }


def of_the_network(trace: Trace) -> Buffered:
    """The network's own mean delay above its least, and its loss."""
    arrived = [delay for delay in trace.delays_ms if delay is not None]
    lost = len(trace.delays_ms) - len(arrived)
    return Buffered(sum(arrived) / len(arrived), 100 * lost / len(trace.delays_ms))


def jitter_buffers() -> list[Row]:
    """Both buffers on the recorded networks, against the figures of libwebrtc and aiortc on the same."""
    printed = run_example("media", "bench_jitter")
    found = parse_buffers(printed)
    if not NETEQ.keys() <= found.keys():
        raise ValueError(f"bench_jitter left out traces: {printed!r}")
    neteq = "libwebrtc NetEQ, figure of the traces' README"
    rows = []
    for trace, (delay_ms, concealed) in NETEQ.items():
        listening, bridging = found[trace]
        network = of_the_network(read_trace(ROOT / "tests" / "traces_network" / f"{trace}.txt"))
        longest_ms = round(network.delay_ms + LISTENING_EXCESS_MS, 2)
        most = round(network.concealed_percent + ROUNDING, 3)
        for kind, figures, bars in (
            ("listening", listening, (longest_ms, most)),
            ("bridging", bridging, (delay_ms, concealed)),
        ):
            name = f"{kind} buffer, {trace}"
            rows += [
                Row(f"{name}: delay (peer: {neteq})", figures.delay_ms, "ms", peer=delay_ms, bar=bars[0]),
                Row(
                    f"{name}: concealed (peer: {neteq})",
                    figures.concealed_percent,
                    "%",
                    peer=concealed,
                    bar=bars[1],
                ),
            ]
        rows.append(
            Row(
                f"bridging buffer, {trace}: delay (peer: aiortc, same README)",
                bridging.delay_ms,
                "ms",
                peer=AIORTC_MS[trace],
            )
        )
    if costs := BUFFER_COSTS.search(printed):
        rows += [
            Row(f"{kind} buffer: cost on the traces", float(costs[kind]) / 1000, PER_SECOND)
            for kind in ("listening", "bridging")
        ]
    return rows
