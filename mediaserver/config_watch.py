"""What others change in configurations, as far as a node has to do something for it besides its calls.

Calls ask for their version each. But somebody has to make the phrases of a new version before the first caller hears them,
and to end a trial that no call ends. So every `LOOK_S` the store is asked which tenants have changed since, and whose trial is
due: two look-ups in an index, however many tenants there are. A change in this process can be told at once (`changed`), and
a call with a version that was never seen tells of it, too.

Phrases are made for at most `TENANTS_AT_ONCE` tenants at a time, in the order of the changes. At most `MAX_PENDING` wait; what
is left out then is made by the first call that needs it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from loguru import logger

from config.tenant import TenantConfig
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import CONFIG_CHANGES
from mediaserver.telemetry.trial_log import TrialLog
from tenancy import ActiveTenant, Registry, ResolvedProvider, TenancyError
from tenancy.store import VersionKey

LOOK_S: Final = 0.5
TENANTS_AT_ONCE: Final = 4
TENANT_TIMEOUT_S: Final = 60.0
"""For the phrases of one tenant: one whose provider hangs keeps the others waiting no longer."""
MAX_PENDING: Final = 10_000
MAX_BATCHES: Final = 50
"""Of changes in one look: the rest waits for the next."""
EVER_MS: Final = 2**62

Warm = Callable[[TenantConfig, tuple[ResolvedProvider, ...]], Awaitable[int]]
"""Makes the fixed phrases of a configuration; returns how many are missing still."""


class ConfigWatch:
    """One for a node. Who answers here is known to it."""

    def __init__(
        self,
        registry: Registry,
        meters: Meters,
        trials: TrialLog,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._meters = meters
        self._trials = trials
        self._pause = pause
        self._last = 0
        self._tenants: dict[str, ActiveTenant] = {}
        self._pending: OrderedDict[str, None] = OrderedDict()
        self._working: set[str] = set()
        self._overdue: set[str] = set()
        self._some_pending = asyncio.Event()
        self._failing: str | None = None

    @property
    def tenants(self) -> tuple[ActiveTenant, ...]:
        """The tenants that answer here, with their active version."""
        return tuple(self._tenants.values())

    async def begin(self) -> None:
        """Look at every tenant, once; from then on only at what changes. Raises `StoreError`."""
        store = self._registry.store
        # First: what changes meanwhile is looked at twice rather than never.
        self._last = await store.last_change()
        self._tenants = {each.config.tenant_id: each for each in await self._registry.active_tenants()}
        # Those of the first page; of further ones the first call that has the version on trial tells.
        for due in await store.due_trials(EVER_MS):
            self.changed(due.tenant_id)
        self._registry.on_new_version = self._seen
        self._registry.on_trial_over = self._trial_over

    def changed(self, tenant_id: str) -> None:
        """What calls of a tenant get may be something else now; returns at once."""
        if tenant_id not in self._pending and len(self._pending) >= MAX_PENDING:
            self._meters.inc(CONFIG_CHANGES, "dropped")
            return
        self._pending[tenant_id] = None
        self._some_pending.set()

    def _seen(self, tenant_id: str, version: VersionKey) -> None:
        """A call has a version that its registry had not parsed: news, unless it is the one that is known here."""
        known = self._tenants.get(tenant_id)
        if known is None or known.config_version != version.version:
            self.changed(tenant_id)

    def _trial_over(self, tenant_id: str) -> None:
        if len(self._overdue) < MAX_PENDING:
            self._overdue.add(tenant_id)

    async def run(self, warm: Warm) -> None:
        """Look again and again, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_on(), name="config-watch")
            for _ in range(TENANTS_AT_ONCE):
                tasks.create_task(self._prepare_on(warm), name="config-phrases")

    async def _look_on(self) -> None:
        while True:
            await self.look()
            await self._pause(LOOK_S)

    async def look(self) -> None:
        """Look once: what has changed is prepared by and by, trials that are due are ended."""
        try:
            await self._take_changes()
            await self._end_trials()
        except Exception as error:  # noqa: BLE001 - the outer boundary of a look: the next one looks again
            said = str(error) if isinstance(error, TenancyError) else repr(error)
            if self._failing != said:
                logger.error("changes of configurations are not noticed at present: {}", said)
            self._failing = said
        else:
            self._failing = None

    async def _take_changes(self) -> None:
        for _ in range(MAX_BATCHES):
            found = await self._registry.store.changes(self._last)
            for tenant_id in found.tenant_ids:
                self.changed(tenant_id)
            self._last = found.last
            if not found.more:
                return

    async def _end_trials(self) -> None:
        for tenant_id in tuple(self._overdue):
            await self._registry.lifecycle.watch_trial(tenant_id)
            self._overdue.discard(tenant_id)
        for tenant_id, edit in await self._registry.lifecycle.end_due_trials():
            self._trials.ended(tenant_id, edit)

    async def _prepare_on(self, warm: Warm) -> None:
        while True:
            await self._some_pending.wait()
            # One look at a tenant at a time: an older one that took longer would undo what a newer one has found.
            tenant_id = next((each for each in self._pending if each not in self._working), None)
            if tenant_id is None:
                self._some_pending.clear()
                continue
            del self._pending[tenant_id]
            self._working.add(tenant_id)
            try:
                outcome = await self._prepare(tenant_id, warm)
            finally:
                self._working.discard(tenant_id)
                if self._pending:
                    self._some_pending.set()
            self._meters.inc(CONFIG_CHANGES, outcome)

    async def _prepare(self, tenant_id: str, warm: Warm) -> str:
        """Know a tenant as it is now, and make what it says."""
        missing = 0
        try:
            served = await self._registry.served_versions(tenant_id)
            if served:
                self._tenants[tenant_id] = served[0]
            else:
                self._tenants.pop(tenant_id, None)
            async with asyncio.timeout(TENANT_TIMEOUT_S):
                for each in served:
                    missing += await warm(each.config, each.tts)
        except Exception as error:  # noqa: BLE001 - the outer boundary: one tenant's fault must not be the others'
            logger.bind(tenant=tenant_id).error("its fixed phrases are not made: {!r}", error)
            return "failed"
        if missing:
            logger.bind(tenant=tenant_id).warning("{} fixed phrases are not cached", missing)
            return "incomplete"
        return "prepared"
