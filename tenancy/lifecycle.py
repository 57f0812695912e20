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
from tenancy.errors import (
    ChangeRefused,
    StoreCorrupt,
    StoreError,
    TenancyError,
    UnknownTenant,
    UnknownVersion,
    VersionInvalid,
)
from tenancy.ledger import Deed, Edit, Ledger, LogLine
from tenancy.store import NewVersion, Serving, Store, TrialArm, VersionKey
from tenancy.versions import OPEN, ConfigVersion, Origin, VersionState

MAX_LISTED: Final = 200
AGAIN_MS: Final = 60_000
"""After so long a trial is looked at again that could not be ended."""
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


DryRun = Callable[[TenantConfig], Awaitable[Report]]
"""Builds what a call would be answered with, without a call, and says what does not work."""


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
        self,
        store: Store,
        *,
        dry_run: DryRun | None = None,
        now: Callable[[], datetime] = _now,
        unpriced: Callable[[TenantConfig], tuple[str, ...]] = lambda _: (),
    ) -> None:
        """``unpriced``: whose price nobody states of those who may be asked in a configuration's calls."""
        self._store = store
        self._unpriced = unpriced
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

    async def trials(
        self, tenant_id: str, limit: int = MAX_LISTED, before: int | None = None
    ) -> tuple[Canary, ...]:
        """Trials of versions below ``before``, of the newest first. Raises `UnknownTenant`."""
        await self._known(tenant_id)
        return await self._store.trials(tenant_id, max(0, min(limit, MAX_LISTED)), before)

    async def log(
        self, tenant_id: str, limit: int = MAX_LISTED, before: int | None = None
    ) -> tuple[LogLine, ...]:
        """Who did what, latest first, of entries below ``before``. Raises `UnknownTenant`."""
        await self._known(tenant_id)
        return await self._store.config_log(tenant_id, max(0, min(limit, MAX_LISTED)), before)

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
        errors = tuple(f"{each.field}: {each.text}" for each in found.errors)
        warnings = tuple(f"{each.field}: {each.text}" for each in found.warnings)
        if errors or self._dry_run is None:
            return Report(errors, warnings)
        dry = await self._dry_run(config)
        return Report(dry.errors, (*warnings, *dry.warnings))

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
        # Refused before anything is checked: what cannot be, whatever it says.
        ledger.activate(version, origin, expected=seen, checked=True)
        await self._check_draft(ledger, config, version, origin)
        edit = await self._store.edit(
            tenant_id,
            lambda ledger: ledger.activate(version, origin, expected=seen, checked=True),
            addresses_of(config),
        )
        return self._told(tenant_id, edit).version

    async def _check_draft(self, ledger: Ledger, config: TenantConfig, version: int, origin: Origin) -> None:
        """Check a draft that is to be used; one with errors is refused for good. Raises `VersionInvalid`."""
        found = ledger.history.get(version)
        if found is not None and found.state is VersionState.DRAFT and (await self.check(config)).errors:
            report = await self.validate(config.tenant_id, version, origin)
            raise VersionInvalid(report.errors)

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

        It must have the baseline's addresses: whose they are and from where they are called does not depend on the call. And a
        bound on cost needs prices: without them a trial could show nothing and would never be promoted.
        """
        ledger = await self.ledger(tenant_id)
        config = await self.config(tenant_id, plan.version)
        baseline = await self.config(tenant_id, plan.baseline)
        if plan.cost is not None and (missing := self.unpriced(baseline, config)):
            raise ChangeRefused(
                f"what calls cost is not known, so there can be no bound on it: no price is stated for {'; '.join(missing)}"
            )
        addresses = set(addresses_of(baseline))
        changed = {each.address for each in addresses.symmetric_difference(addresses_of(config))}
        if changed:
            raise ChangeRefused(
                f"version {plan.version} has other numbers, addresses, trunks or origins than {plan.baseline}"
                f" ({', '.join(sorted(changed))}), which no share of the calls can have; activate it instead"
            )
        # Refused before anything is checked or noted: what cannot be, whatever it says.
        ledger.begin_trial(plan, origin, checked=True)
        await self._check_draft(ledger, config, plan.version, origin)
        ends_at_ms = int(origin.at.timestamp() * 1000) + plan.max_duration_ms
        # Before, for a program may end after the next line; after, for who looked meanwhile saw no trial.
        await self._store.watch_trial(tenant_id, ends_at_ms)
        try:
            edit = await self._store.edit(
                tenant_id, lambda ledger: ledger.begin_trial(plan, origin, checked=True)
            )
        except ChangeRefused:
            # Somebody was faster: whose trial it is now, and when that ends, is found out by a look.
            await self._store.watch_trial(tenant_id, self._now_ms())
            raise
        await self._store.watch_trial(tenant_id, ends_at_ms)
        return self._told(tenant_id, edit).version

    def unpriced(self, *configs: TenantConfig) -> tuple[str, ...]:
        """Whose price nobody states of those who may be asked in these configurations' calls."""
        return tuple(dict.fromkeys(each for config in configs for each in self._unpriced(config)))

    async def end_trial(
        self, tenant_id: str, origin: Origin, *, expected: int | None = None
    ) -> ConfigVersion:
        """Take the version on trial back. Raises `ChangeRefused` where none is, or another than ``expected``."""
        await self._known(tenant_id)
        edit = await self._store.edit(tenant_id, lambda ledger: ledger.end_trial(origin, expected=expected))
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

    async def end_due_trials(self) -> tuple[tuple[str, Edit], ...]:
        """End the trials whose time is over, of all tenants, and return them; each is ended by one program alone.

        No tenant is asked but those that are due. One whose data cannot be used is looked at again after `AGAIN_MS`.
        Raises `StoreError` where the shared part cannot be read.
        """
        ended = []
        for due in await self._store.due_trials(self._now_ms()):
            try:
                edit, again_at_ms = await self.end_trial_if_due(due.tenant_id)
            except TenancyError as error:
                logger.bind(tenant=due.tenant_id).error("a trial that is over cannot be ended: {}", error)
                edit, again_at_ms = None, self._now_ms() + AGAIN_MS
            if edit is not None:
                ended.append((due.tenant_id, edit))
            try:
                await self._store.trial_looked_at(due, again_at_ms)
            except StoreError as error:
                # It is looked at again, and found ended: what was done meanwhile is told all the same.
                logger.bind(tenant=due.tenant_id).warning(
                    "a trial that was looked at is not noted: {}", error
                )
                break
        return tuple(ended)

    async def end_trial_if_due(self, tenant_id: str) -> tuple[Edit | None, int | None]:
        """End a tenant's trial if its time is over. Returns what that made, and when one that still runs ends."""
        running: list[Canary | None] = [None]

        def look(ledger: Ledger) -> Edit | None:
            edit = ledger.tick(self._now())
            running[0] = ledger.trial if edit is None else edit.ledger.trial
            return edit

        edit = await self._store.end_call(tenant_id, None, look)
        trial = running[0]
        ends_at_ms = None if trial is None else trial.started_ms + trial.plan.max_duration_ms
        return None if edit is None else self._told(tenant_id, edit), ends_at_ms

    async def watch_trial(self, tenant_id: str) -> None:
        """Have a tenant's trial looked at as soon as may be: a call has seen that its time is over."""
        await self._store.watch_trial(tenant_id, self._now_ms())

    def _now_ms(self) -> int:
        return int(self._now().timestamp() * 1000)

    def arm_of(self, serving: Serving, call_id: str) -> VersionKey:
        """The version that a new call gets."""
        return arm_of(serving, call_id, self._now_ms())

    def running_arm(self, serving: Serving) -> TrialArm | None:
        """The version on trial, while its time lasts."""
        trial = serving.trial
        return None if trial is None or self._now_ms() >= trial.ends_at_ms else trial

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
