"""The gate before every call. Sans-IO: it is given the time and returns a decision.

Rules:

- never more leases than slots, nor more of one tenant than its limit;
- a lease is released exactly once; a second release is counted and changes nothing;
- a refusal says when it is worth trying again, from how long calls have been taking;
- only a full node answers 503: a peer may keep every call away from us for the time in its Retry-After (RFC 3261 21.5.4).
  One tenant's limit is 486, which concerns the called party alone (21.4.21).

Queueing joins here: where this returns `Reject` for want of a slot, it will return a place in the queue first, and the
union below grows by `Queue` and `Fallback`.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from statistics import median

RETRY_AFTER_MIN_S = 1
RETRY_AFTER_MAX_S = 120
RETRY_AFTER_UNKNOWN_S = 10
"""Before any call has ended."""
DURATIONS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to one call."""

    number: int
    tenant_id: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Admit:
    """Take the call."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse the call with this SIP status."""

    status: int
    retry_after_s: int
    reason: str


Decision = Admit | Reject


@dataclass(frozen=True, slots=True)
class GateSnapshot:
    """Counters and sizes of the gate."""

    slots: int
    in_use: int
    admitted: int
    refused: int
    """For want of a slot."""
    refused_tenant_limit: int
    double_releases: int
    """Leases given back that were not out: a fault of the caller."""


@dataclass(slots=True)
class AdmissionGate:
    """The gate of one node."""

    slots: int
    _leases: dict[int, Lease] = field(default_factory=dict)
    _per_tenant: dict[str, int] = field(default_factory=dict)
    _durations_ms: deque[int] = field(default_factory=lambda: deque(maxlen=DURATIONS_KEPT))
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _admitted: int = 0
    _refused: int = 0
    _refused_tenant_limit: int = 0
    _double_releases: int = 0

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"slots must be at least 1, not {self.slots}")

    def request(self, tenant_id: str, tenant_limit: int, now_ms: int) -> Decision:
        """Decide on a call of a tenant that may have ``tenant_limit`` at a time."""
        refusal = self.refusal(tenant_id, tenant_limit)
        if refusal is not None:
            if refusal.status == 486:
                self._refused_tenant_limit += 1
            else:
                self._refused += 1
            return refusal
        lease = Lease(next(self._numbers), tenant_id, now_ms)
        self._leases[lease.number] = lease
        self._per_tenant[tenant_id] = self._per_tenant.get(tenant_id, 0) + 1
        self._admitted += 1
        return Admit(lease)

    def refusal(self, tenant_id: str, tenant_limit: int) -> Reject | None:
        """What `request` would refuse with now; nothing is taken or counted."""
        if len(self._leases) >= self.slots:
            return Reject(
                503, self._retry_after_s(self.slots), f"all {self.slots} slots of the node are taken"
            )
        if self._per_tenant.get(tenant_id, 0) >= tenant_limit:
            return Reject(
                486, self._retry_after_s(tenant_limit), f"all {tenant_limit} calls of the tenant are taken"
            )
        return None

    def release(self, lease: Lease, now_ms: int) -> bool:
        """Give a lease back; False when it had been given back before."""
        if self._leases.get(lease.number) is not lease:
            self._double_releases += 1
            return False
        del self._leases[lease.number]
        left = self._per_tenant[lease.tenant_id] - 1
        if left:
            self._per_tenant[lease.tenant_id] = left
        else:
            del self._per_tenant[lease.tenant_id]
        self._durations_ms.append(max(0, now_ms - lease.since_ms))
        return True

    def snapshot(self) -> GateSnapshot:
        """Counters and sizes."""
        return GateSnapshot(
            slots=self.slots,
            in_use=len(self._leases),
            admitted=self._admitted,
            refused=self._refused,
            refused_tenant_limit=self._refused_tenant_limit,
            double_releases=self._double_releases,
        )

    def _retry_after_s(self, calls: int) -> int:
        """About when the next of so many calls ends: the usual length of a call, shared by them."""
        if not self._durations_ms:
            return RETRY_AFTER_UNKNOWN_S
        expected_s = round(median(self._durations_ms) / 1000 / max(1, calls))
        return max(RETRY_AFTER_MIN_S, min(RETRY_AFTER_MAX_S, expected_s))
