"""The vault's store on Postgres: what the database itself refuses, several processes, and a server that goes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from perf.postgres_server import PostgresServer
from tests.vault.conftest import ADA, NOON, local, on_postgres, put, value, vault_over
from tests.vault.test_store import key, link, new, refused, row, state
from vault import AuditBroken, VaultStoreError, VaultStoreLocked, VaultStoreUnavailable
from vault import postgres as vault_postgres
from vault.audit import Appended, Head
from vault.postgres import SCOPED_TABLES, PostgresSecretStore
from vault.records import AddDataKey, Write, WriteSecret

PUTS = 8


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
async def database(url: str) -> AsyncIterator[PostgresSecretStore]:
    made = await on_postgres(url, wait_ms=1_000)
    yield made
    await made.aclose()


@pytest.fixture
async def filled(database: PostgresSecretStore) -> PostgresSecretStore:
    writes: list[Write] = [AddDataKey(key()), AddDataKey(key("b")), new(row()), new(row("b"))]
    await database.commit(writes, link(2))
    return database


def as_tenant(session: psycopg.Connection, name: str, statement: str) -> int:
    """Execute one statement as a tenant's; returns how many rows it touched."""
    with session.transaction():
        session.execute("SELECT set_config('app.tenant_id', %s, true)", (name,))
        return session.execute(statement.encode()).rowcount


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE vault_audit SET actor = 'eve' WHERE sequence = 1", "not changed"),
        ("DELETE FROM vault_audit WHERE sequence = 2", "not deleted"),
        ("TRUNCATE vault_audit", "not deleted"),
        (
            "INSERT INTO vault_audit SELECT 9, at, actor, action, tenant_id, name, version, kek_id, hash"
            " FROM vault_audit WHERE sequence = 1",
            "appended one after the other",
        ),
        (
            "INSERT INTO vault_audit SELECT * FROM vault_audit WHERE sequence = 1"
            " ON CONFLICT (sequence) DO UPDATE SET actor = 'eve'",
            "appended one after the other",
        ),
        ("UPDATE vault_audit_head SET sequence = 1", "forward only"),
        ("DELETE FROM vault_audit_head", "not deleted"),
        ("TRUNCATE vault_audit_head", "not deleted"),
        ("UPDATE vault_secrets SET version = 0", "forward only"),
        ("DELETE FROM vault_secrets", "not deleted"),
        ("TRUNCATE vault_secrets", "not deleted"),
        ("DELETE FROM vault_data_keys", "foreign key"),
        ("UPDATE vault_secrets SET sealed = NULL", "check constraint"),
    ],
)
async def test_statements_cannot_rewrite_history(
    url: str, filled: PostgresSecretStore, statement: str, why: str
) -> None:
    before = await state(filled)
    with (
        psycopg.connect(url, autocommit=True) as session,
        pytest.raises((psycopg.errors.RaiseException, psycopg.IntegrityError), match=why),
    ):
        as_tenant(session, "a", statement)
    assert await state(filled) == before


# -- row-level security ------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", SCOPED_TABLES)
async def test_a_session_sees_its_tenant_alone(url: str, filled: PostgresSecretStore, table: str) -> None:
    del filled
    with psycopg.connect(url, autocommit=True) as session:

        def tenants(where: str = "") -> set[str]:
            return {found[0] for found in session.execute(f"SELECT tenant_id FROM {table} {where}".encode())}

        assert tenants() == set()
        for name, other in (("a", "b"), ("b", "a")):
            with session.transaction():
                session.execute("SELECT set_config('app.tenant_id', %s, true)", (name,))
                assert tenants() == {name}
                assert tenants(f"WHERE tenant_id = '{other}' OR true") == {name}
        assert tenants() == set(), "the setting ended with its transaction"
        with session.transaction():
            session.execute("SELECT set_config('app.vault_scope', 'every tenant', true)")
            assert tenants() == {"a", "b"}


