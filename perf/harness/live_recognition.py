"""The simulated recogniser that listens: the words of a stretch as far as they have not been told.

A caller's stretches come one after the other without what was silent between them. That a new one has begun shows by the
clock: more, or less, time has passed than audio has come.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from perf.harness.latency import Fault
from perf.harness.recognition import Recogniser
from perf.live_stt import BYTES_PER_S, RATE_HZ, LiveFault

SEAM_S = 0.1
"""From this difference between clock and audio on it is another stretch."""
MAX_STRETCH_BYTES = 60 * BYTES_PER_S
LIVE_FAULTS = {
    Fault.ERROR: LiveFault.ERROR,
    Fault.HANG: LiveFault.HANG,
    Fault.RESET: LiveFault.RESET,
    Fault.GARBAGE: LiveFault.GARBAGE,
}
"""What a scenario's faults are where there is no request."""


class RecognisingEar:
    """One connection's ear."""

    def __init__(self, recogniser: Recogniser, clock: Callable[[], float]) -> None:
        self._recogniser = recogniser
        self._clock = clock
        self._stretch = bytearray()
        self._told: list[str] = []
        """Words of the stretch."""
        self._ready: list[str] = []
        """Words of stretches before it that have not been told."""
        self._heard_s: float | None = None

    def hear(self, pcm: bytes) -> None:
        """More audio, which has been spoken just now."""
        now_s = self._clock()
        lasts_s = len(pcm) / BYTES_PER_S
        if self._heard_s is not None and abs(now_s - self._heard_s - lasts_s) > SEAM_S:
            self._ready += self._new_words()
            self._stretch.clear()
            self._told = []
        self._heard_s = now_s
        self._stretch += pcm
        if (excess := len(self._stretch) - MAX_STRETCH_BYTES) > 0:
            del self._stretch[:excess]

    def words(self) -> str:
        """What has not been told."""
        words = self._ready + self._new_words()
        self._ready = []
        return " ".join(words)

    def _new_words(self) -> list[str]:
        samples = np.frombuffer(bytes(self._stretch), dtype="<i2")
        words = self._recogniser.transcribe(samples, RATE_HZ).split()
        new = words[len(self._told) :]
        self._told = words
        return new
