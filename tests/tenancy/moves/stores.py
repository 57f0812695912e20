"""Tenants that go from a node's files to Postgres and back: what there is, and what is the same afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from config.node import PostgresConfig
from tenancy import (
    TenantStatus,
)
from tenancy.both_stores import BothStores
from tenancy.canary import CallOutcome
from tenancy.ledger import Edit
from tenancy.migration import Migration, Outcome, TenantReport
from tenancy.postgres_store import PostgresStore
from tenancy.sqlite_store import SqliteStore
from tenancy.store import Store
from tests.tenancy.test_registry import NOON
from tests.tenancy.test_store_contract import add_valid, begin_trial, call, origin, version

CONFIG = PostgresConfig(connections_max=6, wait_ms=3_000)


async def node_store(directory: Path, url: str) -> BothStores:
    """The store of a node, in a program of its own as far as files and connections go."""
    return BothStores(await SqliteStore.open(directory), lambda: PostgresStore.open(url, CONFIG))


async def reports(run: AsyncIterator[TenantReport]) -> list[TenantReport]:
    return [each async for each in run]


async def outcomes(run: AsyncIterator[TenantReport]) -> dict[str, str]:
    return {each.tenant_id: each.outcome.value for each in await reports(run)}


async def everything(store: Store) -> dict[str, object]:
    """All that can be asked of a store."""
    found: dict[str, object] = {}
    for name in await store.tenant_ids():
        infos = await store.versions(name)
        found[name] = (
            await store.tenant(name),
            await store.addresses_of(name),
            await store.active(name),
            infos,
            [await store.content(name, each.version) for each in infos],
            await store.newest_calls(name, 1_000),
            await store.serving(name),
            await store.followed(name),
            await store.ledger(name),
            await store.trials(name, 1_000),
            await store.config_log(name, 1_000),
        )
    return found


async def observed(store: Store, number: int, *, failed: bool = False) -> Edit | None:
    """A call of tenant a with this version that never began, as far as its trial goes."""
    outcome = CallOutcome(number, failed=failed)
    return await store.end_call("a", None, lambda ledger: ledger.observe(outcome, NOON))


async def fill(store: Store) -> None:
    """Three tenants: with a history and a trial that runs, suspended, on another node."""
    for n in range(3):
        await store.import_version(version("a", f"a{n}", "+1", f"+2{n}"))
        await store.add_call("a", call(f"a{n}", n))
    rejected = await add_valid(store, "a", "rejected")
    await begin_trial(store, "a")
    await store.edit("a", lambda ledger: ledger.reject(rejected, origin("bo", 7)))
    assert await observed(store, 3) is not None
    await store.import_version(version("b", "b", "+3"))
    await store.set_status("b", TenantStatus.SUSPENDED)
    await store.import_version(version("c", "c", "+4"))
    await store.set_status("c", TenantStatus.MOVED, "node2")


async def move(directory: Path, url: str, *, back: bool) -> None:
    files = await SqliteStore.open(directory)
    there = await PostgresStore.open(url, CONFIG)
    try:
        mover = Migration(files, there)
        run = mover.to_sqlite() if back else mover.to_postgres()
        for report in await reports(run):
            assert report.outcome is not Outcome.FAILED, report.reason
    finally:
        await there.close()
        await files.close()
