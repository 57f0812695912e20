"""The aiortc softphone's ears: what counts as audible, and the private name that arrivals are taken at."""

from __future__ import annotations

import inspect

from aiortc import RTCRtpReceiver
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.softphone.web_line import QUIET_AFTER_MS, Audibility


def test_audible_until_nothing_audible_has_come_for_a_while() -> None:
    audibility = Audibility()
    assert not audibility.heard(0, audible=False)
    assert audibility.heard(20_000, audible=True)
    assert not audibility.heard(40_000, audible=True)
    assert not audibility.fell_silent(40_000 + QUIET_AFTER_MS * 1000 - 1)
    assert audibility.fell_silent(40_000 + QUIET_AFTER_MS * 1000)
    assert not audibility.fell_silent(10_000_000)
    assert audibility.heard(10_000_000, audible=True)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 500)), max_size=100))
def test_becoming_audible_and_falling_silent_alternate(steps: list[tuple[bool, bool, int]]) -> None:
    audibility = Audibility()
    now_us, changes = 0, []
    for packet, audible, pause_ms in steps:
        now_us += pause_ms * 1000
        if packet and audibility.heard(now_us, audible=audible):
            changes.append(True)
        elif not packet and audibility.fell_silent(now_us):
            changes.append(False)
    assert changes == [position % 2 == 0 for position in range(len(changes))]


def test_aiortc_hands_packets_to_its_receiver_where_we_listen() -> None:
    parameters = inspect.signature(RTCRtpReceiver._handle_rtp_packet).parameters
    assert list(parameters) == ["self", "packet", "arrival_time_ms"]
