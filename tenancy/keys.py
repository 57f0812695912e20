"""Tenants' keys on a node: the vault as its configuration has it, and its keys at the beginning of a call.

A call never waits long for keys and never fails for them: what cannot be had in time is left out with its reason, and the
next step of the chain serves. A key service that hangs costs one call in `HUNG_MS` the whole wait, and the others almost
none; those whose data keys are open already are not held up at all.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from loguru import logger

from config.node import (
    EnvironmentKek,
    FileKek,
    NodeConfig,
    PlatformProviders,
    PostgresConfig,
    TransitKek,
    VaultConfig,
)
from config.tenant import TenantConfig
from tenancy.call_keys import CallKeys, FoundKey, key_names
from tenancy.providers import Chains, resolve
from vault import (
    AuditBroken,
    CompositeKeyEncryption,
    KekUnavailable,
    KekUnusable,
    KeyEncryption,
    KeyResolver,
    LocalKek,
    LocalKeyEncryption,
    SecretMissing,
    SecretRevoked,
    SecretStore,
    SqliteStore,
    TransitKeyEncryption,
    TransitSettings,
    Vault,
    VaultError,
    VaultStoreError,
    kek_from_environment,
    kek_from_file,
    token_from_file,
)
from vault.composite import HeldKeys
from vault.following import FollowingStore
from vault.moving import MoveReport, move
from vault.records import MovableStore

if TYPE_CHECKING:
    from vault.postgres import PostgresSecretStore

T = TypeVar("T")

VAULT_FILE: Final = "vault.db"
SAMPLE: Final = 1_000
WAIT_MS: Final = 250
"""For a call's keys, at most; reading one whose data key is open takes a fraction of a millisecond."""
HUNG_MS: Final = 5_000
"""So long after a wait that was in vain others wait `SHORT_WAIT_MS` only."""
SHORT_WAIT_MS: Final = 25


def vault_path(config: NodeConfig) -> Path:
    """The vault's file on this node."""
    return Path(config.data_dir) / VAULT_FILE


def key_encryption(config: VaultConfig, environ: Mapping[str, str]) -> KeyEncryption:
    """The key-encryption keys that the configuration names. Raises `KekUnusable` and `BadInput`."""
    current, *older = (_held_keys(each, environ) for each in (config.kek, *config.older))
    return CompositeKeyEncryption(current, older) if older else current


def _held_keys(kek: FileKek | EnvironmentKek | TransitKek, environ: Mapping[str, str]) -> HeldKeys:
    if not isinstance(kek, TransitKek):
        return LocalKeyEncryption(_local_kek(kek, environ), (), os.urandom)
    settings = TransitSettings(
        kek.url.rstrip("/"), kek.key, kek.mount.strip("/"), kek.namespace, kek.timeout_ms
    )
    return TransitKeyEncryption(settings, token_from_file(kek.token_file))


def _local_kek(kek: FileKek | EnvironmentKek, environ: Mapping[str, str]) -> LocalKek:
    if isinstance(kek, FileKek):
        return kek_from_file(kek.label, kek.path)
    return kek_from_environment(kek.label, kek.variable, environ)


async def open_vault(config: NodeConfig, environ: Mapping[str, str]) -> Vault | None:
    """The vault of a node; None where it has none. Close it with `Vault.aclose`. Raises `VaultError`."""
    if config.vault is None:
        return None
    try:
        keks = key_encryption(config.vault, environ)
    except KekUnusable as error:
        needed = await _wrapping(config, environ)
        if not needed:
            raise
        raise KekUnusable(f"{error}; what the vault keeps is wrapped by {', '.join(needed)}") from error
    store = await open_vault_store(config, environ)
    return Vault(store, keks, random_bytes=os.urandom, now_ms=_now_ms)


