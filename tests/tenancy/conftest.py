"""Databases of a test's own, on both backings, and tenants to put into them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.loader import parse_tenant_config
from config.node import PlatformProviders, PostgresConfig
from config.tenant import TenantConfig
from perf.postgres_server import NoPostgresError, PostgresServer, postgres_server
from tenancy import CalledNumber, Registry, Trunks
from tenancy.postgres_store import PostgresStore
from tenancy.sqlite_store import SqliteStore
from tenancy.store import Store


def tenant(tenant_id: str = "a", *numbers: str, greeting: str = "Hello.") -> TenantConfig:
    listed = ", ".join(f'"{number}"' for number in numbers or ("+15550100",))
    return parse_tenant_config(
        f"""
tenant_id: {tenant_id}
business_name: Business {tenant_id}
business_kind: shop
numbers: [{listed}]
time_zone: Europe/Berlin
greeting: {greeting}
address: 1 Main Street
hours:
  monday: [{{opens: 09:00, closes: 17:00}}]
human: {{name: Ada}}
""".encode(),
        f"{tenant_id}.yaml",
    )


def dialled(number: str) -> CalledNumber:
    """A number on a node that lists no trunks."""
    return CalledNumber(Trunks().web, number)


@dataclass(frozen=True)
class Backing:
    """One test's databases, to be opened as often as it likes."""

    name: str
    directory: Path
    url: str = ""

    async def open(self) -> Store:
        if self.name == "sqlite":
            return await SqliteStore.open(self.directory)
        return await PostgresStore.open(self.url, PostgresConfig(connections_max=8))

    async def open_registry(self) -> Registry:
        return Registry(await self.open(), PlatformProviders(), {})


@pytest.fixture(autouse=True)
async def _no_connection_outlives_its_test() -> AsyncIterator[None]:
    """Every connection has a thread: one that is left would be a leak, and would report to a loop that is gone."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if "connection_worker" in thread.name:
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive(), f"{thread.name} still runs"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for the whole run; each test has a database of its own."""
    try:
        with postgres_server() as server:
            yield server
    except NoPostgresError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", "postgres"])
def backing(request: pytest.FixtureRequest, tmp_path: Path) -> Backing:
    if request.param == "sqlite":
        return Backing("sqlite", tmp_path)
    server: PostgresServer = request.getfixturevalue("postgres")
    return Backing("postgres", tmp_path, server.new_database())


@pytest.fixture
async def registry(backing: Backing) -> AsyncIterator[Registry]:
    registry = await backing.open_registry()
    yield registry
    await registry.close()


@pytest.fixture
async def sqlite_registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = await Registry.open(tmp_path, PlatformProviders(), {})
    yield registry
    await registry.close()
