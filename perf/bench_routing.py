"""Whose call it is among 100,000 tenants, on SQLite and on Postgres: from what was called to the call's context.

Every tenant is registered, by a number, a SIP address and a site key. So that this takes a minute and not an hour, one in
fifty (SQLite) or in a hundred (Postgres) has a configuration as well, spread evenly: contexts are asked of those, drawn
by a seed. A cold tenant's was not asked for since the node started: it has not been parsed, and on SQLite its file is
closed. Any tenant's may have been parsed; one in use is one of few. On SQLite the end of a call, which has to open the file and to
close another for it, is shown besides. What the look-ups do with files is counted.
"""

from __future__ import annotations

import dataclasses
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop
from sqlalchemy.ext.asyncio import AsyncConnection

from config.loader import parse_tenant_config
from config.node import NodeConfig, PlatformProviders, PostgresConfig
from config.site_keys import SiteKey
from config.tenant import TenantConfig
from mediaserver.garbage import settle
from perf.postgres_server import postgres_server
from perf.results import Row, percentile
from tenancy import Called, CalledSite, CalledUri, CallNotRouted, CallRecord, Registry, Trunks
from tenancy.addresses import addresses_of
from tenancy.postgres_store import PostgresStore
from tenancy.schema import shared_tables
from tenancy.shared_repository import insert_into
from tenancy.sqlite_store import SqliteStore

TENANTS: Final = 100_000
CONFIGURED_EVERY: Final = 50
CONFIGURED_EVERY_POSTGRES: Final = 100
LOOK_UPS: Final = 4_000
LOOK_UPS_POSTGRES: Final = 1_500
ENDS: Final = 500
WARM_TENANTS: Final = 200
ROWS_AT_ONCE: Final = 5_000
SEED: Final = 6
BAR_MS: Final = 2.0
ORIGIN: Final = "https://shop.example"
LISTINGS: Final = ("os.listdir", "os.scandir", "glob.glob")


def measure() -> list[Row]:
    """Resolution and contexts on both stores."""
    with tempfile.TemporaryDirectory() as folder, postgres_server(durable=True) as server:
        return [
            *uvloop.run(_on_sqlite(Path(folder))),
            *uvloop.run(_on_postgres(server.new_database())),
        ]


# -- tenants and calls -------------------------------------------------------------------------------------


def _config(number: int) -> TenantConfig:
    text = (
        f"tenant_id: t{number}\nbusiness_name: Business {number}\nbusiness_kind: shop\n"
        f'numbers: ["{_e164(number)}"]\nsip_addresses: ["sip:t{number}@shop.example"]\ntrunks: [line]\n'
        f"site_keys: [{{key: {_key(number)}, origins: ['{ORIGIN}']}}]\n"
        "time_zone: Europe/Berlin\ngreeting: Hello.\naddress: 1 Main Street\n"
        "hours:\n  monday: [{opens: 09:00, closes: 17:00}]\nhuman: {name: Ada}\n"
    )
    return parse_tenant_config(text.encode(), f"{number}.yaml")


def _e164(number: int) -> str:
    return f"+4930{number:06}"


def _key(number: int) -> str:
    return str(SiteKey.from_random(number.to_bytes(16, "big")))


def _trunks() -> Trunks:
    """A trunk in a country whose national numbers have several readings."""
    notation = {"country": "DE", "without_plus": True, "technical_prefixes": ("77",)}
    listed = ({"id": "line", "sources": ("192.0.2.0/24",), "notation": notation},)
    return Trunks.of(NodeConfig.model_validate({"trunks": listed}))


def _calls(trunks: Trunks) -> dict[str, Callable[[int], Called]]:
    """Ways to call a tenant, each from a source to a question for the registry, as the edge does it."""

    def by_uri(uri: Callable[[int], str]) -> Callable[[int], Called]:
        return lambda number: CalledUri(trunks.from_source("192.0.2.9", "udp"), uri(number))

    return {
        "number in full": by_uri(lambda number: f"sip:{_e164(number)}@192.0.2.1;user=phone"),
        "national number": by_uri(lambda number: f"sip:0{_e164(number)[3:]}@192.0.2.1"),
        "SIP address": by_uri(lambda number: f"sip:t{number}@shop.example"),
        "site key": lambda number: CalledSite(_key(number), ORIGIN),
        "nobody's number": by_uri(lambda number: f"sip:+4940{number:06}@192.0.2.1"),
    }


async def _register(connection: AsyncConnection) -> None:
    """Enter all tenants and their addresses, as `SharedRepository.claim` does one by one."""
    tables = shared_tables()
    for first in range(0, TENANTS, ROWS_AT_ONCE):
        some = range(first, min(first + ROWS_AT_ONCE, TENANTS))
        tenants = [{"tenant_id": f"t{number}", "status": "active"} for number in some]
        await connection.execute(insert_into(connection, tables.tenants), tenants)
        rows = []
        for number in some:
            line = {"tenant_id": f"t{number}", "trunks": frozenset({"line"}), "origins": frozenset[str]()}
            rows.append({"address": _e164(number), **line})
            rows.append({"address": f"sip:t{number}@shop.example", **line})
            site = {"trunks": frozenset[str](), "origins": frozenset({ORIGIN})}
            rows.append({"address": _key(number), **line, **site})
        await connection.execute(insert_into(connection, tables.addresses), rows)


