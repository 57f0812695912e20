"""A worker's report on a key, to and from its message. Sans-IO."""

from __future__ import annotations

from mediaserver.providers.breaker import Stage
from mediaserver.providers.failures import RETRY_AFTER_MAX_S
from mediaserver.providers.key_watch import KeyReport
from mediaserver.workers.messages import KeyTold, WireError
from vault.resolver import KeyRef, Outcome

TOOK_MS_MAX = 600_000
"""No request takes longer."""
RETRY_AFTER_MS_MAX = int(RETRY_AFTER_MAX_S * 1_000)
UNSAID = -1


def told(report: KeyReport) -> KeyTold:
    """The message of a report."""
    key = report.key
    return KeyTold(
        str(report.stage),
        key.owner or "",
        key.name,
        key.version,
        report.outcome.value,
        min(max(0, report.took_ms), TOOK_MS_MAX),
        UNSAID if report.retry_after_ms is None else min(report.retry_after_ms, RETRY_AFTER_MS_MAX),
    )


def report_of(message: KeyTold) -> KeyReport:
    """The report in a message. Raises `WireError` for what no worker says."""
    if not (0 <= message.took_ms <= TOOK_MS_MAX and UNSAID <= message.retry_after_ms <= RETRY_AFTER_MS_MAX):
        raise WireError("KeyTold: a time is out of its range")
    try:
        stage, outcome = Stage(message.stage), Outcome(message.outcome)
    except ValueError:
        raise WireError("KeyTold: no such stage or outcome") from None
    key = KeyRef(message.owner or None, message.name, message.version)
    after_ms = None if message.retry_after_ms == UNSAID else message.retry_after_ms
    return KeyReport(stage, key, outcome, message.took_ms, after_ms)
