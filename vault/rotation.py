"""Both kinds of rotation, while keys are in use. What was interrupted goes on where it stopped.

A new key-encryption key: each data key is unwrapped by the old one and wrapped by the new one, one at a time, each in a
change of its own. Which are left is what the store says, so that there is nothing else to remember. Secrets are not
touched.

A new data key for a tenant: the new generation is added, and new secrets use it; then each secret is resealed in a change
of its own; when none names the older generation, that is retired. A reader gets a secret together with the data key that
it names, so that it opens at any moment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from vault import names
from vault.audit import Action, Deed
from vault.envelopes import ATTEMPTS, NAMES_MAX, Envelopes, added, attempts, replaced
from vault.errors import Conflict, KekMissing, SealBroken, SecretMissing
from vault.records import AddDataKey, DataKeyRow, Found, RetireDataKey, RewrapDataKey, WriteSecret
from vault.sealing import KeyPlace

_PAGE: Final = 100
FAILURES_MAX: Final = 100
"""Failures that are told one by one; more are counted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What could not be rotated; it is as it was."""

    tenant_id: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class KekRotation:
    """What one run did."""

    kek_id: str
    """What wraps now."""
    rewrapped: int
    failed: int
    failures: tuple[Failure, ...]
    finished: bool
    """Nothing is left that something else wraps: the older key-encryption keys are no longer needed."""


@dataclass(frozen=True, slots=True)
class DataKeyRotation:
    """What one run did."""

    generation: int
    resumed: bool
    """An earlier rotation was finished; no new data key was made."""
    resealed: int
    failures: tuple[Failure, ...]
    finished: bool
    """The older data key is gone."""


async def rotate_kek(vault: Envelopes, *, actor: str, at: datetime, limit: int | None = None) -> KekRotation:
    """Wrap every data key by the current key-encryption key, ``limit`` of them at most.

    A data key that cannot be unwrapped is left and told; the others go on.

    Raises:
        KekUnavailable, KekDenied: the key service is not to be had. What was rewrapped stays so.
    """
    names.check_actor(actor)
    kek_id = await vault.keks.current_id()
    rewrapped, failed, failures = 0, 0, list[Failure]()
    after: KeyPlace | None = None
    while limit is None or rewrapped < limit:
        page = await vault.store.data_keys_not_under(kek_id, after, _PAGE)
        if not page:
            break
        for row in page[: None if limit is None else limit - rewrapped]:
            after = row.place
            try:
                rewrapped += await _rewrap(vault, row, actor, at)
            except (SealBroken, KekMissing) as error:
                failed += 1
                if len(failures) < FAILURES_MAX:
                    failures.append(
                        Failure(row.place.tenant_id, f"data key {row.place.generation}", str(error))
                    )
    finished = not await vault.store.data_keys_not_under(kek_id, None, 1)
    return KekRotation(kek_id, rewrapped, failed, tuple(failures), finished)


async def _rewrap(vault: Envelopes, row: DataKeyRow, actor: str, at: datetime) -> int:
    """1 where it was done, 0 where somebody else did it or took the data key away meanwhile."""
    root = await vault.root()
    new = await vault.keks.rewrap(row.wrapped, row.place)
    deed = Deed(
        names.timestamp(at), actor, Action.DATA_KEY_REWRAPPED, row.place.tenant_id,
        version=row.place.generation, kek_id=new.kek_id,
    )  # fmt: skip
    try:
        await vault.commit(root, [RewrapDataKey(row.place, row.wrapped, new)], [deed])
    except Conflict:
        return 0
    return 1


async def rotate_data_key(vault: Envelopes, tenant_id: str, *, actor: str, at: datetime) -> DataKeyRotation:
    """Give a tenant a new data key and reseal its secrets; or finish the rotation that was interrupted.

    Raises:
        SecretMissing: the tenant has no data key.
        KeyEncryptionError, VaultStoreError, AuditBroken, Conflict: it stopped; call it again to go on.
    """
    names.check_tenant(tenant_id)
    names.check_actor(actor)

    async def begin() -> tuple[DataKeyRow, bool]:
        keys = await vault.store.data_keys(tenant_id)
        if not keys:
            raise SecretMissing(f"{tenant_id} has no keys")
        if len(keys) > 1:
            return keys[-1], True
        row, _ = await vault.new_data_key(KeyPlace(tenant_id, keys[-1].place.generation + 1), at)
        await vault.commit(await vault.root(), [AddDataKey(row)], [added(row, actor, at)])
        return row, False

    newest, resumed = await attempts(begin)
    resealed = 0
    # A secret that is put with the older data key meanwhile makes a round more.
    for _ in range(ATTEMPTS):
        done, failures = await _reseal_all(vault, newest, actor, at)
        resealed += done
        if failures:
            return DataKeyRotation(newest.place.generation, resumed, resealed, failures, finished=False)
        if await _retire_older(vault, newest, actor, at):
            return DataKeyRotation(newest.place.generation, resumed, resealed, (), finished=True)
    raise Conflict(f"{tenant_id}: its keys change too often to retire the older data key; try again")


async def _reseal_all(
    vault: Envelopes, newest: DataKeyRow, actor: str, at: datetime
) -> tuple[int, tuple[Failure, ...]]:
    tenant_id, generation = newest.place.tenant_id, newest.place.generation
    done, failures = 0, []
    for row in await vault.store.secrets(tenant_id):
        if row.generation is None or row.generation == generation:
            continue
        try:
            found = await vault.store.secret(tenant_id, row.name)
            if found is not None and found.secret.generation not in (None, generation):
                await _reseal(vault, found, newest, actor, at)
                done += 1
        except SealBroken as error:
            failures.append(Failure(tenant_id, row.name, str(error)))
        except Conflict:
            # Put or revoked meanwhile: the next round sees what is there then.
            continue
    return done, tuple(failures)


async def _reseal(vault: Envelopes, found: Found, newest: DataKeyRow, actor: str, at: datetime) -> None:
    row = found.secret
    secret = await vault.open(found)
    key = await vault.opened.open(newest)
    sealed = vault.seal(secret, key, newest.place, row.name, row.version)
    write = WriteSecret(
        replace(row, sealed=sealed, generation=newest.place.generation), replaced(found), NAMES_MAX
    )
    deed = Deed(names.timestamp(at), actor, Action.RESEALED, row.tenant_id, row.name, row.version)
    await vault.commit(await vault.root(), [write], [deed])


async def _retire_older(vault: Envelopes, newest: DataKeyRow, actor: str, at: datetime) -> bool:
    keys = await vault.store.data_keys(newest.place.tenant_id)
    older = [row.place for row in keys if row.place.generation < newest.place.generation]
    if not older:
        return True
    deeds = [
        Deed(names.timestamp(at), actor, Action.DATA_KEY_RETIRED, place.tenant_id, version=place.generation)
        for place in older
    ]
    try:
        await vault.commit(await vault.root(), [RetireDataKey(place) for place in older], deeds)
    except Conflict:
        return False
    return True
