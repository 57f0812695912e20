"""Stores of a test's own, on both backings, and clocks that the test turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from admin.backings import FILE, PostgresTables, SqliteFile
from admin.ports import Deed
from admin.sql_store import SqlStore
from config.node import PostgresConfig
from perf.postgres_server import NoPostgresError, PostgresServer, postgres_server
from tests.admin.api import Prepared
from tests.admin.issuer import Issuer, Keys, running_issuer
from tests.admin.jwt_node import Node, config
from tests.admin.turned import Turned


@dataclass(frozen=True)
class Backing:
    """One test's database, to be opened as often as it likes: each is a node."""

    name: str
    directory: Path
    url: str = ""
    server: PostgresServer | None = None

    async def open(self) -> SqlStore:
        if self.name == "sqlite":
            return SqlStore(await SqliteFile.open(self.directory / FILE))
        return SqlStore(await PostgresTables.open(self.url, PostgresConfig(url_env="DB", wait_ms=2_000)))


def deed(number: int = 0, tenant_id: str | None = "a", **fields: object) -> Deed:
    values: dict[str, object] = {
        "at": datetime(2027, 1, 15, 8, 0, 0, number, UTC),
        "principal": "ada",
        "credential": "0123456789abc",
        "source": "192.0.2.1",
        "action": "config.activate",
        "tenant_id": tenant_id,
        "target": "3",
        "status": 200,
        "request_id": f"r{number}",
    }
    return Deed(**(values | fields))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
async def _no_connection_outlives_its_test() -> AsyncIterator[None]:
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
    return Backing("postgres", tmp_path, server.new_database(), server)


@pytest.fixture
async def store(backing: Backing) -> AsyncIterator[SqlStore]:
    store = await backing.open()
    yield store
    await store.close()


@pytest.fixture
async def file_store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    """For what the backing does not matter to."""
    store = SqlStore(await SqliteFile.open(tmp_path / FILE))
    yield store
    await store.close()


@pytest.fixture
def turned() -> Turned:
    return Turned()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two tenants, made once."""
    return Prepared.make(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture
async def issuer(keys: Keys) -> AsyncIterator[Issuer]:
    async with running_issuer(keys) as issuer:
        yield issuer


@pytest.fixture
async def node(file_store: SqlStore, turned: Turned, issuer: Issuer) -> AsyncIterator[Node]:
    node = Node(file_store, turned, config(issuer))
    yield node
    await node.issued.aclose()
