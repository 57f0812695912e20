"""The calls of one source that wait for their connection."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.webrtc.waiting import WaitingCalls, WaitingPlace


def test_one_source_fills_its_own_places_only() -> None:
    calls = WaitingCalls(most=2)
    places = [calls.enter("192.0.2.1") for _ in range(3)]
    assert places[2] is None
    assert calls.enter("192.0.2.2") is not None
    assert places[0] is not None
    places[0].leave()
    places[0].leave()
    assert calls.enter("192.0.2.1") is not None
    assert calls.enter("192.0.2.1") is None


def test_a_customers_ipv6_network_is_one_source() -> None:
    calls = WaitingCalls(most=1)
    assert calls.enter("2001:db8::1") is not None
    assert calls.enter("2001:db8::2") is None


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_places_are_as_many_as_calls_that_wait(steps: list[tuple[int, bool]]) -> None:
    calls, held = WaitingCalls(most=3), dict[int, list[WaitingPlace]]()
    for host, enters in steps:
        mine = held.setdefault(host, [])
        if enters:
            place = calls.enter(f"192.0.2.{host}")
            assert (place is None) == (len(mine) == 3)
            mine += [place] if place is not None else []
        elif mine:
            mine.pop().leave()
        assert len(calls) == sum(map(len, held.values()))
