"""The vault: tenants' keys put, had, revoked, rotated and accounted for.

Every change is one transaction with its audit entries. It is worked out on what was read, and tried again where somebody
else was faster (`Conflict`), a bounded number of times. Key-encryption keys are asked before the transaction, so that a
key service that hangs holds nobody else up and leaves nothing half done.

Reads are not in the audit trail: each call makes some.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vault import names, rotation
from vault.audit import Action, Chain, Deed, Entry, Finding, Head, Verifier
from vault.envelopes import NAMES_MAX, ROOT_PLACE, Envelopes, added, attempts, fingerprint, replaced
from vault.errors import AuditBroken, BadInput, SecretMissing
from vault.kek import KeyEncryption, RandomBytes
from vault.open_keys import OpenKeys
from vault.records import AddDataKey, Found, SecretRow, SecretStore, WriteSecret
from vault.rotation import DataKeyRotation, KekRotation
from vault.sealing import KeyPlace
from vault.secret import Secret

PAGE_MAX: Final = 1_000
"""Audit entries in one answer."""


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """What may be told of a key: never the key."""

    name: str
    version: int
    fingerprint: str
    """16 hexadecimal digits, keyed: equal for equal keys of one tenant, and no help in guessing them."""
    put_at: str
    put_by: str
    revoked_at: str | None

    @classmethod
    def of(cls, row: SecretRow) -> SecretInfo:
        """The row without what is sealed."""
        return cls(row.name, row.version, row.fingerprint, row.put_at, row.put_by, row.revoked_at)


class Vault:
    """See the module's docstring. Close the store and the key-encryption keys with `aclose`."""

    def __init__(
        self,
        store: SecretStore,
        keks: KeyEncryption,
        *,
        random_bytes: RandomBytes,
        now_ms: Callable[[], int],
        opened: OpenKeys | None = None,
    ) -> None:
        self._envelopes = Envelopes(
            store, keks, random_bytes, OpenKeys(keks, now_ms) if opened is None else opened
        )

    # -- keys --------------------------------------------------------------------------------------------

    async def get(self, tenant_id: str, name: str) -> Secret:
        """A tenant's key.

        Raises:
            SecretMissing, SecretRevoked: there is none to have.
            SealBroken: what is stored was damaged or moved.
            KeyEncryptionError, VaultStoreError: it cannot be had now.
        """
        return (await self.fetch(tenant_id, name))[1]

    async def fetch(self, tenant_id: str, name: str) -> tuple[SecretInfo, Secret]:
        """A tenant's key and which version it is; raises as `get` does."""
        return await self.open(tenant_id, name, await self.sealed(tenant_id, (name,)))

    async def sealed(self, tenant_id: str, key_names: Sequence[str]) -> Mapping[str, Found]:
        """A tenant's keys of these names as they are kept, for `open`: one look at the store for all of them."""
        names.check_tenant(tenant_id)
        for each in key_names:
            names.check_name(each)
        return await self._envelopes.store.several(tenant_id, key_names)

    async def open(self, tenant_id: str, name: str, sealed: Mapping[str, Found]) -> tuple[SecretInfo, Secret]:
        """One of what `sealed` gave; raises as `get` does. Waits for nothing where its data key is open already."""
        found = sealed.get(name)
        if found is None:
            raise SecretMissing(f"{tenant_id} has no key named {name}")
        return SecretInfo.of(found.secret), await self._envelopes.open(found)

    async def put(self, tenant_id: str, name: str, secret: Secret, *, actor: str, at: datetime) -> SecretInfo:
        """Keep a key under a name, in place of the one before if there is one; the new version.

        Raises:
            BadInput, VaultFull: it is refused, and why.
            KeyEncryptionError, VaultStoreError, AuditBroken, Conflict: it could not be kept; nothing was changed.
        """
        names.check_tenant(tenant_id)
        names.check_name(name)

        async def attempt() -> SecretInfo:
            found = await self._envelopes.store.secret(tenant_id, name)
            root, writes, deeds = await self._envelopes.begin(actor, at)
            keys = await self._envelopes.store.data_keys(tenant_id)
            if keys:
                data_key, key = keys[-1], await self._envelopes.opened.open(keys[-1])
            else:
                data_key, key = await self._envelopes.new_data_key(KeyPlace(tenant_id, 1), at)
                writes.append(AddDataKey(data_key))
                deeds.append(added(data_key, actor, at))
            version = 1 if found is None else found.secret.version + 1
            row = SecretRow(
                tenant_id, name, version,
                sealed=self._envelopes.seal(secret, key, data_key.place, name, version),
                generation=data_key.place.generation,
                fingerprint=fingerprint(root, tenant_id, secret),
                put_at=names.timestamp(at),
                put_by=actor,
            )  # fmt: skip
            writes.append(WriteSecret(row, replaced(found), NAMES_MAX))
            deeds.append(Deed(names.timestamp(at), actor, Action.PUT, tenant_id, name, version))
            await self._envelopes.commit(root, writes, deeds)
            return SecretInfo.of(row)

        return await attempts(attempt)

    async def revoke(self, tenant_id: str, name: str, *, actor: str, at: datetime) -> SecretInfo:
        """Take a key away: what is sealed is deleted, its name and version stay. Once is enough: again changes nothing.

        Calls that have the key already keep it. Raises as `put` does, and `SecretMissing`.
        """
        names.check_tenant(tenant_id)
        names.check_name(name)

        async def attempt() -> SecretInfo:
            found = await self._envelopes.store.secret(tenant_id, name)
            if found is None:
                raise SecretMissing(f"{tenant_id} has no key named {name}")
            old = found.secret
            if old.revoked_at is not None:
                return SecretInfo.of(old)
            root, writes, deeds = await self._envelopes.begin(actor, at)
            row = SecretRow(
                tenant_id, name, old.version,
                sealed=None, generation=None, fingerprint=old.fingerprint,
                put_at=old.put_at, put_by=old.put_by, revoked_at=names.timestamp(at),
            )  # fmt: skip
            writes.append(WriteSecret(row, replaced(found), NAMES_MAX))
            deeds.append(Deed(names.timestamp(at), actor, Action.REVOKE, tenant_id, name, old.version))
            await self._envelopes.commit(root, writes, deeds)
            return SecretInfo.of(row)

        return await attempts(attempt)

    async def list(self, tenant_id: str) -> tuple[SecretInfo, ...]:
        """A tenant's keys by name, the revoked ones too. Asks no key-encryption key."""
        names.check_tenant(tenant_id)
        return tuple(SecretInfo.of(row) for row in await self._envelopes.store.secrets(tenant_id))

    async def tenants(self, after: str = "", limit: int = PAGE_MAX) -> tuple[str, ...]:
        """Ids of tenants that have or had keys, in their order, after that one."""
        _check_limit(limit)
        # One more than asked for: the vault's own owner may be among them.
        found = await self._envelopes.store.tenants(after, limit + 1)
        return tuple(each for each in found if each != ROOT_PLACE.tenant_id)[:limit]

    # -- the audit trail ---------------------------------------------------------------------------------

    async def audit(self, after: int = 0, limit: int = 100) -> tuple[Entry, ...]:
        """Entries in order, after that sequence; up to `PAGE_MAX` at a time."""
        _check_limit(limit)
        return await self._envelopes.store.entries(after, limit)

    async def audit_head(self) -> Head | None:
        """Where the trail ends now; keep it elsewhere to find out later that a file was put back."""
        return await self._envelopes.store.head()

    async def verify_audit(self, anchor: Head | None = None) -> Finding | None:
        """Read the whole trail; the first thing that is wrong with it, or None.

        ``anchor`` is what `audit_head` gave earlier. Raises `KeyEncryptionError` where the root key cannot be had.
        """
        store = self._envelopes.store
        head = await store.head()
        # Entries that come in meanwhile are not this head's matter.
        until = head.sequence if head is not None else 0
        if head is not None or anchor is not None:
            try:
                verifier = Verifier(Chain(await self._envelopes.root()), anchor)
            except AuditBroken as error:
                return Finding(1, str(error))
            after = 0
            while after < until and (entries := await store.entries(after, min(PAGE_MAX, until - after))):
                for entry in entries:
                    finding = verifier.take(entry)
                    if finding is not None:
                        return finding
                    after = entry.sequence
            finding = verifier.end(head)
            if finding is not None:
                return finding
        if await store.entries(until, 1) and await store.head() == head:
            return Finding(
                until + 1,
                "the head is missing" if head is None else f"entry {until + 1} comes after the head",
            )
        return None

    # -- key-encryption keys -----------------------------------------------------------------------------

    async def check_keks(self) -> None:
        """Open one data key of each key-encryption key that wraps any, so that one that is gone is noticed.

        Raises:
            KekMissing: with its id. KekUnusable, KekDenied, KekUnavailable: it is there and cannot be used (now).
            SealBroken, VaultStoreError.
        """
        envelopes = self._envelopes
        checked: set[str] = set()
        for root in await envelopes.store.data_keys(ROOT_PLACE.tenant_id):
            await envelopes.opened.open(root)
            checked.add(root.wrapped.kek_id)
        current, after = await envelopes.keks.current_id(), None
        while page := await envelopes.store.data_keys_not_under(current, after, PAGE_MAX):
            for row in page:
                if row.wrapped.kek_id not in checked:
                    await envelopes.opened.open(row)
                    checked.add(row.wrapped.kek_id)
            after = page[-1].place

    # -- rotation ----------------------------------------------------------------------------------------

    async def rotate_kek(self, *, actor: str, at: datetime, limit: int | None = None) -> KekRotation:
        """Wrap every data key by the current key-encryption key; see `vault.rotation.rotate_kek`."""
        return await rotation.rotate_kek(self._envelopes, actor=actor, at=at, limit=limit)

    async def rotate_data_key(self, tenant_id: str, *, actor: str, at: datetime) -> DataKeyRotation:
        """Give a tenant a new data key; see `vault.rotation.rotate_data_key`."""
        return await rotation.rotate_data_key(self._envelopes, tenant_id, actor=actor, at=at)

    async def aclose(self) -> None:
        """Close the key-encryption keys and the store."""
        try:
            await self._envelopes.keks.aclose()
        finally:
            await self._envelopes.store.aclose()


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= PAGE_MAX:
        raise BadInput(f"a limit must be 1 to {PAGE_MAX}")
