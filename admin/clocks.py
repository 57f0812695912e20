"""The two clocks that authentication needs, so that tests can turn them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _steady_ms() -> int:
    return time.monotonic_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Clocks:
    """Where the time comes from."""

    wall_ms: Callable[[], int] = _wall_ms
    """Since 1970 (UTC); may be set back. What tokens and the store say is about it."""
    steady_ms: Callable[[], int] = _steady_ms
    """Never goes back, from any beginning. For what this process counts and remembers."""
