"""Lists are told by pages, whatever there is of them: a page costs a page."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.admin.api import OPERATOR, A, Api, Prepared, call_of
from tests.tenancy.conftest import dialled
from tests.vault.conftest import NOON

TENANTS = 5_000


@dataclass
class Read:
    """What a request costs the databases."""

    statements: list[tuple[str, Any]] = field(default_factory=list)


@contextmanager
def counted() -> Iterator[Read]:
    read = Read()

    def one(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        read.statements.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", one)
    try:
        yield read
    finally:
        event.remove(Engine, "before_cursor_execute", one)


def add_tenants(api: Api, count: int) -> None:
    """As rows, and not one after the other by the API: what is asked is how they are listed."""
    with closing(sqlite3.connect(api.directory / "shared.db")) as connection, connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(tenants)")]
        ((_, *rest),) = connection.execute(
            f"SELECT {', '.join(columns)} FROM tenants WHERE tenant_id = ?", [A]
        ).fetchall()
        assert columns[0] == "tenant_id"
        connection.executemany(
            f"INSERT INTO tenants VALUES ({', '.join('?' * len(columns))})",
            [(f"many-{number:05}", *rest) for number in range(count)],
        )


def cursor_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


async def pages(api: Api, path: str, **params: str) -> list[list[dict[str, Any]]]:
    """All pages, by the links that they give."""
    found: list[list[dict[str, Any]]] = []
    answer = await api.ask(OPERATOR, "GET", path, params=params)
    while True:
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["items"])
        link = answer.links.get("next")
        assert (link is None) == (answer.json()["next_cursor"] is None)
        if link is None:
            return found
        answer = await api.ask(OPERATOR, "GET", link["url"])


async def test_thousands_of_tenants(prepared: Prepared, tmp_path: Path) -> None:
    async with prepared.open(tmp_path) as api:
        add_tenants(api, TENANTS)
        found = await pages(api, "/v1/tenants", limit="100")
        ids = [each["tenant_id"] for page in found for each in page]
        assert ids == sorted(set(ids))
        assert len(ids) == TENANTS + 2
        assert {len(page) for page in found[:-1]} == {100}
        costs = []
        for cursor in (None, cursor_of("many-04000")):
            with counted() as read:
                answer = await api.ask(
                    OPERATOR,
                    "GET",
                    "/v1/tenants",
                    params={"limit": "10"} | ({"cursor": cursor} if cursor else {}),
                )
            assert len(answer.json()["items"]) == 10
            costs.append(len(read.statements))
        assert costs[0] == costs[1] <= 3
        suspended = await api.ask(OPERATOR, "GET", "/v1/tenants", params={"status": "suspended"})
        assert suspended.json()["items"] == []


async def test_a_page_of_tenants_reads_no_more_than_its_rows(prepared: Prepared, tmp_path: Path) -> None:
    async with prepared.open(tmp_path) as api:
        add_tenants(api, TENANTS)
        rows = 0
        fetchall = aiosqlite.Cursor.fetchall

        async def counting(cursor: aiosqlite.Cursor) -> Any:
            nonlocal rows
            found = list(await fetchall(cursor))
            rows += len(found)
            return found

        asked = {"limit": "10", "cursor": cursor_of("many-00010")}
        with counted() as read, pytest.MonkeyPatch.context() as patch:
            patch.setattr(aiosqlite.Cursor, "fetchall", counting)
            page = await api.ask(OPERATOR, "GET", "/v1/tenants", params=asked)
        assert page.json()["items"][0]["tenant_id"] == "many-00011"
        # One more than the page has, to know whether there is another; and whose token it is.
        assert 11 <= rows <= 15
        (listing,) = (each for each in read.statements if "FROM tenants" in each[0])
        with closing(sqlite3.connect(tmp_path / "shared.db")) as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {listing[0]}", listing[1]).fetchall()
        assert all("SEARCH" in line[-1] for line in plan), plan


@pytest.mark.parametrize("limit", ["1", "7", "99", "100"])
async def test_no_call_is_on_two_pages_or_on_none(prepared: Prepared, tmp_path: Path, limit: str) -> None:
    async with prepared.open(tmp_path) as api:
        context = await api.registry.context_for(dialled("+15550100"), call_id="c")
        for number in range(120 if len(limit) > 1 else 12):
            # Two at each moment: the time alone is no place.
            at = NOON + timedelta(minutes=number // 2)
            record = replace(call_of(A), call_id=f"call-{number}", started_at=at, ended_at=at)
            await api.registry.record_call(context, record)
        found = [each for page in await pages(api, f"/v1/tenants/{A}/calls", limit=limit) for each in page]
        assert len({each["call_id"] for each in found}) == len(found)
        stored = api.rows(f"tenants/client-{A}.db", "SELECT count(*) FROM calls")
        assert [(len(found),)] == stored
        assert [each["started_at"] for each in found] == sorted(
            (each["started_at"] for each in found), reverse=True
        )


@pytest.mark.parametrize("limit", ["1", "2", "100"])
async def test_versions_and_the_trail_page_by_page(prepared: Prepared, tmp_path: Path, limit: str) -> None:
    async with prepared.open(tmp_path) as api:
        for number in range(3):
            await api.draft(A, greeting=f"Number {number}.")
        path = f"/v1/tenants/{A}/config/versions"
        versions = [each["version"] for page in await pages(api, path, limit=limit) for each in page]
        assert versions == [5, 4, 3, 2, 1]
        for path in ("/v1/audit", f"/v1/tenants/{A}/audit"):
            lines = [each["sequence"] for page in await pages(api, path, limit=limit) for each in page]
            assert lines == sorted(set(lines))
            assert lines
        tokens = [each["public_id"] for page in await pages(api, "/v1/tokens", limit=limit) for each in page]
        assert set(tokens) == set(api.token_ids.values())


@pytest.mark.parametrize("limit", ["1", "2", "100"])
async def test_trials_and_the_log_page_by_page(prepared: Prepared, tmp_path: Path, limit: str) -> None:
    async with prepared.open(tmp_path) as api:
        path = f"/v1/tenants/{A}/config"
        tried = []
        for number in range(3):
            tried.append(await api.draft(A, greeting=f"Number {number}."))
            begun = await api.ask(
                OPERATOR, "PUT", f"{path}/trial", headers={"if-match": await api.active_tag(A)},
                json={"version": tried[-1], "reason": "to see"},
            )  # fmt: skip
            assert begun.status_code == 200, begun.text
            ended = await api.ask(OPERATOR, "DELETE", f"{path}/trial")
            assert ended.status_code == 200, ended.text
        trials = [
            each["version"] for page in await pages(api, f"{path}/trials", limit=limit) for each in page
        ]
        assert trials == tried[::-1]
        whole = (await api.ask(OPERATOR, "GET", f"{path}/log", params={"limit": 100})).json()["items"]
        assert [each["deed"] for each in whole].count("trial begun") == 3
        assert [each for page in await pages(api, f"{path}/log", limit=limit) for each in page] == whole


async def test_a_trial_that_nobody_named_is_not_ended(prepared: Prepared, tmp_path: Path) -> None:
    async with prepared.open(tmp_path) as api:
        path = f"/v1/tenants/{A}/config/trial"

        async def begin(version: int) -> str:
            body = {"version": version, "reason": "to see"}
            match = {"if-match": await api.active_tag(A)}
            begun = await api.ask(OPERATOR, "PUT", path, headers=match, json=body)
            assert begun.status_code == 200, begun.text
            return (await api.ask(OPERATOR, "GET", path)).headers["etag"]

        async def end(tag: str) -> int:
            return (await api.ask(OPERATOR, "DELETE", path, headers={"if-match": tag})).status_code

        first = await begin(await api.draft(A, greeting="One."))
        assert await end(first) == 200
        assert await end(first) == 412
        second = await begin(await api.draft(A, greeting="Two."))
        assert (first == second, await end(first)) == (False, 412)
        assert (await api.ask(OPERATOR, "GET", path)).status_code == 200
        assert await end(second) == 200
