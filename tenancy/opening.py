"""The store that a node's configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from config.node import NodeConfig
from tenancy.sqlite_store import SqliteStore
from tenancy.store import Store


async def open_store(config: NodeConfig, environ: Mapping[str, str]) -> Store:
    """Open it, creating what is not there. Raises `StoreError`."""
    del environ
    return await SqliteStore.open(Path(config.data_dir), config.store.max_open_shards)