async def test_a_session_writes_for_no_other_tenant(url: str, filled: PostgresSecretStore) -> None:
    before = await state(filled)
    with psycopg.connect(url, autocommit=True) as session:
        for statement in (
            "INSERT INTO vault_data_keys VALUES ('b', 2, 'k', 'w', 't')",
            "UPDATE vault_secrets SET tenant_id = 'b', name = 'o'",
            "INSERT INTO vault_secrets VALUES ('b', 'n', 9, 's', 1, 'f', 't', 'p', NULL)"
            " ON CONFLICT (tenant_id, name) DO UPDATE SET version = 9",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                as_tenant(session, "a", statement)
        assert as_tenant(session, "a", "UPDATE vault_secrets SET version = 9 WHERE tenant_id = 'b'") == 0
        assert as_tenant(session, "a", "DELETE FROM vault_data_keys WHERE tenant_id = 'b'") == 0
    assert await state(filled) == before


async def test_a_role_that_may_see_everything_is_refused(postgres: PostgresServer, url: str) -> None:
    with pytest.raises(VaultStoreError, match="may pass over row-level security"):
        await on_postgres(postgres.superuser_url(url))


@pytest.mark.parametrize("table", SCOPED_TABLES)
async def test_a_table_without_its_policies_is_refused(
    url: str, database: PostgresSecretStore, table: str
) -> None:
    del database
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY".encode())
    with pytest.raises(VaultStoreError, match=f"row-level security of {table} is off"):
        await on_postgres(url)


# -- schema ------------------------------------------------------------------------------------------------


async def test_several_nodes_that_start_at_once_make_the_tables_once(url: str) -> None:
    stores = await asyncio.gather(*(on_postgres(url) for _ in range(4)))
    await stores[0].commit([AddDataKey(key())], link())
    await stores[1].commit([new(row())], link())
    for store in stores:
        assert await store.secrets("a") == (row(),)
        await store.aclose()


async def test_a_newer_schema_is_left_alone(url: str, database: PostgresSecretStore) -> None:
    del database
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("UPDATE vault_schema SET version_num = 'vault_9999'")
    with pytest.raises(VaultStoreError, match="vault_9999 is newer than this program's vault_0001"):
        await on_postgres(url)


# -- several nodes -----------------------------------------------------------------------------------------


async def test_two_processes_that_put_and_rotate_at_once(url: str, database: PostgresSecretStore) -> None:
    await put(vault_over(database, local("k1")), "a", "first", "x")
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.vault.other_node", url, name, str(PUTS),
            cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    said = [(await asyncio.wait_for(each.communicate(), 120))[0].decode() for each in processes]
    assert [each.returncode for each in processes] == [0, 0], said
    print(said)
    vault = vault_over(database, local("k2"))
    await vault_over(database, local("k2", "k1")).rotate_kek(actor=ADA, at=NOON)
    await vault.rotate_data_key("a", actor=ADA, at=NOON)
    assert await vault.verify_audit() is None
    versions = {info.name: info.version for info in await vault.list("a")}
    assert versions == {"first": 1, "one": PUTS, "two": PUTS, "shared": 2 * PUTS}, "no put was lost"
    assert {await value(vault, "a", name) for name in ("one", "two")} == {
        f"one {PUTS - 1}",
        f"two {PUTS - 1}",
    }
    assert await value(vault, "a", "first") == "x"
    puts = [entry for entry in await vault.audit(limit=1_000) if entry.action == "put"]
    assert len(puts) == 4 * PUTS + 1


async def test_a_change_that_another_holds_up_is_told_and_reads_go_on(
    url: str, filled: PostgresSecretStore
) -> None:
    with psycopg.connect(url) as session:
        session.execute("SELECT place FROM vault_placement FOR UPDATE")
        await refused(filled, VaultStoreLocked, new(row(name="m")))
    await filled.commit([new(row(name="m"))], link())


async def test_reads_that_nobody_waits_for_any_more_are_bounded(
    url: str, filled: PostgresSecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_postgres, "READS_MAX", 3)
    with psycopg.connect(url) as session:
        session.execute("LOCK TABLE vault_secrets IN ACCESS EXCLUSIVE MODE")
        for _ in range(3):
            reading = asyncio.create_task(filled.secrets("a"))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        with pytest.raises(VaultStoreLocked, match="3 reads wait"):
            await filled.head()
    while filled._reading:
        await asyncio.wait(set(filled._reading))
    assert await filled.secrets("a") == (row(),)


async def test_a_change_goes_on_to_its_end_when_its_task_is_cancelled(filled: PostgresSecretStore) -> None:
    for yields in range(0, 12, 3):
        found = await filled.secret("a", "n")
        assert found is not None
        version = found.secret.version
        task = asyncio.create_task(
            filled.commit([WriteSecret(row(version=version + 1), (version, 1), 9)], link())
        )
        for _ in range(yields):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        now, head = await filled.secret("a", "n"), await filled.head()
        assert now is not None
        assert head is not None
        assert now.secret.version - 1 == head.sequence - 2, "whole or not at all"


async def test_a_closed_store_says_so(url: str) -> None:
    store = await on_postgres(url)
    await store.aclose()
    with pytest.raises(VaultStoreError, match="the vault is closed"):
        await store.secrets("a")


# -- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_server_that_goes_in_a_change_is_named_and_nothing_is_half_done(
    own_server: PostgresServer, how: signal.Signals
) -> None:
    store = await on_postgres(own_server.new_database(), wait_ms=2_000)
    await store.commit([AddDataKey(key()), new(row())], link())
    before = await state(store)

    def goes(head: Head | None) -> Appended:
        # The rows are written by now, and the entry is not.
        own_server.stop(how)
        return link()(head)

    with pytest.raises(VaultStoreUnavailable, match="postgres") as caught:
        await store.commit([WriteSecret(row(version=2), (1, 1), 9)], goes)
    assert "sealed" not in str(caught.value)
    for attempt in (store.secret("a", "n"), store.commit([new(row(name="m"))], link()), store.head()):
        with pytest.raises(VaultStoreUnavailable):
            await attempt
    await asyncio.to_thread(own_server.start)
    assert await state(store) == before
    await store.commit([WriteSecret(row(version=2), (1, 1), 9)], link())
    assert [entry.sequence for entry in await store.entries(0, 9)] == [1, 2]
    await store.aclose()


