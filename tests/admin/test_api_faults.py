"""Stores that fail, clients that hang up, changes at once: a named error, nothing half done, other tenants untouched."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.admin.api import KEY_VALUE, OPERATOR, YAML, A, Api, B, Prepared, api_with, config_of
from tests.admin.api_requests import operations_of
from tests.vault.conftest import local

TRAIL = ("admin_audit", "admin_audit_head")
KEYS = "admin_keys"


@dataclass(frozen=True)
class Change:
    """A request that changes something; ``needs`` names the ETag that it has to send."""

    method: str
    path: str
    json: Any = None
    config: str | None = None
    needs: str | None = None
    secret: bool = False


WHY = {"reason": "a reason"}
CHANGES = {
    "tenants_create": Change("POST", "/v1/tenants", config="tenant-new"),
    "tenants_status": Change("PATCH", f"/v1/tenants/{A}", {"status": "suspended"}, needs=""),
    "config_draft": Change("POST", f"/v1/tenants/{A}/config/versions", config=A),
    "config_validate": Change("POST", f"/v1/tenants/{A}/config/versions/2/validation", {}),
    "config_activate": Change("POST", f"/v1/tenants/{A}/config/versions/2/activation", WHY, needs="/config"),
    "config_reject": Change("POST", f"/v1/tenants/{A}/config/versions/2/rejection", WHY),
    "config_rollback": Change("POST", f"/v1/tenants/{A}/config/rollback", WHY | {"to": 1}, needs="/config"),
    "trial_begin": Change("PUT", f"/v1/tenants/{A}/config/trial", WHY | {"version": 2}, needs="/config"),
    "trial_end": Change("DELETE", f"/v1/tenants/{A}/config/trial"),
    "keys_put": Change("PUT", f"/v1/tenants/{A}/keys/openai", {"key": "a key"}),
    "keys_revoke": Change("DELETE", f"/v1/tenants/{A}/keys/canary-{A}"),
    "keys_reseal": Change("POST", f"/v1/tenants/{A}/keys/rotation"),
    "keys_rewrap": Change("POST", "/v1/keys/rotation"),
    "tokens_create": Change("POST", "/v1/tokens", {"role": "tenant", "tenant_id": A, "label": "x"}, secret=True),
    "tokens_revoke": Change("DELETE", "/v1/tokens/TOKEN"),
}  # fmt: skip
FIRST = {
    # What has to be there for the change to be one.
    "trial_end": CHANGES["trial_begin"],
    "config_rollback": CHANGES["config_activate"],
}
CHANGES_NOTHING = ("keys_rewrap",)
"""Where the data keys are wrapped by the present key already."""


async def send(api: Api, change: Change, *, key: str | None = None, who: str = OPERATOR) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    if change.needs is not None:
        tag = await api.ask(who, "GET", f"/v1/tenants/{A}{change.needs}")
        headers["If-Match"] = tag.headers["etag"]
    content = None
    if change.config is not None:
        headers |= YAML
        content = config_of(change.config, greeting="Changed.")
    path = change.path.replace("TOKEN", api.token_ids[A])
    return await api.ask(who, change.method, path, headers=headers, json=change.json, content=content)


@contextmanager
def broken(api: Api, when: str) -> Iterator[None]:
    """A table of the API's own store that cannot be written, as the file's own database says."""
    with closing(sqlite3.connect(api.directory / "admin.db", isolation_level=None)) as connection:
        connection.execute(
            f"CREATE TRIGGER broken BEFORE {when} BEGIN SELECT RAISE(ABORT, 'cannot be written'); END"
        )
        try:
            yield
        finally:
            connection.execute("DROP TRIGGER broken")


@asynccontextmanager
async def ready_for(prepared: Prepared, directory: Path, name: str) -> AsyncIterator[Api]:
    async with prepared.open(directory) as api:
        if name in FIRST:
            first = await send(api, FIRST[name])
            assert first.status_code == 200, first.text
        yield api


async def test_each_changing_operation_is_listed_here(prepared: Prepared, tmp_path: Path) -> None:
    async with prepared.open(tmp_path) as api:
        document = (await api.ask(None, "GET", "/openapi.json")).json()
        changing = {each.says["operationId"] for each in operations_of(document) if each.method != "GET"}
        assert changing == set(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
async def test_without_the_trail_nothing_is_done(prepared: Prepared, tmp_path: Path, name: str) -> None:
    async with ready_for(prepared, tmp_path, name) as api:
        before = api.state()
        with broken(api, "INSERT ON admin_audit"):
            refused = await send(api, CHANGES[name])
            assert refused.status_code == 503, refused.text
            assert refused.json()["type"] == "urn:mediaserver:problem:unavailable"
            assert str(tmp_path) not in refused.text
            assert api.state() == before
            if not CHANGES[name].secret:
                assert (await send(api, CHANGES[name], key="k")).status_code == 503
                # The key is free again: the request is tried once more, and carried out then.
                assert api.state() == before
        done = await send(api, CHANGES[name], key=None if CHANGES[name].secret else "k")
        assert done.status_code < 300, done.text
        after = api.state(*TRAIL, KEYS)
        changed = {table for table in after if after[table] != before.get(table)}
        assert bool(changed) == (name not in CHANGES_NOTHING)


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_whose_outcome_cannot_be_entered_stands_and_shows_as_begun(
    prepared: Prepared, tmp_path: Path, name: str
) -> None:
    async with ready_for(prepared, tmp_path, name) as api:
        with broken(api, "INSERT ON admin_audit WHEN NEW.status <> 102"):
            done = await send(api, CHANGES[name])
        assert done.status_code < 300, done.text
        assert [status for status, _ in api.trail(done.headers["x-request-id"])] == [102]
        assert await api.parts.audit.verify() is None


@pytest.mark.parametrize("name", [name for name, change in CHANGES.items() if not change.secret])
async def test_without_the_keys_store_a_request_with_a_key_is_not_begun(
    prepared: Prepared, tmp_path: Path, name: str
) -> None:
    async with ready_for(prepared, tmp_path, name) as api:
        before = api.state()
        with broken(api, f"INSERT ON {KEYS}"):
            refused = await send(api, CHANGES[name], key="k")
            assert refused.status_code == 503, refused.text
            assert api.state() == before
            assert (await send(api, CHANGES[name])).status_code < 300


async def test_an_answer_that_cannot_be_kept_is_given_and_the_change_not_made_twice(
    prepared: Prepared, tmp_path: Path
) -> None:
    async with prepared.open(tmp_path) as api:
        change = CHANGES["config_draft"]
        with broken(api, f"UPDATE ON {KEYS}"):
            assert (await send(api, change, key="k")).status_code == 201
        before = api.state()
        again = await send(api, change, key="k")
        assert (again.status_code, again.json()["type"].rpartition(":")[2]) == (409, "still_running")
        assert api.state() == before


async def test_a_token_s_answer_is_kept_nowhere(prepared: Prepared, tmp_path: Path) -> None:
    async with prepared.open(tmp_path) as api:
        before = api.state()
        assert (await send(api, CHANGES["tokens_create"], key="k")).status_code == 400
        assert api.state() == before
        made = (await send(api, CHANGES["tokens_create"])).json()["token"]
        assert made.encode() not in api.written()


# -- locked, full, gone ----------------------------------------------------------------------------------------

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another_process(path: Path) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"held\n"
        yield
    finally:
        process.stdin.close()
        process.stdout.close()
        assert process.wait(timeout=15) == 0


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("admin.db", "config_draft"),
        ("shared.db", "tenants_status"),
        ("shared.db", "tenants_create"),
        (f"tenants/client-{A}.db", "config_draft"),
        (f"tenants/client-{A}.db", "config_activate"),
        ("vault.db", "keys_put"),
        ("vault.db", "keys_reseal"),
    ],
)
async def test_a_store_that_another_process_holds(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, name: str
) -> None:
    monkeypatch.setattr("tenancy.database.BUSY_TIMEOUT_MS", 50)
    monkeypatch.setattr("vault.sqlite.BUSY_TIMEOUT_MS", 50)
    async with ready_for(prepared, tmp_path, name) as api:
        before = api.state(*TRAIL)
        with held_by_another_process(tmp_path / file):
            refused = await send(api, CHANGES[name])
            assert refused.status_code == 503, refused.text
            assert int(refused.headers["retry-after"]) >= 1
            assert str(tmp_path) not in refused.text
            assert api.state(*TRAIL) == before
            assert (await api.ask(B, "GET", f"/v1/tenants/{B}/config")).status_code == 200
            if file.startswith("tenants/"):
                await api.draft(B, who=B, greeting="Another tenant's.")
        assert (await send(api, CHANGES[name])).status_code < 300
        assert await api.parts.audit.verify() is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("only root can make a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk(prepared: Prepared, small_disk: Path) -> None:
    async with prepared.open(small_disk) as api:
        # A file that is open can be read without room; to open one, SQLite needs some.
        assert (await api.ask(B, "GET", f"/v1/tenants/{B}/config")).status_code == 200
        before = api.state(*TRAIL)
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096) == 4096:
                    pass
            except OSError:
                pass
        statuses = set()
        for number in range(6):
            answer = await send(api, CHANGES["config_draft"], key=f"k{number}")
            statuses.add(answer.status_code)
            assert answer.headers["content-type"] == "application/problem+json" or answer.status_code == 201
        assert statuses <= {201, 503, 507}
        assert statuses & {503, 507}
        assert (await api.ask(B, "GET", f"/v1/tenants/{B}/config")).status_code == 200
        filler.unlink()
        assert len(api.state(*TRAIL)[f"client-{A}.db/config_versions"]) >= len(
            before[f"client-{A}.db/config_versions"]
        )
        done = await send(api, CHANGES["config_activate"])
        assert done.status_code == 200, done.text
        assert (await send(api, CHANGES["keys_put"])).status_code == 200
        assert await api.parts.audit.verify() is None


async def test_a_key_encryption_key_that_is_gone(prepared: Prepared, tmp_path: Path) -> None:
    async with prepared.open(tmp_path, keks=local("k2")) as api:
        before = api.state(*TRAIL)
        for name in ("keys_put", "keys_revoke", "keys_reseal"):
            refused = await send(api, CHANGES[name], who=A)
            assert refused.status_code == 503, (name, refused.text)
            assert refused.json()["detail"] == "the key-encryption key is not here"
            assert KEY_VALUE not in refused.text
            assert [each for each, _ in api.trail(refused.headers["x-request-id"])] == [102, 503]
        assert api.state(*TRAIL) == before
        assert (await api.ask(A, "GET", f"/v1/tenants/{A}/keys")).status_code == 200
        await api.draft(A, who=A, greeting="Calls go on.")


async def test_a_node_without_a_vault(tmp_path: Path) -> None:
    async with api_with(tmp_path, with_vault=False) as api:
        for name in ("keys_put", "keys_revoke", "keys_reseal", "keys_rewrap"):
            refused = await send(api, CHANGES[name])
            assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (409, "no_vault")


# -- at once, and cut off --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5])
async def test_of_changes_at_once_one_wins(prepared: Prepared, tmp_path: Path, count: int) -> None:
    async with prepared.open(tmp_path) as api:
        drafts = [await api.draft(A, greeting=f"Number {number}.") for number in range(count)]
        tag = {"If-Match": await api.active_tag(A)}
        answers = await asyncio.gather(
            *(
                api.ask(
                    A, "POST", f"/v1/tenants/{A}/config/versions/{each}/activation", json=WHY, headers=tag
                )
                for each in drafts
            )
        )
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200] + [412] * (count - 1)
        (won,) = (answer for answer in answers if answer.status_code == 200)
        assert await api.active_tag(A) == won.headers["etag"]
        states = [
            each for (each,) in api.rows(f"tenants/client-{A}.db", "SELECT version FROM active_version")
        ]
        assert states == [won.json()["version"]]


async def test_changes_with_one_idempotency_key_at_once_are_one(prepared: Prepared, tmp_path: Path) -> None:
    async with prepared.open(tmp_path) as api:
        answers = await asyncio.gather(*(send(api, CHANGES["config_draft"], key="k") for _ in range(5)))
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
        assert len(api.rows(f"tenants/client-{A}.db", "SELECT version FROM config_versions")) == 3


@pytest.mark.parametrize("steps", range(0, 64, 8))
async def test_a_client_that_hangs_up_leaves_nothing_half_done(
    prepared: Prepared, tmp_path: Path, steps: int
) -> None:
    async with prepared.open(tmp_path) as api:
        done = asyncio.Event()
        send_now = partial(send, api, CHANGES["config_activate"])
        task = asyncio.ensure_future(send_now())
        task.add_done_callback(lambda _: done.set())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await done.wait()
        lines = api.rows(
            "admin.db", "SELECT status FROM admin_audit WHERE action = 'config.activate' ORDER BY sequence"
        )
        active = api.rows(f"tenants/client-{A}.db", "SELECT version FROM active_version")
        assert (lines, active) in (([], [(1,)]), ([(102,), (200,)], [(2,)]))
        assert await api.parts.audit.verify() is None
