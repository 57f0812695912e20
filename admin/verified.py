"""API tokens that were checked against their hash a short while ago, so that not every request costs a hash. Sans-IO.

An entry says two things, which age apart: that the token fits the hash (`FITS_MS`), and what the store says of it, which is
asked again after `RECHECK_MS`. So a token that is revoked anywhere is refused within `RECHECK_MS`, and at once by the process
that revoked it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from admin.store import TokenRow

FITS_MS: Final = 300_000
RECHECK_MS: Final = 1_000
ENTRIES_MAX: Final = 1_000
"""The least recently used goes."""


@dataclass(slots=True)
class _Entry:
    row: TokenRow
    fitted_ms: int
    read_ms: int


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a token."""

    row: TokenRow
    fresh: bool
    """Whether the store need not be asked again."""


class VerifiedTokens:
    """Verified tokens by the SHA-256 of their text. Times are a steady clock's."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, digest: bytes, now_ms: int) -> Known | None:
        """What is known, or None: the token has to be checked against its hash."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        if now_ms - entry.fitted_ms >= FITS_MS:
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return Known(entry.row, now_ms - entry.read_ms < RECHECK_MS)

    def fitted(self, digest: bytes, row: TokenRow, read_ms: int, now_ms: int) -> None:
        """It fits the hash in the row, which was asked for at ``read_ms``."""
        self._entries[digest] = _Entry(row, now_ms, read_ms)
        self._entries.move_to_end(digest)
        while len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def reread(self, digest: bytes, row: TokenRow | None, read_ms: int) -> bool:
        """What the store says now; False: it is another token's hash, or there is none, and the entry is gone."""
        entry = self._entries.get(digest)
        if entry is None:
            return False
        if row is None or row.hash != entry.row.hash:
            del self._entries[digest]
            return False
        if read_ms >= entry.read_ms:
            entry.row, entry.read_ms = row, read_ms
        return True

    def forget(self, public_id: str) -> None:
        """It was revoked here."""
        for digest in [each for each, entry in self._entries.items() if entry.row.public_id == public_id]:
            del self._entries[digest]
