"""Postgres: tenants that cannot see each other, and a server that goes and comes back."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from alembic.migration import MigrationContext

from config.node import NodeConfig, PlatformProviders, PostgresConfig, StoreConfig
from perf.postgres_server import NoPostgresError, PostgresServer, postgres_server
from tenancy import Registry, StoreError, StoreLocked, StoreUnavailable, TenantStatus, open_registry
from tenancy.postgres_store import SCOPED_TABLES, PostgresStore
from tests.tenancy.conftest import dialled, tenant
from tests.tenancy.test_store_contract import begin_trial, call, version


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(url, PostgresConfig(wait_ms=1_000))
    yield store
    await store.close()


@pytest.fixture
async def two_tenants(store: PostgresStore) -> PostgresStore:
    for name, number in (("a", "+1"), ("b", "+2")):
        await store.import_version(version(name, f"body of {name}", number))
        await store.add_call(name, call(f"call of {name}"))
        await begin_trial(store, name)
    return store


# -- row-level security --------------------------------------------------------------------------------


@pytest.mark.parametrize("table", SCOPED_TABLES)
async def test_a_session_sees_its_tenant_alone(url: str, two_tenants: PostgresStore, table: str) -> None:
    del two_tenants
    with psycopg.connect(url, autocommit=True) as session:

        def tenants(where: str = "") -> list[str]:
            return [row[0] for row in session.execute(f"SELECT tenant_id FROM {table} {where}".encode())]

        assert tenants() == []
        for name, other in (("a", "b"), ("b", "a")):
            with session.transaction():
                session.execute("SELECT set_config('app.tenant_id', %s, true)", (name,))
                assert set(tenants()) == {name}
                assert tenants(f"WHERE tenant_id = '{other}'") == []
                assert set(tenants("WHERE tenant_id = '' OR true")) == {name}
        # The setting ended with its transaction.
        assert tenants() == []
        assert tenants("WHERE tenant_id = ''") == []


def as_tenant(session: psycopg.Connection, name: str, statement: str) -> int:
    """Execute one statement as a tenant's; returns how many rows it touched."""
    with session.transaction():
        session.execute("SELECT set_config('app.tenant_id', %s, true)", (name,))
        return session.execute(statement.encode()).rowcount


