"""Key-encryption keys of several kinds together: one wraps, and the others open what is not yet rewrapped.

So a vault goes over from a file to a key service, or back, while its keys are in use. What comes under another kind is
unwrapped here, wrapped anew and opened once before it replaces what was there: a key service that answers wrongly would
lose the key for good.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Protocol

from vault.errors import BadInput, KekMissing, KekUnavailable
from vault.kek import KEK_IDS_MAX, KeyEncryption
from vault.sealing import KeyMaterial, KeyPlace, WrappedKey


class HeldKeys(KeyEncryption, Protocol):
    """`KeyEncryption` that knows which keys are its own."""

    @property
    def at_hand(self) -> str:
        """The names of its keys, for people."""
        ...

    def holds(self, kek_id: str) -> bool:
        """Whether a key with this id is one of its own. Asks nobody."""
        ...


class CompositeKeyEncryption:
    """`KeyEncryption` by ``current``; ``older`` unwrap. Raises `BadInput` for more than `KEK_IDS_MAX` of them."""

    def __init__(self, current: HeldKeys, older: Sequence[HeldKeys]) -> None:
        if len(older) >= KEK_IDS_MAX:
            raise BadInput(f"at most {KEK_IDS_MAX} key-encryption keys can be at hand, not {len(older) + 1}")
        self._current = current
        self._all = (current, *older)

    async def current_id(self) -> str:
        return await self._current.current_id()

    async def wrap(self, key: KeyMaterial, place: KeyPlace) -> WrappedKey:
        return await self._current.wrap(key, place)

    async def unwrap(self, wrapped: WrappedKey, place: KeyPlace) -> KeyMaterial:
        return await self._holder(wrapped, place).unwrap(wrapped, place)

    async def rewrap(self, wrapped: WrappedKey, place: KeyPlace) -> WrappedKey:
        holder = self._holder(wrapped, place)
        if holder is self._current:
            return await holder.rewrap(wrapped, place)
        key = await holder.unwrap(wrapped, place)
        rewrapped = await self._current.wrap(key, place)
        opened = await self._current.unwrap(rewrapped, place)
        if not hmac.compare_digest(opened.reveal(), key.reveal()):
            raise KekUnavailable(
                f"{place.tenant_id}: data key {place.generation} came back from {self._current.at_hand} as another"
            )
        return rewrapped

    def _holder(self, wrapped: WrappedKey, place: KeyPlace) -> HeldKeys:
        for each in self._all:
            if each.holds(wrapped.kek_id):
                return each
        raise KekMissing(
            wrapped.kek_id,
            f"{place.tenant_id}: data key {place.generation} is wrapped by the key-encryption key {wrapped.kek_id}, "
            f"which is missing; at hand: {', '.join(each.at_hand for each in self._all)}",
        )

    async def aclose(self) -> None:
        for each in self._all:
            await each.aclose()
