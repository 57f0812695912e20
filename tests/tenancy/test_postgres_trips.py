"""What a call asks of Postgres in one round trip: of its own tenant alone, whatever went wrong on the connection before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.node import PostgresConfig
from perf.postgres_server import PostgresServer
from tenancy import StoreError, StoreLocked
from tenancy.postgres_store import PostgresStore, _in_one_trip
from tests.tenancy.test_store_contract import digest, version

NAMES = tuple(f"t{n}" for n in range(6))
BODIES = b"SELECT tenant_id, body FROM config_versions ORDER BY tenant_id"
SETTING = b"SELECT current_setting('app.tenant_id', true)"


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    """Six tenants' rows behind one connection."""
    config = PostgresConfig(connections_kept=1, connections_max=1, wait_ms=1_000)
    store = await PostgresStore.open(url, config)
    for name in NAMES:
        await store.import_version(version(name, f"body of {name}", f"+{name}"))
    yield store
    await store.close()


async def body_of(store: PostgresStore, name: str) -> str | None:
    texts = await store.serving_texts(name, ())
    return None if texts is None else texts.bodies[texts.serving.active.content_hash]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(names=st.lists(st.sampled_from((*NAMES, "nobody", "", "t0' OR true --")), max_size=12))
async def test_nothing_of_another_tenants_comes_out(store: PostgresStore, names: list[str]) -> None:
    expected = [f"body of {name}" if name in NAMES else None for name in names]
    assert [await body_of(store, name) for name in names] == expected
    assert await asyncio.gather(*(body_of(store, name) for name in names)) == expected


async def test_a_query_that_asks_for_everything_gets_its_tenants_rows(url: str, store: PostgresStore) -> None:
    del store
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    async with connection:
        for name in (*NAMES, *reversed(NAMES)):
            assert await _in_one_trip(connection, name, BODIES, {}) == [(name, f"body of {name}")]
            # The tenant ended with its transaction: outside of one there are no rows at all.
            assert await (await connection.execute(BODIES)).fetchall() == []
            assert await (await connection.execute(SETTING)).fetchone() in ((None,), ("",))
        assert await _in_one_trip(connection, "nobody", BODIES, {}) == []


@pytest.mark.parametrize(
    "fault",
    [
        b"SELECT 1 / 0, body FROM config_versions",
        b"SELECT * FROM no_such_table",
        b"INSERT INTO active_version (only_row, version) VALUES (1, 1)",
        b"SELECT pg_sleep(5)",
    ],
)
async def test_after_a_trip_that_failed_the_next_is_its_own_tenants(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, fault: bytes
) -> None:
    for _ in range(3):
        with monkeypatch.context() as patched:
            patched.setattr(store, "_texts", fault)
            with pytest.raises(StoreLocked if b"sleep" in fault else StoreError):
                await store.serving_texts("t1", ())
        assert await store._fetch(SETTING, {}) in ([(None,)], [("",)])
        assert await store._fetch(BODIES, {}) == []
        assert await body_of(store, "t2") == "body of t2"
        assert (
            await store.import_version(version("t2", "body of t2", "+t2")) == 1
        )  # it can be written on, too


@pytest.mark.parametrize("steps", range(0, 24, 3))
async def test_who_is_cancelled_leaves_the_connection_as_it_was(store: PostgresStore, steps: int) -> None:
    tasks = [asyncio.create_task(body_of(store, name)) for name in NAMES]
    for _ in range(steps):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await store._fetch(SETTING, {}) in ([(None,)], [("",)])
    assert await asyncio.gather(*(body_of(store, name) for name in NAMES)) == [f"body of {n}" for n in NAMES]


def end_sessions(url: str) -> None:
    """As a server does that is restarted, or a proxy that lost it."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'mediaserver' AND datname = current_database()"
        )


async def test_a_call_does_not_notice_that_connections_were_lost_just_now(url: str) -> None:
    config = PostgresConfig(connections_kept=3, connections_max=3, wait_ms=1_000)
    store = await PostgresStore.open(url, config)
    try:
        await store.import_version(version("t1", "body of t1", "+t1"))
        assert await asyncio.gather(*(body_of(store, "t1") for _ in range(3))) == ["body of t1"] * 3
        await asyncio.to_thread(end_sessions, url)
        assert await asyncio.gather(*(body_of(store, "t1") for _ in range(3))) == ["body of t1"] * 3
        await asyncio.to_thread(end_sessions, url)
        assert [each.address.address for each in await store.registered(("+t1",))] == ["+t1"]
    finally:
        await store.close()


async def test_a_connection_that_was_idle_is_asked_whether_it_lives(
    url: str, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(end_sessions, url)
    monkeypatch.setattr("tenancy.postgres_database.PING_AFTER_S", 0.0)
    assert await body_of(store, "t1") == "body of t1"


async def test_one_that_is_in_use_is_not(
    url: str, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a call's questions are one round trip each."""
    monkeypatch.setattr("tenancy.postgres_database.PING_AFTER_S", 3_600.0)

    def latest() -> list[tuple[str]]:
        with psycopg.connect(url, autocommit=True) as session:
            return session.execute(
                "SELECT query FROM pg_stat_activity"
                " WHERE application_name = 'mediaserver' AND datname = current_database()"
            ).fetchall()

    await store.registered(("+t1",))
    ((query,),) = await asyncio.to_thread(latest)
    assert "FROM addresses" in query
    # So does what is handed out next, before anything is asked of it.
    said = await store._database.fetch(lambda _: asyncio.to_thread(latest))
    assert said == [(query,)]
    monkeypatch.setattr("tenancy.postgres_database.PING_AFTER_S", 0.0)
    said = await store._database.fetch(lambda _: asyncio.to_thread(latest))
    assert said != [(query,)]


async def test_what_writes_asks_however_lately_it_was_used(
    url: str, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenancy.postgres_database.PING_AFTER_S", 3_600.0)
    for number in range(2, 5):
        await asyncio.to_thread(end_sessions, url)
        assert await store.import_version(version("t1", f"body {number}", "+t1")) == number


async def test_a_trip_writes_nothing(url: str, store: PostgresStore) -> None:
    del store
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    async with connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await _in_one_trip(
                connection, "t1", b"UPDATE active_version SET version = 1 RETURNING version", {}
            )
        await connection.rollback()
        assert await _in_one_trip(connection, "t1", b"SELECT version FROM active_version", {}) == [(1,)]


async def test_only_texts_that_are_not_known_are_read(store: PostgresStore) -> None:
    texts = await store.serving_texts("t1", (digest("body of t1"),))
    assert texts is not None
    assert (texts.serving.active.content_hash, texts.bodies) == (digest("body of t1"), {})