def _check_registration() -> None:
    """What is entered in bulk is what an import enters."""
    expected = {
        _e164(7): ({"line"}, set()),
        "sip:t7@shop.example": ({"line"}, set()),
        _key(7): (set(), {ORIGIN}),
    }
    found = {each.address: (set(each.trunks), set(each.origins)) for each in addresses_of(_config(7))}
    if found != expected:
        raise ValueError(f"a tenant's addresses are {found}, not {expected}")


# -- measurements ------------------------------------------------------------------------------------------


async def _timed(work: Callable[[int], Awaitable[object]], numbers: Sequence[int]) -> list[float]:
    """How long each took, in ms; a call that is nobody's counts as well."""
    took = []
    for number in numbers:
        began = time.perf_counter()
        try:
            await work(number)
        except CallNotRouted as refused:
            if refused.answer.code != "unknown":
                raise
        took.append((time.perf_counter() - began) * 1000)
    return took


async def _measured(what: str, work: Callable[[int], Awaitable[object]], numbers: Sequence[int]) -> list[Row]:
    """The wait as it is, which others on the machine lengthen, and the processor time, which they hardly do."""
    began = time.process_time()
    took = await _timed(work, numbers)
    cpu_ms = (time.process_time() - began) * 1000 / len(numbers)
    return [
        Row(f"routing: {what}, processor time", cpu_ms, "ms"),
        Row(f"routing: {what}, median", percentile(took, 50), "ms"),
        Row(f"routing: {what}, 99 %", percentile(took, 99), "ms", bar=BAR_MS),
    ]


async def _look_ups(registry: Registry, store: str, configured: list[int], count: int) -> list[Row]:
    settle()  # as a node does when it is ready
    draw = random.Random(SEED)
    calls = _calls(_trunks())
    rows = []
    for how, called in calls.items():
        rows += await _measured(
            f"{store}, tenant by {how}",
            lambda number, called=called: registry.resolve(called(number)),  # type: ignore[misc] # bound here
            [draw.randrange(TENANTS) for _ in range(count)],
        )

    async def context(number: int) -> None:
        found = await registry.context_for(calls["national number"](number), call_id="bench")
        if found.tenant_id != f"t{number}":
            raise ValueError(f"t{number}'s call was given to {found.tenant_id}")

    rows += await _measured(
        f"{store}, tenant and context, cold tenant", context, draw.sample(configured, len(configured))
    )
    rows += await _measured(
        f"{store}, tenant and context, any of {len(configured)}",
        context,
        [draw.choice(configured) for _ in range(count)],
    )
    warm = configured[:WARM_TENANTS]
    await _timed(context, warm)
    rows += await _measured(
        f"{store}, tenant and context, of {WARM_TENANTS} in use",
        context,
        [draw.choice(warm) for _ in range(count)],
    )
    return rows


async def _ends(registry: Registry, configured: list[int]) -> list[Row]:
    draw = random.Random(SEED)
    called = _calls(_trunks())["number in full"]
    now = datetime.now(UTC)

    async def end(number: int) -> None:
        context = contexts[number]
        record = CallRecord(
            "bench", context.called_number, "sip:b", context.config_version, now, now, "bench"
        )
        await registry.record_call(context, record)

    numbers = draw.sample(configured, ENDS)
    contexts = {number: await registry.context_for(called(number), call_id="bench") for number in numbers}
    rows = await _measured("SQLite, record of a call, file closed", end, numbers)
    return [dataclasses.replace(row, bar=None) for row in rows]


async def _on_sqlite(directory: Path) -> list[Row]:
    _check_registration()
    configured = list(range(0, TENANTS, CONFIGURED_EVERY))
    store = await SqliteStore.open(directory)
    registry = Registry(store, PlatformProviders(), {})
    try:
        await store.shared_write(_register)
        for number in configured:
            await registry.import_tenant(_config(number), author="bench", reason="bench")
    finally:
        await registry.close()
    # A node that starts: no tenant's file is open, and nothing was parsed.
    registry = await Registry.open(directory, PlatformProviders(), {})
    try:
        seen: Counter[str] = Counter()
        sys.addaudithook(lambda event, _: seen.update((event,)) if event in LISTINGS else None)
        rows = await _look_ups(registry, "SQLite", configured, LOOK_UPS)
        rows += await _ends(registry, configured)
    finally:
        await registry.close()
    return [
        Row("routing: tenants registered", TENANTS, "tenants"),
        *rows,
        Row("routing: SQLite, folders read while calls were looked up", seen.total(), "folders", bar=0),
    ]


async def _on_postgres(url: str) -> list[Row]:
    configured = list(range(0, TENANTS, CONFIGURED_EVERY_POSTGRES))
    store = await PostgresStore.open(url, PostgresConfig())
    registry = Registry(store, PlatformProviders(), {})
    try:
        async with store.transaction() as connection:
            await _register(connection)
        for number in configured:
            await registry.import_tenant(_config(number), author="bench", reason="bench")
        fresh = Registry(store, PlatformProviders(), {})
        return await _look_ups(fresh, "Postgres", configured, LOOK_UPS_POSTGRES)
    finally:
        await registry.close()
