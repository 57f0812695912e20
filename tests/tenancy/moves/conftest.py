"""A node's files, the Postgres that its tenants go to, and who brings them there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perf.postgres_server import PostgresServer
from tenancy.both_stores import BothStores
from tenancy.migration import Migration
from tenancy.postgres_store import PostgresStore
from tenancy.sqlite_store import SqliteStore
from tests.tenancy.moves.stores import CONFIG, node_store


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
async def node(tmp_path: Path, url: str) -> AsyncIterator[BothStores]:
    store = await node_store(tmp_path, url)
    yield store
    await store.close()


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path)
    yield store
    await store.close()


@pytest.fixture
async def there(url: str) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(url, CONFIG)
    yield store
    await store.close()


@pytest.fixture
def mover(files: SqliteStore, there: PostgresStore) -> Migration:
    """The command, beside the node."""
    return Migration(files, there)
