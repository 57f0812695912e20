"""Token buckets against an exact model; the limiter and the throttle that are made of them."""

from __future__ import annotations

from collections import OrderedDict
from fractions import Fraction
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.errors import Throttled
from admin.principals import Principal, Role
from admin.rate import LOOKED_AT, Buckets, RateLimiter, retry_after_s
from admin.throttle import LoginThrottle, network_of
from config.admin import RateLimit

LIMITS = st.builds(RateLimit, per_minute=st.integers(1, 1_000), burst=st.integers(1, 20))


class Model:
    """A bucket with fractions."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self.level = Fraction(limit.burst)
        self.at = 0

    def take(self, now: int) -> bool:
        self.level = min(
            Fraction(self.limit.burst), self.level + Fraction((now - self.at) * self.limit.per_minute, 60_000)
        )
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


@given(LIMITS, st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 120_000)), max_size=60))
def test_buckets_give_what_the_model_gives(limit: RateLimit, steps: list[tuple[str, int]]) -> None:
    buckets: Buckets[str] = Buckets(limit)
    models: dict[str, Model] = {}
    now = 0
    for key, passed in steps:
        now += passed
        model = models.setdefault(key, Model(limit))
        wait_ms = buckets.take(key, now)
        assert (wait_ms == 0) == model.take(now)
        if wait_ms:
            # The wait that is told is enough, and not a millisecond too long.
            assert buckets.wait_ms(key, now + wait_ms) == 0
            assert buckets.wait_ms(key, now + wait_ms - 1) > 0


@given(LIMITS, st.lists(st.integers(0, 5_000), min_size=1, max_size=200))
def test_never_more_than_the_rate_and_the_burst(limit: RateLimit, gaps: list[int]) -> None:
    buckets: Buckets[str] = Buckets(limit)
    now, given_at = 0, []
    for gap in gaps:
        now += gap
        if buckets.take("a", now) == 0:
            given_at.append(now)
    for first, began in enumerate(given_at):
        for last in range(first, len(given_at)):
            span = given_at[last] - began
            assert last - first + 1 <= limit.burst + Fraction(span * limit.per_minute, 60_000)


@given(LIMITS, st.lists(st.integers(-5_000, 5_000), max_size=60))
def test_a_clock_that_goes_back_gives_nothing_away(limit: RateLimit, steps: list[int]) -> None:
    buckets: Buckets[str] = Buckets(limit)
    now = highest = 400_000
    taken = int(buckets.take("a", now) == 0)
    for step in steps:
        now += step
        highest = max(highest, now)
        taken += buckets.take("a", now) == 0
    assert taken <= limit.burst + Fraction((highest - 400_000) * limit.per_minute, 60_000)


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 30_000)), max_size=120),
)
def test_the_table_is_bounded_and_drops_a_full_one_first(size_max: int, steps: list[tuple[int, int]]) -> None:
    limit = RateLimit(per_minute=4, burst=2)
    buckets: Buckets[int] = Buckets(limit, size_max)
    model: OrderedDict[int, Model] = OrderedDict()
    early = now = 0
    for key, passed in steps:
        now += passed
        if key not in model and len(model) == size_max:
            full = [
                each
                for each, bucket in list(model.items())[:LOOKED_AT]
                if bucket.level + Fraction((now - bucket.at) * 4, 60_000) >= 2
            ]
            early += not full
            del model[full[0] if full else next(iter(model))]
        if key not in model:
            model[key] = Model(limit)
            model[key].at = now
        assert (buckets.take(key, now) == 0) == model[key].take(now)
        model.move_to_end(key)
        left, full_in_ms = buckets.left(key, now), buckets.full_in_ms(key, now)
        assert buckets.left(key, now + full_in_ms) == limit.burst
        assert full_in_ms == 0 or buckets.left(key, now + full_in_ms - 1) < limit.burst or left == limit.burst
        assert len(buckets) == len(model) <= size_max
    assert buckets.forgotten_early == early


def principal(subject: str, issuer: str = "local") -> Principal:
    return Principal(subject, Role.OPERATOR, None, issuer)


def test_the_limiter_counts_a_principal_whatever_its_token() -> None:
    limiter = RateLimiter(RateLimit(per_minute=60, burst=2))
    left = [
        limiter.take(Principal("ada", Role.OPERATOR, None, credential=credential), 0)
        for credential in ("t1", "t2")
    ]
    policy = {"RateLimit-Policy": '"requests";q=2;w=2'}
    assert left == [policy | {"RateLimit": f'"requests";{told}'} for told in ("r=1;t=1", "r=0;t=2")]
    with pytest.raises(Throttled, match="60 a minute, and 2 at once") as caught:
        limiter.take(principal("ada"), 0)
    assert caught.value.headers == policy | {"RateLimit": '"requests";r=0;t=2', "Retry-After": "1"}
    limiter.take(principal("bo"), 0)
    limiter.take(principal("ada", "https://idp.example"), 0)
    limiter.take(principal("ada"), 1_000)
    assert limiter.refused == 1


@pytest.mark.parametrize(("wait_ms", "seconds"), [(1, 1), (1_000, 1), (1_001, 2), (60_000, 60)])
def test_seconds_are_rounded_up(wait_ms: int, seconds: int) -> None:
    assert retry_after_s(wait_ms) == seconds


@pytest.mark.parametrize(
    ("source", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
        ("", ""),
        ("x" * 500, "x" * 64),
    ],
)
def test_what_a_source_is_counted_as(source: str, counted: str) -> None:
    assert network_of(source) == counted


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_one_network_is_one_source(network: int, one: int, other: int) -> None:
    a, b = (IPv6Address(network << 64 | host) for host in (one, other))
    if a.ipv4_mapped is None and b.ipv4_mapped is None:
        assert network_of(str(a)) == network_of(str(b))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20_000)), max_size=80))
def test_failures_alone_are_counted(steps: list[tuple[bool, int]]) -> None:
    limit = RateLimit(per_minute=6, burst=3)
    throttle, model, now = LoginThrottle(limit), Model(limit), 0
    for fails, passed in steps:
        now += passed
        level = min(Fraction(3), model.level + Fraction((now - model.at) * 6, 60_000))
        if level < 1:
            with pytest.raises(Throttled, match="too many failed logins"):
                throttle.check("192.0.2.1", now)
        else:
            throttle.check("192.0.2.1", now)
            if fails:
                throttle.failed("192.0.2.1", now)
                model.take(now)
        throttle.check("192.0.2.2", now)
