"""How answers are cut anew: a provider sends small pieces, and each costs a walk through the pipeline.

The first piece of an answer goes on as soon as it is there, since the caller waits for it; what follows is joined for as
long as nobody can tell the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mediaserver.phrase_cache import PHRASE_RATE_HZ

FIRST_CHUNK_BYTES = PHRASE_RATE_HZ * 2 // 10
"""The first 100 ms of a sentence go out as soon as they are there."""
MAX_CHUNK_BYTES = PHRASE_RATE_HZ * 2
"""Later chunks grow with what is already playing, up to a second: waiting for no more than half of what was sent never
starves a playout that the provider feeds faster than real time."""
MAX_JOINED_CHARACTERS = 80
MAX_JOINED_MS = 200
"""A model that is so slow that it pauses between words is heard as it writes."""
_MAY_END_A_CLAUSE = frozenset(".!?,;:-\u2013\u2014\u2026\n\"'\u2019\u201d)")


@dataclass(slots=True)
class AudioCutter:
    """Cuts 16-bit audio: the first chunk early, the rest coarse."""

    _pending: bytearray = field(default_factory=bytearray)
    _target: int = FIRST_CHUNK_BYTES
    _sent: int = 0

    def feed(self, pcm: bytes) -> Iterator[bytes]:
        """Take what came; the chunks that are complete."""
        self._pending += pcm
        while len(self._pending) >= self._target:
            chunk = bytes(self._pending[: self._target])
            del self._pending[: self._target]
            self._sent += len(chunk)
            self._target = max(FIRST_CHUNK_BYTES, min(MAX_CHUNK_BYTES, self._sent // 4 * 2))
            yield chunk

    def rest(self) -> bytes:
        """What is left, in whole samples."""
        return bytes(self._pending[: len(self._pending) // 2 * 2])


@dataclass(slots=True)
class DeltaJoiner:
    """Joins a model's deltas.

    Whoever looks for the end of a clause mostly needs what follows it too (a full stop may be that of "8 a.m."), so text goes on
    when a delta has come behind what may be such an end; at a comma after a letter there is no doubt.
    """

    _held: str = ""
    _since_ms: int | None = None
    """When the held text began to be held; None: nothing has come yet."""

    def feed(self, delta: str, now_ms: int) -> str:
        """Take a delta; the text that goes on, which may be empty."""
        if self._since_ms is None:
            self._since_ms = now_ms
            return delta
        bare = self._held.rstrip()
        complete = bool(bare) and bare[-1] in _MAY_END_A_CLAUSE
        if not self._held:
            self._since_ms = now_ms
        self._held += delta
        complete = complete or (self._held[-1] in ",;" and self._held[-2:-1].isalpha())
        late = now_ms - self._since_ms >= MAX_JOINED_MS or len(self._held) >= MAX_JOINED_CHARACTERS
        return self.rest() if complete or late else ""

    def rest(self) -> str:
        """What is held."""
        held, self._held = self._held, ""
        return held
