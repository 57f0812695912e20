"""What both the vault's doors and its rotations do: open rows, seal secrets, make data keys, commit with an audit entry.

The vault has a root key of its own, wrapped as a data key under the reserved owner ``_vault``: from it come the key of the
audit trail's head and those of the fingerprints (HKDF). It is made with the first change.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from vault import names
from vault.audit import Action, Chain, Deed
from vault.errors import AuditBroken, Conflict, SealBroken, SecretRevoked
from vault.kek import KeyEncryption, RandomBytes
from vault.open_keys import OpenKeys
from vault.records import AddDataKey, DataKeyRow, Found, SecretStore, Write
from vault.sealing import (
    KEY_BYTES,
    NONCE_BYTES,
    KeyMaterial,
    KeyPlace,
    SecretPlace,
    seal,
    sealed_generation,
    unseal,
)
from vault.secret import Secret

NAMES_MAX: Final = 256
"""Names of keys that a tenant may have, revoked ones included."""
ATTEMPTS: Final = 8
"""Times that a change is tried when others change the same tenant's keys."""
ROOT_PLACE: Final = KeyPlace("_vault", 1)

T = TypeVar("T")


class Envelopes:
    """A store, the key-encryption keys over it, and the data keys that are open."""

    def __init__(
        self, store: SecretStore, keks: KeyEncryption, random_bytes: RandomBytes, opened: OpenKeys
    ) -> None:
        self.store: Final = store
        self.keks: Final = keks
        self.random_bytes: Final = random_bytes
        self.opened: Final = opened

    async def open(self, found: Found) -> Secret:
        """The key of a row. Raises as `get` does."""
        row = found.secret
        if row.sealed is None:
            raise SecretRevoked(f"{row.tenant_id}: {row.name} version {row.version} was revoked")
        if found.data_key is None or sealed_generation(row.sealed) != row.generation:
            raise SealBroken(
                f"{row.tenant_id}: {row.name} version {row.version} names a data key that is not its own"
            )
        key = await self.opened.open(found.data_key)
        return unseal(row.sealed, key, SecretPlace(row.tenant_id, row.name, row.version))

    def seal(self, secret: Secret, key: KeyMaterial, place: KeyPlace, name: str, version: int) -> bytes:
        """A secret sealed under the tenant's data key of that place."""
        target = SecretPlace(place.tenant_id, name, version)
        return seal(secret, key, place.generation, target, self.random_bytes(NONCE_BYTES))

    async def new_data_key(self, place: KeyPlace, at: datetime) -> tuple[DataKeyRow, KeyMaterial]:
        """A fresh data key, wrapped and not yet kept."""
        key = KeyMaterial(self.random_bytes(KEY_BYTES))
        return DataKeyRow(place, await self.keks.wrap(key, place), names.timestamp(at)), key

    async def root(self) -> KeyMaterial:
        """The root key of a vault that has data keys. Raises `AuditBroken` where it was taken away."""
        keys = await self.store.data_keys(ROOT_PLACE.tenant_id)
        if not keys:
            raise AuditBroken("the vault's root key is missing: it was taken away")
        return await self.opened.open(keys[0])

    async def begin(self, actor: str, at: datetime) -> tuple[KeyMaterial, list[Write], list[Deed]]:
        """The root key, and what must be written where this change is the vault's first."""
        names.check_actor(actor)
        names.timestamp(at)
        if await self.store.data_keys(ROOT_PLACE.tenant_id) or await self.store.head() is not None:
            return await self.root(), [], []
        row, root = await self.new_data_key(ROOT_PLACE, at)
        return root, [AddDataKey(row)], [added(row, actor, at)]

    async def commit(self, root: KeyMaterial, writes: Sequence[Write], deeds: Sequence[Deed]) -> None:
        """Apply the changes with their audit entries, or nothing."""
        chain = Chain(root)
        await self.store.commit(writes, lambda head: chain.append(head, deeds))


def added(row: DataKeyRow, actor: str, at: datetime) -> Deed:
    """The entry for a new data key."""
    place = row.place
    return Deed(
        names.timestamp(at), actor, Action.DATA_KEY_ADDED, place.tenant_id,
        version=place.generation, kek_id=row.wrapped.kek_id,
    )  # fmt: skip


def replaced(found: Found | None) -> tuple[int, int | None] | None:
    """What a new row takes the place of."""
    return None if found is None else (found.secret.version, found.secret.generation)


async def attempts(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try a change until nobody else was faster, `ATTEMPTS` times. Raises the last `Conflict`."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await attempt()
        except Conflict:
            continue
    return await attempt()


def fingerprint(root: KeyMaterial, tenant_id: str, secret: Secret) -> str:
    """What may be shown of a secret: keyed, so that nobody can try guesses on it, and another for each tenant."""
    key = root.derive(b"vault/fingerprint\x00" + tenant_id.encode())
    return hmac.digest(key, secret.reveal().encode(), "sha256")[:8].hex()
