"""How a call ended, in the few words that a metric has for it."""

from __future__ import annotations

from typing import Final

from mediaserver.telemetry.metric_kinds import OTHER
from sipbridge import EndCause

OUTCOMES: Final = {
    # What our side decides (`Switchboard.over`).
    "conversation over": "receptionist_closed",
    "maximum call length": "maximum_length",
    "on hold for too long": "hold_timeout",
    "no media from the caller": "media_lost",
    "no media": "no_media",
    "no usable SDP answer in the ACK": "no_media",
    "no call worker": "pipeline_failed",
    "pipeline failed": "pipeline_failed",
    "the media reader failed": "pipeline_failed",
    "server stopping": "server_stopping",
    "the node stops": "server_stopping",
    "the browser never connected": "never_connected",
    # What signalling reports.
    EndCause.REMOTE_BYE: "caller_hung_up",
    EndCause.LOCAL_BYE: "receptionist_closed",
    EndCause.CANCELLED: "cancelled",
    EndCause.UNANSWERED: "signalling_failed",
    EndCause.ACK_TIMEOUT: "signalling_failed",
    EndCause.TRANSPORT_FAILED: "signalling_failed",
    EndCause.SESSION_FAILED: "signalling_failed",
    # What a browser's connection reports.
    "remote_close": "caller_hung_up",
    "closed by the browser": "caller_hung_up",
    "never connected": "never_connected",
    "connectivity lost": "media_lost",
}
"""By how the reason of a call's end begins; the first that fits."""


def outcome_of(why: str) -> str:
    """The outcome of a call that ended for this reason."""
    return next((outcome for start, outcome in OUTCOMES.items() if why.startswith(start)), OTHER)
