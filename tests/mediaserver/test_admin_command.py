"""``mediaserver admin``, as a person types it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from admin.opening import open_admin
from admin.principals import Role
from admin.tokens import ApiToken
from config.loader import load_node_config
from config.node import PlatformProviders
from mediaserver import admin_command
from mediaserver.cli import main
from tenancy import Registry
from tenancy.opening import open_store
from tests.sim.node import tenant

ISSUER = "https://idp.example"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(admin_command, "no_core_dumps", lambda: None)  # it would hold for all later tests
    path = tmp_path / "node.yaml"
    path.write_text(
        f"data_dir: {tmp_path / 'data'}\n"
        f"admin:\n  tokens: {{per_tenant_max: 2}}\n"
        f"  issuers: [{{issuer: '{ISSUER}', audience: x, operator_role: op}}]\n"
    )
    return path


def run(node: Path, *arguments: str) -> int:
    return main(["admin", *arguments, "--config", str(node)])


def created(node: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert run(node, "token", "create", "--label", "ci", *more) == 0
    out, err = capsys.readouterr()
    token = out.removesuffix("\n")
    assert isinstance(ApiToken.parse(token), ApiToken), "and nothing else is on standard output"
    assert token[18:] not in err
    assert "not shown again" in err
    return token


def test_the_first_token_opens_the_api(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    operator = created(node, capsys)
    tenant = created(node, capsys, "--tenant", "acme", "--days", "3")

    async def look() -> None:
        parts = await open_admin(load_node_config(node, {}), {})
        who = await parts.authenticator.authenticate(f"Bearer {operator}", "192.0.2.1")
        assert (who.role, who.subject) == (Role.OPERATOR, f"ci [{operator[4:17]}]")
        who = await parts.authenticator.authenticate(f"Bearer {tenant}", "192.0.2.1")
        assert (who.role, who.tenant_id) == (Role.TENANT, "acme")
        entries = await parts.audit.page(tenant_id=None, after=0, limit=9)
        assert [(each.deed.action, each.deed.tenant_id, each.deed.target) for each in entries] == [
            ("token.create", None, operator[4:17]),
            ("token.create", "acme", tenant[4:17]),
        ]
        assert entries[0].deed.principal.endswith("(command line)")
        await parts.aclose()

    asyncio.run(look())


def test_tokens_are_listed_and_revoked(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token, other = created(node, capsys), created(node, capsys, "--tenant", "acme")
    assert run(node, "token", "list") == 0
    listed = capsys.readouterr().out
    assert token[18:] not in listed
    assert "argon2" not in listed
    assert [line.split()[-1] for line in listed.splitlines()] == ["STATE", "good", "good"]
    assert run(node, "token", "list", "--tenant", "acme") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ID", other[4:17]]
    assert run(node, "token", "revoke", token[4:17]) == 0
    assert "is revoked" in capsys.readouterr().out
    assert run(node, "token", "list") == 0
    assert "revoked 2" in capsys.readouterr().out
    assert run(node, "token", "revoke", other) == 2
    err = capsys.readouterr().err
    assert "no API token has that id" in err
    assert other[18:] not in err


def test_a_token_for_a_tenant_that_is_not_there_says_so(
    node: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "note: this node has no tenant acme yet"
    assert run(node, "token", "create", "--label", "ci", "--tenant", "acme") == 0
    assert note in capsys.readouterr().err

    async def make() -> None:
        store = await open_store(load_node_config(node, {}), {})
        await Registry(store, PlatformProviders(), {}).lifecycle.follow(
            tenant("http://127.0.0.1:9/v1", tenant_id="acme"), author="ada", reason="new"
        )
        await store.close()

    asyncio.run(make())
    assert run(node, "token", "create", "--label", "ci", "--tenant", "acme") == 0
    assert "note" not in capsys.readouterr().err


def test_jwts_are_denied(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(node, "deny", "--issuer", ISSUER, "--jti", "7") == 0
    assert run(node, "deny", "--issuer", ISSUER, "--subject", "ada") == 0
    assert "sub ada is refused from now on" in capsys.readouterr().out
    assert run(node, "deny", "--issuer", "https://other.example", "--jti", "7") == 2
    assert f"configured are: {ISSUER}" in capsys.readouterr().err


def test_the_audit_trail_is_verified(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    created(node, capsys)
    assert run(node, "verify-audit") == 0
    assert "is sound: 1 entries, head " in capsys.readouterr().out
    connection = sqlite3.connect(node.parent / "data" / "admin.db", isolation_level=None)
    connection.execute("DROP TRIGGER admin_audit_stays")
    connection.execute("UPDATE admin_audit SET principal = 'eve'")
    connection.close()
    assert run(node, "verify-audit") == 1
    assert (
        "admin.db: the audit trail is not sound: entry 1 is not what was entered" in capsys.readouterr().err
    )


def test_a_token_that_could_not_be_entered_is_good_for_nothing(
    node: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    created(node, capsys)
    connection = sqlite3.connect(node.parent / "data" / "admin.db", isolation_level=None)
    connection.execute("CREATE TRIGGER no BEFORE INSERT ON admin_audit BEGIN SELECT RAISE (ABORT, 'no'); END")
    assert run(node, "token", "create", "--label", "x") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "admin.db: no" in err
    rows = connection.execute(
        "SELECT label, revoked_by IS NOT NULL FROM admin_tokens ORDER BY label"
    ).fetchall()
    connection.close()
    assert rows == [("ci", 0), ("x", 1)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["token", "create", "--label", ""], "a label is 1 to 64"),
        (["token", "create", "--label", "x", "--days", "999"], "1 to 365 days"),
        (["token", "create", "--label", "x", "--tenant", "A"], "a tenant id is"),
    ],
)
def test_what_cannot_be_made_is_named(
    node: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run(node, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_tokens_are_bounded(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        created(node, capsys, "--tenant", "acme")
    assert run(node, "token", "create", "--label", "x", "--tenant", "acme") == 2
    assert "tenant acme has 2 API tokens" in capsys.readouterr().err


def test_a_node_without_an_admin_api_says_how_to_have_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(f"data_dir: {tmp_path}\n")
    assert run(path, "token", "list") == 2
    assert "admin: {}" in capsys.readouterr().err
    assert not (tmp_path / "admin.db").exists()


def test_nothing_is_left_running(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    created(node, capsys)
    for thread in set(threading.enumerate()) - before:
        if "connection_worker" in thread.name:
            thread.join(5)
            assert not thread.is_alive()