async def open_vault_store(config: NodeConfig, environ: Mapping[str, str]) -> SecretStore:
    """Where a node's vault is kept: in Postgres, as its tenants are, or in its file. Raises `VaultStoreError`.

    Beside files, a ``store.postgres`` section says where the vault may be brought to while the node runs: it follows.
    """
    if config.store.kind == "postgres":
        return await open_vault_database(config.store.postgres_or_default, environ)
    file = await SqliteStore.open(vault_path(config))
    if config.store.postgres is None:
        return file
    return FollowingStore(file, partial(open_vault_database, config.store.postgres, environ))


async def open_vault_database(config: PostgresConfig, environ: Mapping[str, str]) -> PostgresSecretStore:
    """The vault of all nodes on one database. Raises `VaultStoreError`, without the URL: it may hold a password."""
    # A node on files does without the driver.
    from tenancy.vault_database import VaultDatabase
    from vault.postgres import PostgresSecretStore

    url = environ.get(config.url_env, "")
    if not url.strip():
        raise VaultStoreError(f"the vault is in Postgres, and {config.url_env} is not set")
    return await PostgresSecretStore.open(VaultDatabase(url, config))


async def move_vault(config: NodeConfig, environ: Mapping[str, str], *, back: bool) -> MoveReport:
    """Bring the node's vault from its file to the ``store.postgres`` database, or back, and verify its audit trail there.

    Raises `VaultError`, as `vault.moving.move` does; `AuditBroken` where the trail is not sound at its new place.
    """
    if config.vault is None or config.store.postgres is None:
        raise VaultStoreError("the node's configuration has no vault section, or no store.postgres section")
    keks = key_encryption(config.vault, environ)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(keks.aclose)
        file = await SqliteStore.open(vault_path(config))
        opened.push_async_callback(file.aclose)
        database = await open_vault_database(config.store.postgres, environ)
        opened.push_async_callback(database.aclose)
        source, target = cast("tuple[MovableStore, MovableStore]", (file, database)[:: -1 if back else 1])
        anchor = await source.alone(lambda rows: rows.head())
        report = await move(source, target, keks)
        moved = Vault(target, keks, random_bytes=os.urandom, now_ms=_now_ms)
        finding = await moved.verify_audit(anchor)
        if finding is not None:
            raise AuditBroken(
                f"the vault was moved, and its audit trail is not sound at entry {finding.sequence}: {finding.reason}"
            )
        return report


async def absent_keys(
    config: NodeConfig, environ: Mapping[str, str], tenant_id: str, names: Sequence[str]
) -> Mapping[str, str]:
    """Those of a tenant's keys that a call would do without, and why: ``is missing``, ``was revoked``.

    Needs no key-encryption key. A vault's file that is not there yet has no keys, and is not made. Raises `VaultError`.
    """
    present: dict[str, str | None] = {}
    if config.store.kind == "postgres" or await asyncio.to_thread(vault_path(config).exists):
        store = await open_vault_store(config, environ)
        try:
            present = {row.name: row.revoked_at for row in await store.secrets(tenant_id)}
        finally:
            await store.aclose()
    missing = {name: "is missing" for name in names if name not in present}
    return missing | {name: "was revoked" for name in names if present.get(name) is not None}


def vault_name(config: NodeConfig) -> str:
    """What people are told of where the vault is."""
    return "the vault in Postgres" if config.store.kind == "postgres" else str(vault_path(config))


