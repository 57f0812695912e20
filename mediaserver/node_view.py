"""What a node says of itself: its status for people and scripts, and what metrics read of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from admission import AdmissionGate
from mediaserver.calls import Switchboard
from mediaserver.gate_watch import GateWatch
from mediaserver.models.process import ModelProcess
from mediaserver.telemetry.schema import CALLS_ACTIVE, MODEL_RESTARTS
from mediaserver.telemetry.sources import (
    Reading,
    engine_readings,
    gate_readings,
    sip_readings,
    worker_readings,
)
from mediaserver.telemetry.trial_log import TrialLog
from mediaserver.tenant_folder import TenantFolder
from mediaserver.webrtc.edge import WebEdge
from mediaserver.workers.pool import WorkerPool
from sipbridge import SipEndpoint
from tenancy.keys import TenantKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node's parts as they are now; None: not there yet, or not any more."""

    ready: bool
    uptime_s: int
    gate: AdmissionGate
    switchboard: Switchboard | None
    pool: WorkerPool | None
    keys: TenantKeys | None
    web: WebEdge | None
    sip: SipEndpoint | None
    models: ModelProcess | None
    folder: TenantFolder | None
    gate_watch: GateWatch | None
    trials: TrialLog
    media: Mapping[str, int]
    numbers: Callable[[], Mapping[str, str]]
    """Of all tenants: made only where it is shown."""
    admin: Mapping[str, object] | None

    def status(self) -> dict[str, object]:
        """Counters of the node, with the names of its tenants."""
        gate = self.gate.snapshot()
        return {
            "ready": self.ready,
            "uptime_s": self.uptime_s,
            "active_calls": self.active_calls,
            "slots": gate.slots,
            "admitted": gate.admitted,
            "refused": gate.refused,
            "refused_tenant_limit": gate.refused_tenant_limit,
            "workers": self.pool.snapshot() if self.pool else [],
            "calls": self.switchboard.provider_steps() if self.switchboard else [],
            "keys_held_off": len(self.keys.resolver) if self.keys else 0,
            "workers_lost": self.pool.counters.lost if self.pool else {},
            "takeovers": self.pool.counters.takeovers if self.pool else 0,
            "web_sessions": self.web.sessions if self.web else 0,
            "web_waiting_calls": self.web.waiting_calls if self.web else 0,
            "web_refusals": dict(self.web.refusals) if self.web else {},
            "numbers": dict(self.numbers()),
            "trials": self.trials.status(),
            "tenant_folder": self.folder.status() if self.folder else None,
            "admin": self.admin,
            "media": dict(self.media),
            "sip": self.sip.stats() if self.sip else {},
        }

    @property
    def active_calls(self) -> int:
        """Calls that are up."""
        return self.switchboard.active_calls if self.switchboard is not None else 0


# What `Telemetry` asks, each by itself: of one that fails the others are there all the same.


def _engine(view: NodeView) -> Iterable[Reading]:
    return engine_readings(view.media)


def _gate(view: NodeView) -> Iterable[Reading]:
    return gate_readings(view.gate.snapshot())


def _sip(view: NodeView) -> Iterable[Reading]:
    return sip_readings(view.sip.stats()) if view.sip is not None else ()


def _node(view: NodeView) -> Iterable[Reading]:
    restarts = view.models.restarts if view.models is not None else 0
    return Reading(CALLS_ACTIVE, view.active_calls), Reading(MODEL_RESTARTS, restarts)


def _workers(view: NodeView) -> Iterable[Reading]:
    return worker_readings(view.pool.health() if view.pool is not None else ())


def _gate_watch(view: NodeView) -> Iterable[Reading]:
    return view.gate_watch.readings() if view.gate_watch is not None else ()


READINGS: Final = (_engine, _gate, _sip, _node, _workers, _gate_watch)
