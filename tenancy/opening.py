"""The store that a node's configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from config.node import NodeConfig, PostgresConfig
from tenancy.errors import StoreError
from tenancy.sqlite_store import SqliteStore
from tenancy.store import Store

if TYPE_CHECKING:
    from tenancy.postgres_store import PostgresStore


async def open_store(config: NodeConfig, environ: Mapping[str, str]) -> Store:
    """Open it, creating what is not there. Raises `StoreError`."""
    if config.store.kind == "postgres":
        return await open_postgres(config.store.postgres_or_default, environ)
    files = await open_sqlite(config)
    if config.store.postgres is None:
        return files
    from tenancy.both_stores import BothStores  # as in `open_postgres`

    return BothStores(files, partial(open_postgres, config.store.postgres, environ))


async def open_sqlite(config: NodeConfig) -> SqliteStore:
    """The files in the node's data folder. Raises `StoreError`."""
    return await SqliteStore.open(Path(config.data_dir), config.store.max_open_shards)


async def open_postgres(config: PostgresConfig, environ: Mapping[str, str]) -> PostgresStore:
    """The database whose URL the environment has. Raises `StoreError`."""
    from tenancy.postgres_store import PostgresStore  # a node on SQLite does without the driver

    url = environ.get(config.url_env, "")
    if not url.strip():
        raise StoreError(f"the store is Postgres, and {config.url_env} is not set")
    return await PostgresStore.open(url, config)