async def _wrapping(config: NodeConfig, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The ids of the key-encryption keys that wrap data keys, as far as the first of these tell."""
    if config.store.kind == "sqlite" and not await asyncio.to_thread(vault_path(config).exists):
        return ()
    store = await open_vault_store(config, environ)
    try:
        rows = await store.data_keys_not_under("", None, SAMPLE)
    finally:
        await store.aclose()
    return tuple(sorted({row.wrapped.kek_id for row in rows}))


async def open_tenant_keys(
    config: NodeConfig, environ: Mapping[str, str], on_secret: Callable[[str], object] = lambda _: None
) -> TenantKeys | None:
    """The keys of a node's tenants; None where it has no vault. ``on_secret`` learns of each key before it is used.

    Raises:
        VaultError: the vault cannot be used as it is: a key-encryption key is gone (the text has its id), the file is
        damaged. Of a key service that does not answer now a log line tells: it may come back.
    """
    vault = await open_vault(config, environ)
    if vault is None:
        return None
    try:
        await vault.check_keks()
    except KekUnavailable as error:
        logger.error("tenants' keys cannot be opened until the key service answers: {}", error)
    except BaseException:
        await vault.aclose()
        raise
    return TenantKeys(vault, on_secret=on_secret)


@dataclass(frozen=True, slots=True)
class _Wait:
    """Of one call, for all its keys."""

    ms: int
    until_s: float
    """By the event loop's clock."""

    @classmethod
    def of(cls, ms: int) -> _Wait:
        return cls(ms, asyncio.get_running_loop().time() + ms / 1000)


class TenantKeys:
    """The keys of a node's tenants, and what their providers say of them."""

    def __init__(
        self,
        vault: Vault,
        *,
        now_ms: Callable[[], int] | None = None,
        on_secret: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.resolver: Final = KeyResolver()
        self._vault = vault
        self._now_ms = now_ms or _now_ms
        self._on_secret = on_secret
        self._hung_until_ms: int | None = None

    async def fetch(self, tenant_id: str, names: Sequence[str]) -> CallKeys:
        """The keys of these names, or why there is none. Raises nothing but cancellation."""
        hung = self._hung_until_ms is not None and self._now_ms() < self._hung_until_ms
        wait = _Wait.of(SHORT_WAIT_MS if hung else WAIT_MS)
        sealed = await self._within(wait, self._vault.sealed(tenant_id, names), tenant_id, ", ".join(names))

        async def opened(name: str) -> FoundKey:
            if isinstance(sealed, FoundKey):
                return sealed
            found = await self._within(wait, self._vault.open(tenant_id, name, sealed), tenant_id, name)
            if isinstance(found, FoundKey):
                return found
            info, secret = found
            self._on_secret(secret.reveal())
            return FoundKey(secret, info.version)

        # At once: one whose data key cannot be opened in time does not hold the others up.
        keys = [await opened(names[0])] if len(names) == 1 else await asyncio.gather(*map(opened, names))
        return CallKeys(tenant_id, dict(zip(names, keys, strict=True)), self.resolver, self._now_ms())

    @property
    def vault(self) -> Vault:
        """Where they are kept, for who administers them."""
        return self._vault

    def now_ms(self) -> int:
        """The resolver's clock."""
        return self._now_ms()

    async def _within(self, wait: _Wait, work: Awaitable[T], tenant_id: str, name: str) -> T | FoundKey:
        """What comes of it by then, or why there is no key."""
        try:
            async with asyncio.timeout_at(wait.until_s):
                return await work
        except SecretMissing:
            return FoundKey(None, reason="is missing")
        except SecretRevoked:
            return FoundKey(None, reason="was revoked")
        except TimeoutError:
            if wait.ms == WAIT_MS:
                self._hung_until_ms = self._now_ms() + HUNG_MS
            return self._unreadable(tenant_id, name, f"was not read within {wait.ms} ms")
        except VaultError as error:
            return self._unreadable(tenant_id, name, f"is unreadable ({type(error).__name__})", str(error))

    @staticmethod
    def _unreadable(tenant_id: str, name: str, reason: str, detail: str = "") -> FoundKey:
        logger.bind(tenant=tenant_id).error("key {} {}{}", name, reason, f": {detail}" if detail else "")
        return FoundKey(None, reason=reason)

    async def aclose(self) -> None:
        """Close the vault."""
        await self._vault.aclose()


async def chains_for(
    config: TenantConfig,
    platform: PlatformProviders,
    environ: Mapping[str, str],
    keys: TenantKeys | None,
) -> Chains:
    """The chains of a tenant, with its keys from the vault where its configuration names any."""
    names = key_names(config.providers) if keys is not None else ()
    fetched = await keys.fetch(config.tenant_id, names) if keys is not None and names else None
    return resolve(config.providers, platform, environ, fetched)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
