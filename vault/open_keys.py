"""Data keys as they are in use: unwrapped once in a while instead of for every call.

A key service that is asked anew for every call would add its round trip to the call's start, and its outage would end
every call. So what was unwrapped is kept for a while, and a key-encryption key that is taken away stops new unwrapping
at once and use of what is kept after ``keep_ms``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from vault.errors import BadInput
from vault.kek import KeyEncryption
from vault.records import DataKeyRow
from vault.sealing import KeyMaterial, KeyPlace

KEEP_MS: Final = 300_000
KEPT_MAX: Final = 10_000
"""Data keys kept; the least recently used goes first."""

_KeptAs = tuple[KeyPlace, bytes]


class OpenKeys:
    """Unwraps data keys and keeps them. ``now_ms`` is any monotonic clock in milliseconds."""

    def __init__(
        self,
        keks: KeyEncryption,
        now_ms: Callable[[], int],
        keep_ms: int = KEEP_MS,
        kept_max: int = KEPT_MAX,
    ) -> None:
        if not (0 <= keep_ms <= 86_400_000 and 0 <= kept_max <= 1_000_000):
            raise BadInput("data keys are kept for 0 to 86400000 ms, 0 to 1000000 of them")
        self._keks = keks
        self._now_ms = now_ms
        self._keep_ms = keep_ms
        self._kept_max = kept_max
        self._kept: OrderedDict[_KeptAs, tuple[int, KeyMaterial]] = OrderedDict()
        self._under_way: dict[_KeptAs, asyncio.Future[KeyMaterial]] = {}
        self.unwrapped = 0
        """Times that a key-encryption key was asked for."""

    def __len__(self) -> int:
        return len(self._kept)

    async def open(self, row: DataKeyRow) -> KeyMaterial:
        """The data key of a row. Raises `KeyEncryptionError` and `SealBroken`.

        Those who want the same one at the same time share one unwrapping; it goes on when one of them is cancelled.
        """
        # By what is stored too: a row that was changed is never served from what it was before.
        kept_as = (row.place, row.wrapped.blob)
        found = self._kept.get(kept_as)
        if found is not None and self._now_ms() < found[0]:
            self._kept.move_to_end(kept_as)
            return found[1]
        under_way = self._under_way.get(kept_as)
        if under_way is None:
            under_way = self._under_way[kept_as] = asyncio.ensure_future(self._unwrap(row, kept_as))
            under_way.add_done_callback(_retrieve)
        return await asyncio.shield(under_way)

    async def _unwrap(self, row: DataKeyRow, kept_as: _KeptAs) -> KeyMaterial:
        self._kept.pop(kept_as, None)
        self.unwrapped += 1
        try:
            key = await self._keks.unwrap(row.wrapped, row.place)
        finally:
            del self._under_way[kept_as]
        self._kept[kept_as] = (self._now_ms() + self._keep_ms, key)
        while len(self._kept) > self._kept_max:
            self._kept.popitem(last=False)
        return key


def _retrieve(task: asyncio.Future[KeyMaterial]) -> None:
    """Take note of an error that nobody waits for any more, lest the loop report it."""
    if not task.cancelled():
        task.exception()
