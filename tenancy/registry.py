"""What was called, on which trunk -> tenant -> context; imports of configurations; records of calls.

Where all of it is kept is the store's: SQLite files or Postgres (`tenancy.store`).
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from loguru import logger

from config.canonical import canonical_json
from config.errors import ConfigError
from config.loader import load_tenants, stored_tenant
from config.node import NodeConfig, PlatformProviders
from config.site_keys import SiteKey
from config.tenant import TENANT_ID_PATTERN, WEB_TRUNK, TenantConfig
from config.variables import VariableError, filled_in
from tenancy.addresses import addresses_of, registration_of
from tenancy.call_log import MAX_LISTED_CALLS, record_of, row_of
from tenancy.called import Unreadable
from tenancy.canary import CallOutcome
from tenancy.context import ActiveTenant, CallRecord, ResolvedTenant, TenantContext, VersionInfo
from tenancy.errors import (
    CallNotRouted,
    StoreCorrupt,
    StoreError,
    TenantMoved,
    UnknownTenant,
    UnknownVersion,
)
from tenancy.keys import TenantKeys, chains_for
from tenancy.ledger import Edit
from tenancy.lifecycle import Lifecycle
from tenancy.routing import (
    NoTrunk,
    Outcome,
    Registration,
    Routed,
    route,
    route_site,
)
from tenancy.spending import unpriced
from tenancy.store import (
    MAX_KNOWN,
    MAX_OPEN_SHARDS,
    CallPlace,
    NewVersion,
    Store,
    TenantRow,
    TenantStatus,
    VersionContent,
    VersionKey,
)
from tenancy.trunks import Called, CalledSite, Trunks

NO_TRUNK: Final = "none"
"""Stands for the trunk where nobody calls."""
MAX_SHOWN_ID_CHARACTERS = 64
MAX_CACHED_TENANTS = 1_024
"""Tenants whose parsed configurations are kept, at most `MAX_KNOWN` each, by their hashes: so none goes stale."""
_TENANT_ID: Final = re.compile(TENANT_ID_PATTERN)


async def open_registry(config: NodeConfig, environ: Mapping[str, str]) -> Registry:
    """Open the node's databases and import its tenant files; raises `TenancyError` or `ConfigError`.

    A tenant whose own data cannot be used, or that has moved, is logged and left as it is: the others answer.
    """
    from tenancy.opening import open_store  # call workers need contexts alone, and no databases' libraries

    tenants = load_tenants(config.tenants)
    trunks = Trunks.of(config).ids
    registry = Registry(await open_store(config, environ), config.providers, environ)
    try:
        for tenant in tenants:
            if trunks.isdisjoint(tenant.trunks):
                logger.warning(
                    "{} is called by none of its numbers here: its trunks are {}, the node's {}",
                    tenant.tenant_id,
                    ", ".join(tenant.trunks) or "none",
                    ", ".join(sorted(trunks)),
                )
            try:
                await registry.lifecycle.follow(tenant, author="node start", reason="tenant file")
            except (StoreError, TenantMoved) as error:
                logger.error("{} is not imported: {}", tenant.tenant_id, error)
    except BaseException:
        await registry.close()
        raise
    return registry


class Registry:
    """The tenants of a node."""

    def __init__(self, store: Store, platform: PlatformProviders, environ: Mapping[str, str]) -> None:
        self._store = store
        self._platform = platform
        self._environ = environ
        self.lifecycle = Lifecycle(
            store, unpriced=lambda config: unpriced(config.providers, platform, environ)
        )
        """What becomes of configuration versions."""
        self.keys: TenantKeys | None = None
        """Tenants' own keys, where the node has a vault; whoever opened it closes it."""
        self.on_new_version: Callable[[str, VersionKey], None] = lambda *_: None
        """Told of a tenant whose call has a version that none here had before: this program may not have been told of it."""
        self.on_trial_over: Callable[[str], None] = lambda _: None
        """Told of a tenant whose trial still runs, though a call has seen that its time is over."""
        self._configs: OrderedDict[str, dict[str, TenantConfig]] = OrderedDict()

    @classmethod
    async def open(
        cls,
        directory: Path,
        platform: PlatformProviders,
        environ: Mapping[str, str],
        max_open_shards: int = MAX_OPEN_SHARDS,
    ) -> Registry:
        """Open or create the SQLite databases in ``directory``."""
        from tenancy.sqlite_store import SqliteStore  # as in `open_registry`

        return cls(await SqliteStore.open(directory, max_open_shards), platform, environ)

    @property
    def store(self) -> Store:
        """The databases, for what works on them as a whole."""
        return self._store

    async def close(self) -> None:
        """Close the databases."""
        await self._store.close()

    # -- routing ---------------------------------------------------------------------------------------

    async def outcome(self, called: Called) -> Outcome:
        """Whose call it is: what was called on which trunk, and what is registered. Raises `StoreError`."""
        if isinstance(called, CalledSite):
            key = SiteKey.parse(called.key)
            found = await self._registered(key.text) if isinstance(key, SiteKey) else {}
            return route_site(key, found.get(str(key)), called.origin)
        if called.trunk is None:
            return NoTrunk()
        reading = called.reading(called.trunk)
        found = {} if isinstance(reading, Unreadable) else await self._registered(*reading.numbers)
        return route(called.trunk.trunk_id, reading, found)

    async def _registered(self, *addresses: str) -> dict[str, Registration]:
        return {
            each.address.address: registration_of(each) for each in await self._store.registered(addresses)
        }

    async def resolve(self, called: Called) -> ResolvedTenant:
        """Whose call it is. Raises `CallNotRouted`, `StoreError`."""
        outcome = await self.outcome(called)
        if not isinstance(outcome, Routed):
            raise CallNotRouted(outcome)
        trunk_id = (
            WEB_TRUNK if isinstance(called, CalledSite) or called.trunk is None else called.trunk.trunk_id
        )
        return ResolvedTenant(outcome.tenant_id, outcome.key, trunk_id)

    async def context_for(self, called: Called, *, call_id: str) -> TenantContext:
        """The context of a call, pinned to the version that is active now or on trial for this call.

        Raises as `resolve`.
        """
        tenant = await self.resolve(called)
        return await self._pinned_context(
            tenant, call_id, await self._active_config(tenant.tenant_id, call_id)
        )

    async def context_to_prepare(self, tenant: ActiveTenant) -> TenantContext:
        """The context in which a tenant's answers are made before anybody calls. Raises `StoreError`."""
        tenant_id, number = tenant.config.tenant_id, tenant.config.numbers[0]
        return await self._pinned_context(
            ResolvedTenant(tenant_id, number, NO_TRUNK), "warm-up", await self._active_config(tenant_id)
        )

    async def _pinned_context(
        self, tenant: ResolvedTenant, call_id: str, pinned: tuple[TenantConfig, VersionKey]
    ) -> TenantContext:
        config, version = pinned
        chains = await chains_for(config, self._platform, self._environ, self.keys)
        return TenantContext(
            tenant_id=tenant.tenant_id,
            call_id=call_id,
            called_number=tenant.called_number,
            trunk_id=tenant.trunk_id,
            config=config,
            config_version=version.version,
            content_hash=version.content_hash,
            stt=chains.stt,
            llm=chains.llm,
            tts=chains.tts,
            skipped_providers=chains.skipped,
            provider_steps=chains.steps,
            voice_of=chains.voice,
        )

    async def _active_config(
        self, tenant_id: str, call_id: str | None = None
    ) -> tuple[TenantConfig, VersionKey]:
        # Asked for at every call, so that what another process activates serves the next one.
        parsed = dict(self._configs.get(tenant_id, {}))
        texts = await self._store.serving_texts(tenant_id, tuple(parsed))
        if texts is None:
            raise StoreCorrupt(f"{self._store.place(tenant_id)}: no configuration is active")
        serving = texts.serving
        active = serving.active
        if call_id is not None:
            active = self.lifecycle.arm_of(serving, call_id)
            if active.content_hash not in parsed:
                self.on_new_version(tenant_id, active)
            if serving.trial is not None and self.lifecycle.running_arm(serving) is None:
                self.on_trial_over(tenant_id)
        config = parsed.pop(active.content_hash, None)
        if config is None:
            stored = VersionContent(active.content_hash, texts.bodies[active.content_hash])
            config = _as_said(self._parsed(tenant_id, active.version, stored))
        self._keep(tenant_id, {**parsed, active.content_hash: config})
        return config, active

    async def _config_of(self, tenant_id: str, key: VersionKey) -> TenantConfig:
        parsed = dict(self._configs.get(tenant_id, {}))
        config = parsed.pop(key.content_hash, None)
        if config is None:
            config = _as_said(await self._load_version(tenant_id, key.version))
        self._keep(tenant_id, {**parsed, key.content_hash: config})
        return config

    def _keep(self, tenant_id: str, parsed: dict[str, TenantConfig]) -> None:
        """Keep these, the last of them for longest."""
        self._configs[tenant_id] = dict([*parsed.items()][-MAX_KNOWN:])
        self._configs.move_to_end(tenant_id)
        if len(self._configs) > MAX_CACHED_TENANTS:
            self._configs.popitem(last=False)

    async def _load_version(self, tenant_id: str, version: int) -> TenantConfig:
        """One version, checked against its hash and its tenant."""
        stored = await self._store.content(tenant_id, version)
        if stored is None:
            raise UnknownVersion(f"{self._store.place(tenant_id)}: no configuration version {version}")
        return self._parsed(tenant_id, version, stored)

    def _parsed(self, tenant_id: str, version: int, stored: VersionContent) -> TenantConfig:
        place = self._store.place(tenant_id)
        if hashlib.sha256(stored.body.encode()).hexdigest() != stored.content_hash:
            raise StoreCorrupt(f"{place}: version {version} is not what was written")
        try:
            config = stored_tenant(stored.body.encode(), f"{place}, version {version}")
        except ConfigError as error:
            raise StoreCorrupt(f"version {version} does not follow this program's schema: {error}") from error
        if config.tenant_id != tenant_id:
            raise StoreCorrupt(f"{place}: version {version} is {config.tenant_id}'s, not {tenant_id}'s")
        return config

    # -- tenants ---------------------------------------------------------------------------------------

    async def import_tenant(self, config: TenantConfig, *, author: str, reason: str) -> int:
        """Make a configuration the active one; returns its version. The same content makes no new version.

        Raises:
            NumberTaken: one of its addresses belongs to another tenant. TenantMoved: it is another node's. StoreError.
            Nothing is changed then.
        """
        body = canonical_json(config)
        return await self._store.import_version(
            NewVersion(
                tenant_id=config.tenant_id,
                addresses=addresses_of(config),
                content_hash=hashlib.sha256(body).hexdigest(),
                schema_version=config.schema_version,
                author=author,
                reason=reason,
                created_at=datetime.now(UTC),
                body=body.decode(),
            )
        )

    async def restore_version(self, tenant_id: str, version: int, *, author: str, reason: str) -> int:
        """Go back to an earlier configuration, as a new version with its content, so that history only grows.

        Raises:
            UnknownTenant, UnknownVersion, NumberTaken, TenantMoved, StoreError.
        """
        await self._known(tenant_id)
        config = await self._load_version(tenant_id, version)
        return await self.import_tenant(config, author=author, reason=reason)

    async def versions(self, tenant_id: str) -> tuple[VersionInfo, ...]:
        """Every version of a tenant's configuration, newest first. Raises `UnknownTenant`."""
        await self._known(tenant_id)
        return await self._store.versions(tenant_id)

    async def set_status(
        self,
        tenant_id: str,
        status: TenantStatus,
        *,
        moved_to: str | None = None,
        expected: TenantRow | None = None,
    ) -> None:
        """Suspend or activate a tenant, or note which node has it now. Calls in progress go on.

        ``moved_to``, for `TenantStatus.MOVED` alone, is that node's address. Calls are sent there where it is one of a
        `tenancy.routing.Home`; else they are told that the tenant is gone. ``expected`` is what the author saw.

        Raises `UnknownTenant`, `TenantChanged`.
        """
        if not _is_tenant_id(tenant_id) or not await self._store.set_status(
            tenant_id, status, moved_to, expected
        ):
            raise _unknown_tenant(tenant_id)

    async def status(self, tenant_id: str) -> TenantRow:
        """Whether a tenant's calls are taken, and where it has moved to. Raises `UnknownTenant`."""
        return await self._known(tenant_id)

    async def _known(self, tenant_id: str) -> TenantRow:
        row = await self._store.tenant(tenant_id) if _is_tenant_id(tenant_id) else None
        if row is None:
            raise _unknown_tenant(tenant_id)
        return row

    async def active_tenants(self) -> tuple[ActiveTenant, ...]:
        """Every tenant that takes calls; one whose data cannot be used is logged and left out."""
        tenants, began = [], time.monotonic()
        asked = await self._store.tenant_ids(TenantStatus.ACTIVE)
        for tenant_id in asked:
            try:
                config, active = await self._active_config(tenant_id)
            except StoreError as error:
                logger.error("{} takes no calls: {}", tenant_id, error)
                continue
            tenants.append(await self._prepared(config, active))
        self._store.figures.went_across(len(asked), (time.monotonic() - began) * 1_000)
        return tuple(tenants)

    async def served_versions(self, tenant_id: str) -> tuple[ActiveTenant, ...]:
        """The versions that a tenant's new calls get: the active one, and the one on trial. None where it takes no calls.

        Raises `StoreError`.
        """
        row = await self._store.tenant(tenant_id) if _is_tenant_id(tenant_id) else None
        if row is None or row.status is not TenantStatus.ACTIVE:
            return ()
        serving = await self._store.serving(tenant_id)
        if serving is None:
            return ()
        trial = self.lifecycle.running_arm(serving)
        keys = [serving.active] if trial is None else [serving.active, trial.key]
        return tuple([await self._prepared(await self._config_of(tenant_id, key), key) for key in keys])

    async def _prepared(self, config: TenantConfig, version: VersionKey) -> ActiveTenant:
        chains = await chains_for(config, self._platform, self._environ, self.keys)
        return ActiveTenant(config, version.version, chains.tts)

    # -- calls -----------------------------------------------------------------------------------------

    async def record_call(
        self, tenant: TenantContext, record: CallRecord | None, outcome: CallOutcome | None = None
    ) -> Edit | None:
        """Keep a finished call among its tenant's, and count its outcome in the trial that may run.

        The same call a second time changes nothing. ``record`` is None for a call that could not begin. Returns what a trial
        made of it.
        """
        if outcome is not None:
            return await self.lifecycle.end_call(tenant.tenant_id, outcome, record)
        if record is not None:
            await self._store.add_call(tenant.tenant_id, row_of(record))
        return None

    async def calls(
        self, tenant_id: str, limit: int = MAX_LISTED_CALLS, before: CallPlace | None = None
    ) -> list[CallRecord]:
        """The newest calls of a tenant, or those after one of them, at most `MAX_LISTED_CALLS`. Raises `UnknownTenant`."""
        await self._known(tenant_id)
        bounded = max(0, min(limit, MAX_LISTED_CALLS))
        return [record_of(row) for row in await self._store.newest_calls(tenant_id, bounded, before)]


def _is_tenant_id(text: str) -> bool:
    """Whether a tenant can have this id; what cannot be one is not asked for."""
    return _TENANT_ID.fullmatch(text) is not None


def _as_said(config: TenantConfig) -> TenantConfig:
    """The configuration with its variables filled in."""
    try:
        return filled_in(config)
    except VariableError as error:
        # Stored before texts had variables: a brace was a brace then.
        logger.warning("the texts of {} are said as they stand: {}", config.tenant_id, error)
        return config


def _unknown_tenant(tenant_id: str) -> UnknownTenant:
    return UnknownTenant(f"no tenant {tenant_id[:MAX_SHOWN_ID_CHARACTERS]!r}")