async def test_a_session_writes_for_no_other_tenant(url: str, two_tenants: PostgresStore) -> None:
    with psycopg.connect(url, autocommit=True) as session:
        for statement in (
            "INSERT INTO config_versions VALUES ('b', 2, 'h', 1, 'a', 'r', now(), '{}')",
            "INSERT INTO calls (tenant_id, call_id, called, caller, config_version, started_at, ended_at, cause,"
            " transcript, messages) VALUES ('b', 'x', '', '', 1, now(), now(), '', '[]', '[]')",
            "UPDATE calls SET tenant_id = 'b'",
            "UPDATE active_version SET tenant_id = 'b'",
            "INSERT INTO version_states (tenant_id, version, state) VALUES ('b', 1, 'refused')",
            "INSERT INTO config_log (tenant_id, at, author, deed, version, reason)"
            " VALUES ('b', now(), 'x', 'x', 1, 'x')",
            "UPDATE trials SET tenant_id = 'b'",
            "UPDATE followed_file SET tenant_id = 'b'",
            "INSERT INTO active_version VALUES ('b', 1, 1)"
            " ON CONFLICT (tenant_id, only_row) DO UPDATE SET version = 1",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                as_tenant(session, "a", statement)
        assert as_tenant(session, "a", "DELETE FROM calls WHERE tenant_id = 'b'") == 0
        assert as_tenant(session, "a", "UPDATE calls SET cause = 'x' WHERE tenant_id = 'b'") == 0
        assert as_tenant(session, "a", "DELETE FROM calls") == 1
        # Without a tenant, nothing can be written at all.
        with pytest.raises(psycopg.Error):
            session.execute("INSERT INTO active_version (only_row, version) VALUES (1, 1)")
    assert [each.call_id for each in await two_tenants.newest_calls("b", 9)] == ["call of b"]
    assert [each.cause for each in await two_tenants.newest_calls("b", 9)] == ["hung up"]


async def test_one_connection_serves_tenants_in_turn(url: str) -> None:
    store = await PostgresStore.open(url, PostgresConfig(connections_kept=1, connections_max=1))
    try:
        names = [f"t{n}" for n in range(6)]
        for name in names:
            await store.import_version(version(name, f"body of {name}", f"+{name}"))
        for name in (*names, *reversed(names)):
            content = await store.content(name, 1)
            assert content is not None
            assert content.body == f"body of {name}"
    finally:
        await store.close()


async def test_versions_are_immutable_for_their_owner_too(url: str, two_tenants: PostgresStore) -> None:
    del two_tenants
    with psycopg.connect(url, autocommit=True) as session:
        for statement in ("UPDATE config_versions SET author = 'x'", "DELETE FROM config_versions"):
            with pytest.raises(psycopg.errors.RaiseException, match="immutable"):
                as_tenant(session, "a", statement)
        for statement in ("UPDATE config_log SET author = 'x'", "DELETE FROM config_log"):
            with pytest.raises(psycopg.errors.RaiseException, match="only added to"):
                as_tenant(session, "a", statement)
        with pytest.raises(psycopg.Error):
            session.execute("TRUNCATE config_versions, active_version")
        with pytest.raises(psycopg.errors.RaiseException, match="only added to"):
            session.execute("TRUNCATE config_log")


async def test_a_role_that_may_see_everything_is_refused(postgres: PostgresServer, url: str) -> None:
    with pytest.raises(StoreError, match="may pass over row-level security"):
        await PostgresStore.open(postgres.superuser_url(url), PostgresConfig())
    postgres.execute("CREATE ROLE careless LOGIN BYPASSRLS")
    with pytest.raises(StoreError, match="may pass over row-level security"):
        await PostgresStore.open(url.replace("//mediaserver@", "//careless@"), PostgresConfig())


async def test_a_table_without_its_policies_is_refused(url: str, store: PostgresStore) -> None:
    del store
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("ALTER TABLE calls NO FORCE ROW LEVEL SECURITY")
        with pytest.raises(StoreError, match="row-level security of calls is off"):
            await PostgresStore.open(url, PostgresConfig())


# -- schema --------------------------------------------------------------------------------------------


async def test_several_nodes_that_start_at_once_migrate_once(url: str) -> None:
    stores = await asyncio.gather(*(PostgresStore.open(url, PostgresConfig()) for _ in range(5)))
    for store in stores:
        await store.close()
    with psycopg.connect(url) as session:
        assert session.execute("SELECT count(*) FROM tenant_schema").fetchone() == (1,)


async def test_a_newer_schema_is_left_alone(url: str, store: PostgresStore) -> None:
    del store
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("UPDATE tenant_schema SET version_num = 'tenant_9999'")
    with pytest.raises(StoreError, match="tenant_9999 is newer than this program's"):
        await PostgresStore.open(url, PostgresConfig())


# -- faults --------------------------------------------------------------------------------------------


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    try:
        with postgres_server() as server:
            yield server
    except NoPostgresError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_server_that_goes_is_named_and_serves_when_it_is_back(
    own_server: PostgresServer, how: signal.Signals
) -> None:
    store = await PostgresStore.open(own_server.new_database(), PostgresConfig(wait_ms=2_000))
    registry = Registry(store, PlatformProviders(), {})
    try:
        await registry.import_tenant(tenant("a", "+15550100"), author="op", reason="first")
        assert (await registry.context_for(dialled("+15550100"), call_id="c")).config_version == 1
        own_server.stop(how)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="postgres"):
                await registry.context_for(dialled("+15550100"), call_id="c")
            with pytest.raises(StoreUnavailable):
                await registry.import_tenant(
                    tenant("a", "+15550100", greeting="Other."), author="op", reason="second"
                )
        own_server.start()
        assert (await registry.context_for(dialled("+15550100"), call_id="c")).config.greeting == "Hello."
        assert (
            await registry.import_tenant(
                tenant("a", "+15550100", greeting="Other."), author="op", reason="second"
            )
            == 2
        )
    finally:
        await registry.close()


