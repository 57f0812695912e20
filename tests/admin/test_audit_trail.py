"""The trail in a database whose triggers somebody has dropped: what was done is found."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from admin.audit import Head
from admin.audit_trail import StoredAuditTrail
from admin.backings import FILE
from admin.sql_store import SqlStore
from tests.admin.conftest import Backing, deed

TRIGGERS = (
    ("admin_audit_goes_on", "admin_audit"),
    ("admin_audit_stays", "admin_audit"),
    ("admin_audit_remains", "admin_audit"),
    ("admin_audit_head_goes_on", "admin_audit_head"),
    ("admin_audit_head_remains", "admin_audit_head"),
)


@pytest.fixture
async def trail(store: SqlStore) -> StoredAuditTrail:
    trail = StoredAuditTrail(store)
    for number in range(1, 6):
        await trail.append(deed(number))
    return trail


async def by_hand(backing: Backing, *statements: str) -> None:
    """What somebody does who may do everything with the database."""
    if backing.server is not None:
        database = backing.url.partition("?")[0].rpartition("/")[2]
        for name, table in TRIGGERS:
            backing.server.execute(f"DROP TRIGGER IF EXISTS {name} ON {table}", database)
        for statement in statements:
            backing.server.execute(statement, database)
        return
    connection = sqlite3.connect(backing.directory / FILE, isolation_level=None)
    for name, _ in TRIGGERS:
        connection.execute(f"DROP TRIGGER IF EXISTS {name}")
    for statement in statements:
        connection.execute(statement)
    connection.close()


async def test_a_trail_that_nobody_touched_is_sound(trail: StoredAuditTrail, store: SqlStore) -> None:
    assert await trail.verify() is None
    assert await StoredAuditTrail(store).verify() is None
    head = await trail.head()
    assert head.sequence == 5
    assert await StoredAuditTrail(store).verify(head) is None
    page = await trail.page(tenant_id="a", after=2, limit=2)
    assert [each.sequence for each in page] == [3, 4]
    assert await trail.page(tenant_id="b", after=0, limit=9) == ()


@pytest.mark.parametrize(
    ("statements", "finding"),
    [
        (["UPDATE admin_audit SET principal = 'eve' WHERE sequence = 3"], "entry 3 is not what was entered"),
        (["UPDATE admin_audit SET status = 403 WHERE sequence = 5"], "entry 5 is not what was entered"),
        (["UPDATE admin_audit SET at = 'yesterday' WHERE sequence = 2"], "entry 2 is not what was entered"),
        (["UPDATE admin_audit SET target = NULL WHERE sequence = 1"], "entry 1 is not what was entered"),
        (["DELETE FROM admin_audit WHERE sequence = 3"], "entry 3 is missing: 4 comes in its place"),
        (["DELETE FROM admin_audit WHERE sequence = 1"], "entry 1 is missing: 2 comes in its place"),
        (["DELETE FROM admin_audit WHERE sequence > 3"], "entries 4 to 5 are missing at the end"),
        (["DELETE FROM admin_audit"], "entries 1 to 5 are missing at the end"),
        (
            [
                "INSERT INTO admin_audit SELECT 6, at, principal, credential, source, action, tenant_id, target,"
                " status, request_id, detail, hash FROM admin_audit WHERE sequence = 5"
            ],
            "entry 6 is not what was entered",
        ),
        (
            [
                "UPDATE admin_audit SET sequence = 99 WHERE sequence = 2",
                "UPDATE admin_audit SET sequence = 2 WHERE sequence = 3",
                "UPDATE admin_audit SET sequence = 3 WHERE sequence = 99",
            ],
            "entry 2 is not what was entered",
        ),
        (["DELETE FROM admin_audit_head"], "entries 1 to 5 are missing at the end|comes after the head"),
    ],
)
async def test_what_was_done_by_hand_is_found(
    backing: Backing, trail: StoredAuditTrail, store: SqlStore, statements: list[str], finding: str
) -> None:
    await by_hand(backing, *statements)
    for each in (trail, StoredAuditTrail(store)):
        found = await each.verify()
        assert found is not None
        assert any(part in found for part in finding.split("|")), found


async def test_a_trail_cut_off_with_its_head_is_found_by_who_saw_it(
    backing: Backing, trail: StoredAuditTrail, store: SqlStore
) -> None:
    kept = await trail.head()
    (third,) = await trail.page(tenant_id=None, after=2, limit=1)
    hashed = f"'\\x{third.hash.hex()}'" if backing.name == "postgres" else f"x'{third.hash.hex()}'"
    await by_hand(
        backing,
        "DELETE FROM admin_audit WHERE sequence > 3",
        f"UPDATE admin_audit_head SET sequence = 3, hash = {hashed}",
    )
    assert await StoredAuditTrail(store).verify() is None, (
        "as the docstring says, the chain alone does not show it"
    )
    assert await StoredAuditTrail(store).verify(kept) == "entries 4 to 5 are missing at the end"
    assert await trail.verify() == "entries 4 to 5 are missing at the end", "this process saw more"
    assert "another than" in str(await StoredAuditTrail(store).verify(Head(3, bytes(32))))


async def test_a_trail_can_be_verified_while_it_grows(trail: StoredAuditTrail) -> None:
    async def grow() -> None:
        for number in range(20):
            await trail.append(deed(number))

    growing = asyncio.create_task(grow())
    while not growing.done():
        assert await trail.verify() is None
    await growing
    assert await trail.verify() is None
    assert (await trail.head()).sequence == 25


async def test_a_long_trail_is_verified_in_pages(file_store: SqlStore, tmp_path: Path) -> None:
    trail = StoredAuditTrail(file_store)
    for number in range(1_001):
        await trail.append(deed(number))
    assert await trail.verify() is None
    await by_hand(Backing("sqlite", tmp_path), "UPDATE admin_audit SET detail = 'x' WHERE sequence = 1001")
    assert await trail.verify() == "entry 1001 is not what was entered"
