"""``mediaserver migrate`` and ``mediaserver tenant``, as a person types them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from config.node import PlatformProviders
from mediaserver.cli import main
from perf.postgres_server import PostgresServer
from tenancy import Registry
from tests.tenancy.conftest import tenant
from tests.tenancy.test_registry import shard_file

DATABASE = "MEDIASERVER_POSTGRES_URL"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The configuration of a node with two tenants."""

    async def make() -> None:
        registry = await Registry.open(tmp_path / "data", PlatformProviders(), {})
        for name, number in (("a", "+15550100"), ("b", "+15550101")):
            await registry.import_tenant(tenant(name, number), author="test", reason="test")
        await registry.close()

    asyncio.run(make())
    path = tmp_path / "node.yaml"
    path.write_text(f"data_dir: {tmp_path / 'data'}\nstore:\n  postgres: {{}}\n")
    return path


def test_tenants_are_migrated_and_brought_back(
    node: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DATABASE, postgres.new_database())
    command = ["migrate", "sqlite-to-postgres", "--config", str(node)]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a: moved: 1 versions, 0 calls, sha256 ")
    assert lines[-1] == "2 moved, 0 already there, 0 failed"
    assert main([*command, "--reverse", "b"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 moved, 0 already there, 0 failed"
    assert main([*command, "x", "b"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "x: failed: x: no such tenant in the files"
    assert lines[-1] == "1 moved, 0 already there, 1 failed"
    assert main([*command, "--reverse"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 moved, 0 already there, 0 failed"


def test_a_node_that_could_not_follow_is_refused(
    node: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(DATABASE, raising=False)
    command = ["migrate", "sqlite-to-postgres", "--config", str(node)]
    assert main(command) == 2
    assert f"{DATABASE} is not set" in capsys.readouterr().err
    node.write_text(node.read_text().partition("store:")[0])
    assert main(command) == 2
    assert "store.postgres section" in capsys.readouterr().err


def test_a_tenant_is_checked_backed_up_and_restored(
    node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = ["--config", str(node)]
    assert main(["tenant", "check", "a", *rest]) == 0
    assert json.loads(capsys.readouterr().out) == {"tenant": "a", "problems": []}
    file = tmp_path / "a.backup"
    assert main(["tenant", "backup", "a", str(file), *rest]) == 0
    assert json.loads(capsys.readouterr().out)["versions"] == 1
    shard_file(tmp_path / "data", "a").write_bytes(b"this is not a database" * 1000)
    assert main(["tenant", "check", "a", *rest]) == 1
    assert "damaged" in capsys.readouterr().out
    assert main(["tenant", "restore", str(file), *rest]) == 0
    assert json.loads(capsys.readouterr().out)["active_version"] == 1
    assert main(["tenant", "check", "a", *rest]) == 0
    capsys.readouterr()
    assert main(["tenant", "backup", "c", str(tmp_path / "c"), *rest]) == 2
    assert capsys.readouterr().err == "mediaserver: no tenant 'c'\n"


def test_a_tenant_is_moved_to_another_node(
    node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(f"data_dir: {tmp_path / 'other'}\n")
    file = tmp_path / "a.tenant"
    command = ["tenant", "export", "a", str(file), "--config", str(node)]
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--moved-to", "sip:node2.example"])
    assert "'sip:node2.example' is neither a node's SIP URI and HTTP root" in capsys.readouterr().err
    assert not file.exists()
    assert main([*command, "--moved-to", "sip:node2.example https://node2.example"]) == 0
    assert main(["tenant", "import", str(file), "--config", str(other)]) == 0
    assert json.loads(capsys.readouterr().out.partition("}\n")[2])["tenant_id"] == "a"
    assert main(["tenant", "restore", str(file), "--config", str(node)]) == 2
    assert "a has moved to sip:node2.example https://node2.example" in capsys.readouterr().err
