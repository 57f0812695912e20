"""What an operator, a program or a call's end does to a tenant's configuration versions.

Draft, validate, activate, go back, try on a share of calls; what a tenant's file says; what a finished call shows. Each is
one step in the store (`tenancy.ledger` says what comes of it), so that of two at once one wins and nothing is half done.

`Lifecycle.check` looks at content: schema and references (`config`), then whatever ``dry_run`` finds, which is given in
from outside, for this package knows no pipelines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from loguru import logger

from config.canonical import canonical_json, content_hash
from config.errors import ConfigError
from config.loader import stored_tenant
from config.references import check_references
from config.tenant import TenantConfig
from tenancy.addresses import addresses_of
from tenancy.call_log import row_of
from tenancy.canary import CallOutcome, Canary, CanaryPlan, in_share
from tenancy.context import CallRecord
from tenancy.errors import ChangeRefused, StoreCorrupt, UnknownTenant, UnknownVersion, VersionInvalid
from tenancy.ledger import Deed, Edit, Ledger, LogLine
from tenancy.store import NewVersion, Serving, Store, VersionKey
from tenancy.versions import OPEN, ConfigVersion, Origin, VersionState

DryRun = Callable[[TenantConfig], Awaitable[tuple[str, ...]]]
"""Builds what a call would be answered with, without a call, and says what does not work."""
MAX_LISTED: Final = 200
CURRENT: Final = "current"
"""As ``expected``: whichever version is active when the change is asked for."""
Expected = int | None | Literal["current"]


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a version's content."""

    errors: tuple[str, ...]
    """It cannot be used."""
    warnings: tuple[str, ...]
    """Its author may have meant it."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What came of a tenant's file."""

    version: int
    """The active one."""
    changed: bool
    """The file made it."""


def _now() -> datetime:
    return datetime.now(UTC)