async def test_a_server_that_crashes_in_a_transaction_leaves_it_undone(own_server: PostgresServer) -> None:
    store = await PostgresStore.open(own_server.new_database(), PostgresConfig(wait_ms=2_000))
    try:
        await store.import_version(version("a", "one", "+1"))

        async def two_calls() -> None:
            async with store.tenant_transaction("a") as connection:
                await store.repository.add_calls(connection, (call("c"),))
                await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
                await store.repository.add_calls(connection, (call("d"),))

        with pytest.raises(StoreUnavailable):
            await two_calls()
        await asyncio.to_thread(own_server.start)
        assert await store.newest_calls("a", 9) == ()
        await store.add_call("a", call("c"))
        assert await store.newest_calls("a", 9) == (call("c"),)
    finally:
        await store.close()


async def test_a_row_that_another_holds_is_locked_and_not_waited_for_without_end(
    url: str, two_tenants: PostgresStore
) -> None:
    with psycopg.connect(url) as session:
        session.execute("SELECT * FROM tenants WHERE tenant_id = 'a' FOR UPDATE")
        with pytest.raises(StoreLocked, match="lock timeout"):
            await two_tenants.import_version(version("a", "two", "+1"))
        await two_tenants.import_version(version("b", "two", "+2"))  # others are not held up
    assert await two_tenants.import_version(version("a", "two", "+1")) == 3


async def test_a_schema_may_take_longer_than_a_call(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement that is as long as an index on a large table; and a program that is busy between two."""
    wait_ms = 100

    def upgrade(context: MigrationContext, **options: object) -> None:
        assert context.connection is not None
        context.connection.exec_driver_sql(f"SELECT pg_sleep({4 * wait_ms / 1000})")
        time.sleep(6 * wait_ms / 1000)
        upgraded(context, **options)

    upgraded = MigrationContext.run_migrations
    monkeypatch.setattr(MigrationContext, "run_migrations", upgrade)
    store = await PostgresStore.open(url, PostgresConfig(wait_ms=wait_ms))
    await store.close()


async def test_no_more_connections_are_taken_than_the_node_may(url: str) -> None:
    # The server ends a transaction that is idle for four times as long: a test that is held up loses them.
    config = PostgresConfig(connections_kept=1, connections_max=2, wait_ms=2_000)
    store = await PostgresStore.open(url, config)
    try:
        await store.import_version(version("a", "one", "+1"))
        async with store.transaction(), store.transaction():
            with pytest.raises(StoreLocked, match="connections are in use"):
                await store.registered(("+1",))
        assert await store.registered(("+1",)) is not None
    finally:
        await store.close()


async def test_errors_do_not_repeat_what_was_to_be_written(url: str, two_tenants: PostgresStore) -> None:
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("ALTER TABLE config_versions ADD CHECK (body <> 'sk-secret')")
    with pytest.raises(StoreError) as caught:
        await two_tenants.import_version(version("a", "sk-secret", "+1"))
    assert "sk-secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("url", ["mysql://u:sk-secret@h/d", "postgresql://u:sk-secret@h:port/d", "sk-secret"])
async def test_what_is_no_url_is_named_without_it(url: str) -> None:
    with pytest.raises(StoreError, match="MEDIASERVER_POSTGRES_URL is no URL") as caught:
        await PostgresStore.open(url, PostgresConfig())
    assert "sk-secret" not in str(caught.value)


async def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StoreUnavailable, match=r"postgres 127\.0\.0\.1/d") as caught:
        await PostgresStore.open("postgresql://u:sk-secret@127.0.0.1:1/d", PostgresConfig())
    assert "sk-secret" not in str(caught.value)


# -- the node ------------------------------------------------------------------------------------------


async def test_a_nodes_configuration_names_its_store(url: str) -> None:
    node = NodeConfig(store=StoreConfig(kind="postgres", postgres=PostgresConfig(url_env="DB")))
    with pytest.raises(StoreError, match="DB is not set"):
        await open_registry(node, {})
    for _ in range(2):
        registry = await open_registry(node, {"DB": url})
        try:
            await registry.import_tenant(tenant("a", "+15550100"), author="op", reason="first")
            assert (await registry.context_for(dialled("+15550100"), call_id="c")).config_version == 1
            assert (await registry.status("a")).status is TenantStatus.ACTIVE
        finally:
            await registry.close()
