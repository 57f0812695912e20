"""A registry on a disk of its own, and tenants to put into it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.loader import parse_tenant_config
from config.node import PlatformProviders
from config.tenant import TenantConfig
from tenancy import Registry


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


@pytest.fixture(autouse=True)
async def _no_connection_outlives_its_test() -> AsyncIterator[None]:
    """Every connection has a thread: one that is left would be a leak, and would report to a loop that is gone."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if "connection_worker" in thread.name:
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive(), f"{thread.name} still runs"


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = await Registry.open(tmp_path, PlatformProviders(), {})
    yield registry
    await registry.close()