class Lifecycle:
    """Configuration versions of the tenants in a store."""

    def __init__(
        self, store: Store, *, dry_run: DryRun | None = None, now: Callable[[], datetime] = _now
    ) -> None:
        self._store = store
        self._dry_run = dry_run
        self._now = now

    def origin(self, author: str, reason: str) -> Origin:
        """Who changes something now, and why. Raises `ChangeRefused` for what is blank or too long."""
        try:
            return Origin(author, reason, self._now())
        except ValueError as error:
            raise ChangeRefused(str(error)) from error

    # -- looking ---------------------------------------------------------------------------------------

    async def ledger(self, tenant_id: str) -> Ledger:
        """Every version with what became of it, and the trial that runs. Raises `UnknownTenant`."""
        await self._known(tenant_id)
        return await self._store.ledger(tenant_id)

    async def trials(self, tenant_id: str, limit: int = MAX_LISTED) -> tuple[Canary, ...]:
        """Trials, of the newest version first. Raises `UnknownTenant`."""
        await self._known(tenant_id)
        return await self._store.trials(tenant_id, max(0, min(limit, MAX_LISTED)))

    async def log(self, tenant_id: str, limit: int = MAX_LISTED) -> tuple[LogLine, ...]:
        """Who did what, latest first. Raises `UnknownTenant`."""
        await self._known(tenant_id)
        return await self._store.config_log(tenant_id, max(0, min(limit, MAX_LISTED)))

    async def config(self, tenant_id: str, version: int) -> TenantConfig:
        """What a version says. Raises `UnknownTenant`, `UnknownVersion`, `StoreCorrupt`."""
        await self._known(tenant_id)
        place = f"{tenant_id}, version {version}"
        # A version's number is an integer of the database's.
        stored = await self._store.content(tenant_id, version) if 0 < version < 2**31 else None
        if stored is None:
            raise UnknownVersion(f"{tenant_id} has no configuration version {version}")
        if hashlib.sha256(stored.body.encode()).hexdigest() != stored.content_hash:
            raise StoreCorrupt(f"{place}: is not what was written")
        try:
            config = stored_tenant(stored.body.encode(), place)
        except ConfigError as error:
            raise StoreCorrupt(f"{place}: does not follow this program's schema: {error}") from error
        if config.tenant_id != tenant_id:
            raise StoreCorrupt(f"{place}: is {config.tenant_id}'s")
        return config

    async def check(self, config: TenantConfig) -> Report:
        """What is wrong with a configuration that follows the schema."""
        found = check_references(config)
        errors = [f"{each.field}: {each.text}" for each in found.errors]
        if not errors and self._dry_run is not None:
            errors.extend(await self._dry_run(config))
        return Report(tuple(errors), tuple(f"{each.field}: {each.text}" for each in found.warnings))

    # -- changing --------------------------------------------------------------------------------------

    async def create(self, config: TenantConfig, origin: Origin) -> int:
        """Make a tenant of its first configuration, which is active at once; returns its version.

        Raises `TenantExists`, `NumberTaken`, `VersionInvalid`; nothing is there then.
        """
        report = await self.check(config)
        if report.errors:
            raise VersionInvalid(report.errors)
        body = canonical_json(config).decode()
        return await self._store.import_version(
            NewVersion(
                tenant_id=config.tenant_id,
                addresses=addresses_of(config),
                content_hash=hashlib.sha256(body.encode()).hexdigest(),
                schema_version=config.schema_version,
                author=origin.author,
                reason=origin.reason,
                created_at=origin.at,
                body=body,
                new_tenant=True,
            )
        )

    async def draft(self, config: TenantConfig, origin: Origin) -> ConfigVersion:
        """Add a version that no call gets yet. Raises `UnknownTenant`, `ChangeRefused`."""
        await self._known(config.tenant_id)
        body = canonical_json(config).decode()
        digest = hashlib.sha256(body.encode()).hexdigest()
        edit = await self._store.edit(
            config.tenant_id, lambda ledger: ledger.draft(digest, config.schema_version, body, origin)
        )
        return self._told(config.tenant_id, edit).version

    async def validate(self, tenant_id: str, version: int, origin: Origin) -> Report:
        """Check a draft and note what came of it: it is validated or, with errors, refused for good.

        Raises `UnknownTenant`, `UnknownVersion`, and `ChangeRefused` where it is no draft.
        """
        report = await self.check(await self.config(tenant_id, version))

        def change(ledger: Ledger) -> Edit:
            if not report.errors:
                return ledger.validate(version, origin)
            found = ledger.history.get(version)
            if found is not None and found.state is not VersionState.DRAFT:
                # Only a draft is refused for what a check finds; `validate` says so.
                return ledger.validate(version, origin)
            return ledger.reject(version, origin)

        self._told(tenant_id, await self._store.edit(tenant_id, change))
        return report

    async def reject(self, tenant_id: str, version: int, origin: Origin) -> ConfigVersion:
        """Keep a version from ever becoming active; one on trial is taken back. Raises `ChangeRefused`."""
        await self._known(tenant_id)
        edit = await self._store.edit(tenant_id, lambda ledger: ledger.reject(version, origin))
        return self._told(tenant_id, edit).version

    async def activate(
        self, tenant_id: str, version: int, origin: Origin, *, expected: Expected = CURRENT
    ) -> ConfigVersion:
        """Give a version to new calls, with its addresses; a draft is validated first.

        ``expected`` is the version that the author saw active (None: none). Nothing is changed where it fails.

        Raises:
            VersionConflict: another is active by now. VersionInvalid: the draft has errors. ChangeRefused. NumberTaken.
            UnknownTenant. UnknownVersion. TenantMoved.
        """
        ledger = await self.ledger(tenant_id)
        config = await self.config(tenant_id, version)
        seen = _active(ledger) if expected == CURRENT else expected
        found = ledger.history.get(version)
        if found is not None and found.state is VersionState.DRAFT and seen == _active(ledger):
            report = await self.validate(tenant_id, version, origin)
            if report.errors:
                raise VersionInvalid(report.errors)
        edit = await self._store.edit(
            tenant_id, lambda ledger: ledger.activate(version, origin, expected=seen), addresses_of(config)
        )
        return self._told(tenant_id, edit).version

    async def roll_back(
        self, tenant_id: str, to: int, origin: Origin, *, expected: Expected = CURRENT
    ) -> ConfigVersion:
        """Give new calls the content and the addresses of an earlier version, as a new version. Raises as `activate`."""
        ledger = await self.ledger(tenant_id)
        config = await self.config(tenant_id, to)
        seen = _active(ledger) if expected == CURRENT else expected
        edit = await self._store.edit(
            tenant_id, lambda ledger: ledger.roll_back(to, origin, expected=seen), addresses_of(config)
        )
        return self._told(tenant_id, edit).version

    async def begin_trial(self, tenant_id: str, plan: CanaryPlan, origin: Origin) -> ConfigVersion:
        """Give a version to a share of calls; a draft is validated first. Raises as `activate`.

        It must have the baseline's addresses: whose they are and from where they are called does not depend on the call.
        """
        ledger = await self.ledger(tenant_id)
        config = await self.config(tenant_id, plan.version)
        addresses = set(addresses_of(await self.config(tenant_id, plan.baseline)))
        changed = {each.address for each in addresses.symmetric_difference(addresses_of(config))}
        if changed:
            raise ChangeRefused(
                f"version {plan.version} has other numbers, addresses, trunks or origins than {plan.baseline}"
                f" ({', '.join(sorted(changed))}), which no share of the calls can have; activate it instead"
            )
        found = ledger.history.get(plan.version)
        if found is not None and found.state is VersionState.DRAFT and _active(ledger) == plan.baseline:
            report = await self.validate(tenant_id, plan.version, origin)
            if report.errors:
                raise VersionInvalid(report.errors)
        edit = await self._store.edit(tenant_id, lambda ledger: ledger.begin_trial(plan, origin))
        return self._told(tenant_id, edit).version

    async def end_trial(self, tenant_id: str, origin: Origin) -> ConfigVersion:
        """Take the version on trial back. Raises `ChangeRefused` where none is."""
        await self._known(tenant_id)
        edit = await self._store.edit(tenant_id, lambda ledger: ledger.end_trial(origin))
        return self._told(tenant_id, edit).version

    async def is_followed(self, config: TenantConfig) -> bool:
        """Whether this is what the tenant's file said when it was last taken over."""
        if await self._store.tenant(config.tenant_id) is None:
            return False
        return await self._store.followed(config.tenant_id) == content_hash(config)

    async def follow(self, config: TenantConfig, *, author: str, reason: str) -> Followed:
        """Make what a tenant's file says the active version, where the file is another than the one followed last.

        A file that did not change takes back nothing that somebody did since; its tenant's addresses are set right.

        Raises:
            NumberTaken. TenantMoved. StoreError. Nothing is changed then.
        """
        tenant_id = config.tenant_id
        body = canonical_json(config).decode()
        digest = hashlib.sha256(body.encode()).hexdigest()
        unchanged = False
        before: VersionKey | None = None
        if await self._store.tenant(tenant_id) is not None:
            before = await self._store.active(tenant_id)
            if before is not None and await self._store.followed(tenant_id) == digest:
                unchanged = before.content_hash != digest
        if unchanged and before is not None:
            config = await self.config(tenant_id, before.version)
            body = canonical_json(config).decode()
            digest = before.content_hash
        version = await self._store.import_version(
            NewVersion(
                tenant_id=tenant_id,
                addresses=addresses_of(config),
                content_hash=digest,
                schema_version=config.schema_version,
                author=author,
                reason=reason,
                created_at=self._now(),
                body=body,
                followed=not unchanged,
            )
        )
        changed = before is None or version != before.version
        return Followed(version, changed)

    # -- calls -----------------------------------------------------------------------------------------

    async def end_call(
        self, tenant_id: str, outcome: CallOutcome, record: CallRecord | None = None
    ) -> Edit | None:
        """Keep a call's record and count it in the tenant's trial, once. The edit, where a trial has counted it.

        ``record`` is None for a call that could not begin.
        """
        row = None if record is None else row_of(record)
        edit = await self._store.end_call(tenant_id, row, lambda ledger: ledger.observe(outcome, self._now()))
        return None if edit is None else self._told(tenant_id, edit)

    def arm_of(self, serving: Serving, call_id: str) -> VersionKey:
        """The version that a new call gets."""
        return arm_of(serving, call_id, int(self._now().timestamp() * 1000))

    # -- inside ----------------------------------------------------------------------------------------

    async def _known(self, tenant_id: str) -> None:
        if len(tenant_id) > 63 or not tenant_id.isascii() or "\0" in tenant_id:
            raise UnknownTenant(f"no tenant {tenant_id[:63]!r}")
        if await self._store.tenant(tenant_id) is None:
            raise UnknownTenant(f"no tenant {tenant_id!r}")

    def _told(self, tenant_id: str, edit: Edit) -> Edit:
        for line in edit.log:
            logger.bind(tenant=tenant_id, event="config_change").log(
                "WARNING" if line.deed is Deed.TRIAL_ROLLED_BACK else "INFO",
                "{} version {} {} by {}: {}",
                tenant_id,
                line.version,
                line.deed.value,
                line.origin.author,
                line.origin.reason,
            )
        return edit


def arm_of(serving: Serving, call_id: str, now_ms: int) -> VersionKey:
    """The version that a new call gets: the trial's for its share while its time lasts, else the active one."""
    trial = serving.trial
    if trial is None or now_ms >= trial.ends_at_ms or not in_share(call_id, trial.key.version, trial.share):
        return serving.active
    return trial.key


def open_versions(ledger: Ledger) -> tuple[ConfigVersion, ...]:
    """Those that may still become active."""
    return tuple(each for each in ledger.history.versions if each.state in OPEN)


def _active(ledger: Ledger) -> int | None:
    return None if ledger.history.active is None else ledger.history.active.version
