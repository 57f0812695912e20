"""A bad network in user space: what it does to a packet is decided by a seed and the packet's number, and by nothing else."""

from perf.impairment.link import Fate, Link, LinkStats
from perf.impairment.models import (
    Bernoulli,
    Constant,
    GilbertElliott,
    Impairment,
    Normal,
    Pareto,
    Trace,
    Uniform,
    read_trace,
)

__all__ = [
    "Bernoulli",
    "Constant",
    "Fate",
    "GilbertElliott",
    "Impairment",
    "Link",
    "LinkStats",
    "Normal",
    "Pareto",
    "Trace",
    "Uniform",
    "read_trace",
]