async def test_nothing_is_added_to_a_trail_whose_end_was_taken_away(
    postgres: PostgresServer, url: str, filled: PostgresSecretStore
) -> None:
    database = url.partition("?")[0].rpartition("/")[2]

    def tamper(statement: str) -> None:
        """As who owns the server can."""
        postgres.execute(f"SET session_replication_role = replica; {statement}", database)

    tamper("DELETE FROM vault_audit WHERE sequence = 2")
    await refused(filled, AuditBroken, new(row(name="m")))
    tamper("DELETE FROM vault_audit_head")
    await refused(filled, AuditBroken, new(row(name="m")))


async def test_a_tampered_entry_is_named(
    postgres: PostgresServer, url: str, database: PostgresSecretStore
) -> None:
    vault = vault_over(database)
    for name in ("k", "l"):
        await put(vault, "a", name, "x")
    statement = (
        "SET session_replication_role = replica; UPDATE vault_audit SET actor = 'eve' WHERE sequence = 3"
    )
    postgres.execute(statement, url.partition("?")[0].rpartition("/")[2])
    finding = await vault.verify_audit()
    assert finding is not None
    assert (finding.sequence, "not what was entered" in finding.reason) == (3, True)


async def test_errors_do_not_repeat_what_was_to_be_written(url: str, filled: PostgresSecretStore) -> None:
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("ALTER TABLE vault_secrets ADD CHECK (fingerprint <> 'sk-secret')")
    bad = row(name="m")
    with pytest.raises(VaultStoreError) as caught:
        await filled.commit(
            [new(type(bad)("a", "m", 1, b"s", 1, "sk-secret", bad.put_at, bad.put_by))], link()
        )
    assert "sk-secret" not in str(caught.value)
    assert caught.value.__suppress_context__
