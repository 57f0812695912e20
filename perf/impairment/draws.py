"""Random numbers without a state: each is a function of the seed, the packet's number, and what is being decided.

So a decision never depends on how many others were taken before, and one impairment can be switched on without
changing what another does. SplitMix64's finaliser (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
OOPSLA 2014) does the mixing.
"""

from __future__ import annotations

from enum import IntEnum

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E37_79B9_7F4A_7C15


class Question(IntEnum):
    """What is decided about a packet."""

    LOSS = 1
    STATE = 2
    DELAY = 3
    REORDER = 4
    DUPLICATE = 5
    CORRUPT = 6
    BIT = 7


def _mix(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58_476D_1CE4_E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D0_49BB_1331_11EB & _MASK
    return value ^ (value >> 31)


def bits(seed: int, index: int, question: Question) -> int:
    """64 random bits."""
    lane = _mix((seed + _GOLDEN * question) & _MASK)
    return _mix((lane + _GOLDEN * (index + 1)) & _MASK)


def uniform(seed: int, index: int, question: Question) -> float:
    """A number from 0 up to, not including, 1."""
    return (bits(seed, index, question) >> 11) / (1 << 53)
