"""The tenants' databases: what a call's context costs among ten thousand tenants, and how fast tenants move to Postgres.

Every context is that of a tenant drawn by a seed, whose file is nearly always closed. While tenants move, calls
come at a steady rate: each asks for its context and is recorded.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop

from config.loader import parse_tenant_config
from config.node import PlatformProviders, PostgresConfig
from config.tenant import TenantConfig
from perf.postgres_server import postgres_server
from perf.results import Row, percentile
from tenancy import CallRecord, Registry, TenancyError
from tenancy.both_stores import BothStores
from tenancy.migration import Migration, Outcome
from tenancy.postgres_store import PostgresStore
from tenancy.sqlite_store import SqliteStore
from tenancy.trunks import CalledNumber, Trunks

TENANTS: Final = 10_000
LOOK_UPS: Final = 3_000
WARM_TENANTS: Final = 200
MOVED_TENANTS: Final = 200
CALLS_EACH: Final = 20
CALLS_HZ: Final = 25
SEED: Final = 6
CONTEXT_BAR_MS: Final = 2.0
MOVE_BAR_MS: Final = 300.0
"""200 tenants a minute."""
LINES: Final = 12


def measure() -> list[Row]:
    """Context look-ups on both stores, file descriptors, and the move."""
    with tempfile.TemporaryDirectory() as folder, postgres_server(durable=True) as server:
        directory = Path(folder)
        return [
            *uvloop.run(_many_tenants(directory / "many")),
            *uvloop.run(_move(directory / "move", server.new_database())),
        ]


def _config(number: int) -> TenantConfig:
    text = (
        f"tenant_id: t{number}\nbusiness_name: Business {number}\nbusiness_kind: shop\n"
        f'numbers: ["+1555{number:07}"]\ntime_zone: Europe/Berlin\ngreeting: Hello.\naddress: 1 Main Street\n'
        "hours:\n  monday: [{opens: 09:00, closes: 17:00}]\nhuman: {name: Ada}\n"
    )
    return parse_tenant_config(text.encode(), f"{number}.yaml")


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def _contexts(registry: Registry, numbers: list[int]) -> list[float]:
    """How long each context took, in ms."""
    took = []
    for number in numbers:
        began = time.perf_counter()
        await registry.context_for(CalledNumber(Trunks().web, f"+1555{number:07}"), call_id="bench")
        took.append((time.perf_counter() - began) * 1000)
    return took


async def _many_tenants(directory: Path) -> list[Row]:
    before = _open_descriptors()
    draw = random.Random(SEED)
    registry = await Registry.open(directory, PlatformProviders(), {})
    try:
        began = time.perf_counter()
        for number in range(TENANTS):
            await registry.import_tenant(_config(number), author="bench", reason="bench")
        import_ms = (time.perf_counter() - began) * 1000 / TENANTS
        cold = await _contexts(registry, [draw.randrange(TENANTS) for _ in range(LOOK_UPS)])
        descriptors = _open_descriptors() - before
        warm_numbers = [draw.randrange(WARM_TENANTS) for _ in range(LOOK_UPS)]
        await _contexts(registry, list(range(WARM_TENANTS)))
        warm = await _contexts(registry, warm_numbers)
    finally:
        await registry.close()
    return [
        Row("stores: tenants with a file each", TENANTS, "tenants"),
        Row("stores: first import of a tenant", import_ms, "ms"),
        Row("stores: file descriptors with all tenants in use", descriptors, "descriptors", bar=1_000),
        Row("stores: context, any of all tenants, median", percentile(cold, 50), "ms"),
        Row("stores: context, any of all tenants, 99 %", percentile(cold, 99), "ms", bar=CONTEXT_BAR_MS),
        Row("stores: context, in use, median", percentile(warm, 50), "ms"),
        Row("stores: context, in use, 99 %", percentile(warm, 99), "ms", bar=CONTEXT_BAR_MS),
    ]


async def _move(directory: Path, url: str) -> list[Row]:
    limits = PostgresConfig()
    node = BothStores(await SqliteStore.open(directory), lambda: PostgresStore.open(url, limits))
    registry = Registry(node, PlatformProviders(), {})
    files = await SqliteStore.open(directory)
    postgres = await PostgresStore.open(url, limits)
    try:
        for number in range(MOVED_TENANTS):
            await registry.import_tenant(_config(number), author="bench", reason="bench")
            for _ in range(CALLS_EACH):
                await _call(registry, number)
        failed: list[str] = []
        calling = asyncio.create_task(_calls(registry, failed))
        frozen = []
        began = time.perf_counter()
        async for report in Migration(files, postgres).to_postgres():
            if report.outcome is not Outcome.MOVED:
                raise RuntimeError(report.reason)
            frozen.append(report.frozen_ms)
        move_ms = (time.perf_counter() - began) * 1000 / MOVED_TENANTS
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        there = await _contexts(registry_of(postgres), [n % MOVED_TENANTS for n in range(1_000)])
    finally:
        await postgres.close()
        await files.close()
        await node.close()
    return [
        Row("stores: move of a tenant to Postgres, calls running", move_ms, "ms", bar=MOVE_BAR_MS),
        Row("stores: tenants moved a minute", 60_000 / move_ms, "tenants"),
        Row("stores: calls that failed while tenants moved", len(failed), "calls", bar=0),
        Row("stores: writes waited for a move, 99 %", percentile(frozen, 99), "ms"),
        Row("stores: context from Postgres, median", percentile(there, 50), "ms"),
        Row("stores: context from Postgres, 99 %", percentile(there, 99), "ms", bar=CONTEXT_BAR_MS),
    ]


def registry_of(store: PostgresStore) -> Registry:
    """What a node that knows Postgres alone has."""
    return Registry(store, PlatformProviders(), {})


async def _calls(registry: Registry, failed: list[str]) -> None:
    """Calls at a steady rate until cancelled; the next begins on time, however long one takes."""
    draw = random.Random(SEED)
    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(_guarded(registry, draw.randrange(MOVED_TENANTS), failed))
            await asyncio.sleep(1 / CALLS_HZ)


async def _guarded(registry: Registry, number: int, failed: list[str]) -> None:
    try:
        await _call(registry, number)
    except TenancyError as error:
        failed.append(str(error))


async def _call(registry: Registry, number: int) -> None:
    call_id = f"{number}-{time.monotonic_ns()}"
    context = await registry.context_for(CalledNumber(Trunks().web, f"+1555{number:07}"), call_id=call_id)
    now = datetime.now(UTC)
    lines: list[dict[str, object]] = [
        {"speaker": "caller", "text": f"This is sentence {n} of a call.", "at": now.isoformat()}
        for n in range(LINES)
    ]
    await registry.record_call(
        context,
        CallRecord(call_id, context.called_number, "sip:b", context.config_version, now, now, "bench", lines),
    )
