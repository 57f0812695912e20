"""What became of trials that this node has ended: counted, and the latest for whoever looks at its status."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import TRIALS_ENDED
from tenancy.ledger import Edit

MAX_SHOWN: Final = 20


class TrialLog:
    """One for a node."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._counts: Counter[str] = Counter()
        self._latest: deque[dict[str, object]] = deque(maxlen=MAX_SHOWN)

    def ended(self, tenant_id: str, edit: Edit) -> None:
        """Take a trial that a call's end or the time has decided; what decided nothing is left alone."""
        trial = edit.ended
        if trial is None or trial.verdict is None:
            return
        decision = trial.decision.value
        self._meters.inc(TRIALS_ENDED, decision)
        self._counts[decision] += 1
        self._latest.append(
            {
                "tenant": tenant_id,
                "version": trial.plan.version,
                "baseline": trial.plan.baseline,
                "decision": decision,
                "metric": None if trial.verdict.metric is None else trial.verdict.metric.value,
                "reason": trial.verdict.reason,
                "at_ms": trial.verdict.at_ms,
                "calls": {"baseline": trial.baseline.calls, "canary": trial.canary.calls},
            }
        )

    def status(self) -> dict[str, object]:
        """For /status: how many were ended since the start, by how, and the latest, newest first."""
        return {"ended": dict(self._counts), "latest": list(reversed(self._latest))}
