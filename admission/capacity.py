"""How many calls a node can take, from measured costs.

CPU-ms per second of call, measured on two shared cores (`make bench`, and the design's table for the pipeline). The
embedded models cost per second of *conversation*: a turn of about ten seconds has one transcription (170 CPU-ms) and one
synthesis (about 400 CPU-ms a sentence of four seconds).
"""

from __future__ import annotations

from enum import Enum

BUDGET_SHARE = 0.8
"""Of each core: the rest is for bursts, and for the operating system."""


class CallKind(Enum):
    """What a call runs on; the value is its CPU-ms per second of call."""

    REMOTE_MODELS = 1.0 + 4.0 + 2.5
    """Media engine, pipeline, provider clients."""
    EMBEDDED_MODELS = 1.0 + 4.0 + 57.0
    """The same with this machine's own transcription and synthesis."""


def slots_for(cores: int, kind: CallKind) -> int:
    """Calls at a time of one kind on so many cores; at least one."""
    return max(1, int(cores * 1000 * BUDGET_SHARE / kind.value))
