"""The bad network's decisions: the same for the same seed, the shares that were asked for, nothing out of thin air."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf.impairment import (
    Bernoulli,
    Constant,
    GilbertElliott,
    Impairment,
    Link,
    Normal,
    Pareto,
    Trace,
    Uniform,
    read_trace,
)
from perf.impairment.draws import Question, uniform
from perf.impairment.link import LIMIT

TRACES = Path(__file__).parents[1] / "traces_network"
PACKET_US = 20_000
NEVER_US = 10**15

SHARES = st.floats(0, 1)
LOSSES = st.one_of(
    st.builds(Bernoulli, SHARES),
    st.builds(GilbertElliott, to_bad=SHARES, to_good=SHARES, loss_good=SHARES, loss_bad=SHARES),
)
DELAYS = st.one_of(
    st.builds(Constant, st.floats(0, 500)),
    st.builds(lambda least, more: Uniform(least, least + more), st.floats(0, 100), st.floats(0, 400)),
    st.builds(Normal, st.floats(0, 200), st.floats(0.1, 100)),
    st.builds(Pareto, st.floats(1, 50), st.floats(0.5, 5)),
    st.builds(Trace, st.lists(st.none() | st.floats(0, 500), min_size=1, max_size=50).map(tuple)),
)
IMPAIRMENTS = st.builds(
    Impairment,
    loss=LOSSES,
    delay=DELAYS,
    reorder=SHARES,
    reorder_ms=st.floats(0, 200),
    duplicate=SHARES,
    duplicate_ms=st.floats(0, 50),
    corrupt=SHARES,
    rate_bps=st.sampled_from([0, 8_000, 64_000, 1_000_000]),
    queue_ms=st.floats(0, 500),
)


def numbered(index: int, octets: int = 100) -> bytes:
    return index.to_bytes(4, "big") * (octets // 4)


def carried(
    link: Link, count: int, *, octets: int = 100, every_us: int = PACKET_US
) -> list[tuple[int, bytes]]:
    """All packets as they come out, each at its very moment."""
    arrivals = []
    for index in range(count):
        now_us = index * every_us
        while link.due_us is not None and link.due_us < now_us:
            due_us = link.due_us
            arrivals += [(due_us, datagram) for datagram in link.pop(due_us)]
        link.push(now_us, numbered(index, octets))
    while link.due_us is not None:
        due_us = link.due_us
        arrivals += [(due_us, datagram) for datagram in link.pop(due_us)]
    return arrivals


@given(IMPAIRMENTS, st.integers(0, 2**64 - 1))
def test_the_same_seed_does_the_same(impairment: Impairment, seed: int) -> None:
    assert carried(Link(impairment, seed), 60) == carried(Link(impairment, seed), 60)


@given(IMPAIRMENTS, st.integers(0, 2**64 - 1))
def test_nothing_comes_from_nowhere_and_all_is_accounted_for(impairment: Impairment, seed: int) -> None:
    link = Link(impairment, seed)
    arrivals = carried(link, 60)
    stats = link.stats
    assert stats.offered == 60
    assert stats.offered == stats.lost + stats.over_rate + len(arrivals) - stats.duplicated
    assert stats.delivered == len(arrivals)
    assert stats.over_limit == 0
    times = [at_us for at_us, _ in arrivals]
    assert times == sorted(times)
    if not impairment.corrupt:
        assert {datagram for _, datagram in arrivals} <= {numbered(index) for index in range(60)}


@given(LOSSES, DELAYS, st.integers(0, 2**32))
def test_what_is_not_held_back_stays_in_order(
    loss: Bernoulli | GilbertElliott, delay: Constant | Uniform | Normal | Pareto | Trace, seed: int
) -> None:
    arrivals = carried(Link(Impairment(loss=loss, delay=delay), seed), 60)
    numbers = [int.from_bytes(datagram[:4], "big") for _, datagram in arrivals]
    assert numbers == sorted(set(numbers))
    assert all(at_us >= number * PACKET_US for (at_us, _), number in zip(arrivals, numbers, strict=True))


@given(st.integers(0, 2**32), st.integers(4, 1400), st.integers(0, 50_000))
def test_decisions_hang_on_the_number_of_a_packet_alone(seed: int, octets: int, every_us: int) -> None:
    impairment = Impairment(loss=GilbertElliott(0.1, 0.3), duplicate=0.1)
    one = {int.from_bytes(d[:4], "big") for _, d in carried(Link(impairment, seed), 80)}
    other = carried(Link(impairment, seed), 80, octets=octets, every_us=every_us)
    assert one == {int.from_bytes(d[:4], "big") for _, d in other}


def test_one_impairment_does_not_change_another() -> None:
    lossy = Impairment(loss=Bernoulli(0.2))
    worse = Impairment(loss=Bernoulli(0.2), delay=Uniform(0, 90), duplicate=0.3, corrupt=0.0, reorder=0.2)
    survivors = [{d for _, d in carried(Link(impairment, 7), 500)} for impairment in (lossy, worse)]
    assert survivors[0] == survivors[1]


@settings(max_examples=10)
@given(st.integers(0, 2**64 - 1), st.floats(0.01, 0.5))
def test_losses_are_as_many_as_asked_for(seed: int, loss: float) -> None:
    link = Link(Impairment(loss=Bernoulli(loss)), seed)
    carried(link, 5000)
    # Six standard deviations: one seed in a billion falls outside.
    assert abs(link.stats.lost / 5000 - loss) < 6 * (loss * (1 - loss) / 5000) ** 0.5


def test_losses_in_bursts() -> None:
    model = GilbertElliott(to_bad=0.02, to_good=0.25)
    link = Link(Impairment(loss=model), 11)
    arrived = {int.from_bytes(d[:4], "big") for _, d in carried(link, 20_000)}
    lost = [index for index in range(20_000) if index not in arrived]
    bursts = sum(index - 1 not in set(lost[at - 1 : at]) for at, index in enumerate(lost))
    assert len(lost) / 20_000 == pytest.approx(model.mean_loss, rel=0.15)
    assert len(lost) / bursts == pytest.approx(1 / model.to_good, rel=0.15)


@pytest.mark.parametrize(
    ("delay", "mean_ms"), [(Uniform(10, 50), 30), (Normal(40, 5), 40), (Pareto(10, 3), 15), (Constant(7), 7)]
)
def test_delays_have_their_mean(delay: Uniform | Normal | Pareto | Constant, mean_ms: float) -> None:
    # Far apart, so that none waits for the one before it.
    arrivals = carried(Link(Impairment(delay=delay), 3), 4000, every_us=10_000_000)
    waited_ms = [(at_us - index * 10_000_000) / 1000 for index, (at_us, _) in enumerate(arrivals)]
    assert sum(waited_ms) / len(waited_ms) == pytest.approx(mean_ms, rel=0.05)


@pytest.mark.parametrize("name", ["lan", "wifi", "lte", "step", "ge5"])
def test_a_trace_is_followed_to_the_packet(name: str) -> None:
    trace = read_trace(TRACES / f"{name}.txt")
    link = Link(Impairment(delay=trace), 1)
    arrivals = carried(link, len(trace.delays_ms))
    times_us = {int.from_bytes(datagram[:4], "big"): at_us for at_us, datagram in arrivals}
    for index, delay_ms in enumerate(trace.delays_ms):
        if delay_ms is None:
            assert index not in times_us
        else:
            assert times_us[index] == pytest.approx(index * PACKET_US + delay_ms * 1000, abs=1)
    assert link.stats.lost == trace.delays_ms.count(None)


def test_held_back_packets_are_overtaken() -> None:
    link = Link(Impairment(reorder=0.1, reorder_ms=50), 5)
    numbers = [int.from_bytes(d[:4], "big") for _, d in carried(link, 400)]
    overtaken = sum(number < max(numbers[:at], default=0) for at, number in enumerate(numbers))
    assert sorted(numbers) == list(range(400))
    assert 0 < overtaken <= link.stats.held_back


def test_the_second_copy_comes_later() -> None:
    link = Link(Impairment(duplicate=1.0, duplicate_ms=5), 5)
    times: dict[bytes, list[int]] = {}
    for at_us, datagram in carried(link, 50):
        times.setdefault(datagram, []).append(at_us)
    assert all(second - first == 5000 for first, second in times.values())
    assert link.stats.duplicated == 50


def test_one_bit_is_flipped() -> None:
    arrivals = carried(Link(Impairment(corrupt=1.0), 5), 300)
    places = set()
    for index, (_, datagram) in enumerate(arrivals):
        wrong = int.from_bytes(datagram, "big") ^ int.from_bytes(numbered(index), "big")
        assert wrong.bit_count() == 1
        places.add(wrong)
    assert len(places) > 200
    link = Link(Impairment(corrupt=1.0), 5)
    link.push(0, b"")
    assert link.pop(0) == [b""]


def test_no_more_gets_through_than_the_cap_allows() -> None:
    # 100 octets every 5 ms are 160 kbit/s.
    link = Link(Impairment(rate_bps=64_000, queue_ms=100), 5)
    arrivals = carried(link, 1000, every_us=5000)
    lasted_s = (arrivals[-1][0] - arrivals[0][0]) / 1e6
    assert (len(arrivals) - 1) * 800 / lasted_s == pytest.approx(64_000, rel=0.01)
    assert link.stats.over_rate == 1000 - len(arrivals)
    waited_us = [at_us - int.from_bytes(d[:4], "big") * 5000 for at_us, d in arrivals]
    assert max(waited_us) <= 100_000 + 12_500


def test_what_is_on_the_way_is_bounded() -> None:
    link = Link(Impairment(delay=Constant(1000)), 5)
    for index in range(LIMIT + 10):
        link.push(0, numbered(index))
    assert link.stats.over_limit == 10
    assert len(link.pop(NEVER_US)) == LIMIT


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32), st.sampled_from(Question))
def test_a_draw_is_a_share(seed: int, index: int, question: Question) -> None:
    assert 0 <= uniform(seed, index, question) < 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Bernoulli(1.1),
        lambda: GilbertElliott(0.1, -0.1),
        lambda: Constant(-1),
        lambda: Uniform(5, 4),
        lambda: Normal(5, 0),
        lambda: Pareto(0, 1),
        lambda: Trace(()),
        lambda: Trace((float("nan"),)),
        lambda: Impairment(duplicate=2),
        lambda: Impairment(rate_bps=-1),
    ],
)
def test_what_no_network_does_is_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=r".+"):
        wrong()
