"""How many calls and workers a node has. Apart from its parts, which load the pipelines: the doctor asks this too."""

from __future__ import annotations

import os

from admission import CallKind, slots_for
from config.node import NodeConfig


def slots_of(config: NodeConfig) -> int:
    """The node's calls at a time: as configured, else what its cores can carry with the embedded models."""
    if config.capacity.slots is not None:
        return config.capacity.slots
    return slots_for(os.cpu_count() or 1, CallKind.EMBEDDED_MODELS)


def workers_of(config: NodeConfig) -> int:
    """The node's call workers: as configured, else one per core."""
    if config.workers.count is not None:
        return config.workers.count
    return len(os.sched_getaffinity(0))
