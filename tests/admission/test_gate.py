"""The gate against a model of its rules, driven by random calls and hang-ups."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from admission import AdmissionGate, Admit, Lease, Reject
from admission.gate import RETRY_AFTER_MAX_S, RETRY_AFTER_MIN_S, RETRY_AFTER_UNKNOWN_S

SLOTS = 5
LIMITS = {"a": 1, "b": 3, "c": 10}


class GateMachine(RuleBasedStateMachine):
    """Every sequence of requests and releases keeps the limits, and nothing is lost or counted twice."""

    out = Bundle("out")
    returned = Bundle("returned")

    def __init__(self) -> None:
        super().__init__()
        self.gate = AdmissionGate(slots=SLOTS)
        self.leases: list[Lease] = []
        self.now_ms = 0
        self.requests = self.refused = self.refused_limit = self.doubles = 0

    def of(self, tenant: str) -> int:
        return sum(lease.tenant_id == tenant for lease in self.leases)

    @rule(ms=st.integers(0, 1_000_000))
    def tick(self, ms: int) -> None:
        self.now_ms += ms

    @precondition(lambda self: len(self.leases) < SLOTS)
    @rule(target=out, tenant=st.sampled_from(sorted(LIMITS)))
    def request_with_a_free_slot(self, tenant: str) -> Lease | None:
        self.requests += 1
        decision = self.gate.request(tenant, LIMITS[tenant], self.now_ms)
        if self.of(tenant) >= LIMITS[tenant]:
            assert isinstance(decision, Reject)
            assert decision.status == 486
            self.refused_limit += 1
            return None
        assert isinstance(decision, Admit)
        assert decision.lease not in self.leases
        self.leases.append(decision.lease)
        return decision.lease

    @precondition(lambda self: len(self.leases) == SLOTS)
    @rule(tenant=st.sampled_from(sorted(LIMITS)))
    def request_when_full(self, tenant: str) -> None:
        self.requests += 1
        self.refused += 1
        decision = self.gate.request(tenant, LIMITS[tenant], self.now_ms)
        assert isinstance(decision, Reject)
        assert decision.status == 503
        assert RETRY_AFTER_MIN_S <= decision.retry_after_s <= RETRY_AFTER_MAX_S

    @rule(target=returned, lease=consumes(out))
    def release(self, lease: Lease | None) -> Lease | None:
        if lease is not None:
            assert self.gate.release(lease, self.now_ms)
            self.leases.remove(lease)
        return lease

    @rule(lease=returned)
    def release_again(self, lease: Lease | None) -> None:
        if lease is not None:
            assert not self.gate.release(lease, self.now_ms)
            self.doubles += 1

    @rule(tenant=st.sampled_from(sorted(LIMITS)))
    def release_what_another_gate_gave(self, tenant: str) -> None:
        decision = AdmissionGate(slots=1).request(tenant, 1, self.now_ms)
        assert isinstance(decision, Admit)
        assert not self.gate.release(decision.lease, self.now_ms)
        self.doubles += 1

    @invariant()
    def counters_agree(self) -> None:
        seen = self.gate.snapshot()
        assert seen.in_use == len(self.leases) <= SLOTS
        assert all(self.of(tenant) <= limit for tenant, limit in LIMITS.items())
        assert (seen.refused, seen.refused_tenant_limit) == (self.refused, self.refused_limit)
        assert seen.admitted == self.requests - self.refused - self.refused_limit
        assert seen.double_releases == self.doubles


GateMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestGate = GateMachine.TestCase


def _admitted(gate: AdmissionGate, tenant: str, now_ms: int) -> Lease:
    decision = gate.request(tenant, 10, now_ms)
    assert isinstance(decision, Admit)
    return decision.lease


def _retry_after_s(gate: AdmissionGate, now_ms: int) -> int:
    decision = gate.request("b", 10, now_ms)
    assert isinstance(decision, Reject)
    return decision.retry_after_s


def test_retry_after_follows_how_long_calls_take() -> None:
    gate = AdmissionGate(slots=2)
    leases = [_admitted(gate, "a", 0), _admitted(gate, "a", 0)]
    assert _retry_after_s(gate, 1) == RETRY_AFTER_UNKNOWN_S
    for lease in leases:
        gate.release(lease, 60_000)
    leases = [_admitted(gate, "a", 60_000), _admitted(gate, "a", 60_000)]
    # Two calls of a minute each: one of them ends every half minute.
    assert _retry_after_s(gate, 60_001) == 30


@pytest.mark.parametrize(("duration_ms", "expected_s"), [(0, RETRY_AFTER_MIN_S), (10**9, RETRY_AFTER_MAX_S)])
def test_retry_after_is_bounded(duration_ms: int, expected_s: int) -> None:
    gate = AdmissionGate(slots=1)
    gate.release(_admitted(gate, "a", 0), duration_ms)
    _admitted(gate, "a", duration_ms)
    assert _retry_after_s(gate, duration_ms) == expected_s


def test_one_tenant_at_its_limit_leaves_the_others_their_slots() -> None:
    gate = AdmissionGate(slots=3)
    assert isinstance(gate.request("a", 1, 0), Admit)
    assert isinstance(gate.request("a", 1, 0), Reject)
    assert isinstance(gate.request("b", 1, 0), Admit)


def test_a_gate_without_slots_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        AdmissionGate(slots=0)
