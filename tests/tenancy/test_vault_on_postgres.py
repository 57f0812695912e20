"""The vault of nodes that share a Postgres: one for all, brought there and back by ``mediaserver migrate``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from config.node import (
    EnvironmentKek,
    FileKek,
    NodeConfig,
    PlatformProviders,
    PostgresConfig,
    StoreConfig,
    TransitKek,
    VaultConfig,
)
from mediaserver.doctor.keys import vault_checks
from mediaserver.store_commands import migrate
from perf.postgres_server import PostgresServer
from tenancy import Registry
from tenancy.keys import TenantKeys, absent_keys, open_tenant_keys, open_vault, vault_path
from tests.keys.test_command import KEY, Commands
from tests.tenancy.conftest import tenant
from tests.vault.conftest import ADA, NOON, put
from tests.vault.transit_server import TOKEN, transit_server
from vault import (
    KekMissing,
    KekUnusable,
    Secret,
    Vault,
    VaultElsewhere,
    VaultStoreError,
    VaultStoreUnavailable,
)

URL = "MEDIASERVER_POSTGRES_URL"


@pytest.fixture
def keys_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a call waits for a key is `test_keys`'s, on a clock of its own; here the machine may be busy."""
    monkeypatch.setattr("tenancy.keys.WAIT_MS", 10_000)


@pytest.fixture
def environ(postgres: PostgresServer) -> dict[str, str]:
    return {URL: postgres.new_database(), "KEK": "22" * 31 + "23"}


@pytest.fixture
def kek(tmp_path: Path) -> FileKek:
    path = tmp_path / "kek"
    path.touch(0o600)
    path.write_text("11" * 31 + "12")
    return FileKek(source="file", label="k1", path=path)


@pytest.fixture
def files(tmp_path: Path, kek: FileKek) -> NodeConfig:
    """A node on files that may follow its tenants and its vault to Postgres."""
    store = StoreConfig(postgres=PostgresConfig(wait_ms=2_000))
    return NodeConfig(data_dir=tmp_path / "data", vault=VaultConfig(kek=kek), store=store)


@pytest.fixture
def shared(tmp_path: Path, kek: FileKek) -> NodeConfig:
    """A node on Postgres."""
    return node(tmp_path, kek)


def node(tmp_path: Path, kek: FileKek | EnvironmentKek | TransitKek, *older: FileKek) -> NodeConfig:
    store = StoreConfig(kind="postgres", postgres=PostgresConfig(wait_ms=2_000))
    return NodeConfig(data_dir=tmp_path / "other", vault=VaultConfig(kek=kek, older=older), store=store)


async def opened(config: NodeConfig, environ: dict[str, str]) -> Vault:
    vault = await open_vault(config, environ)
    assert vault is not None
    return vault


async def fill(config: NodeConfig, environ: dict[str, str], value: str = "key-of-a") -> None:
    vault = await opened(config, environ)
    await put(vault, "a", "acme", value)
    await vault.aclose()


async def fetched(keys: TenantKeys | None, name: str = "acme") -> Secret | str | None:
    assert keys is not None
    found = (await keys.fetch("a", (name,))).found[name]
    return found.secret or found.reason


@pytest.fixture
async def two_nodes(shared: NodeConfig, environ: dict[str, str]) -> AsyncIterator[list[TenantKeys]]:
    made = [await open_tenant_keys(shared, environ) for _ in range(2)]
    yield [each for each in made if each is not None]
    for each in made:
        assert each is not None
        await each.aclose()


@pytest.mark.usefixtures("keys_are_waited_for")
async def test_a_key_that_is_put_on_one_node_is_on_the_other(
    two_nodes: list[TenantKeys], shared: NodeConfig, environ: dict[str, str]
) -> None:
    one, other = two_nodes
    assert await fetched(other) == "is missing"
    await put(one._vault, "a", "acme", "key-of-a")
    assert await fetched(other) == await fetched(one) == Secret("key-of-a")
    await other._vault.rotate_data_key("a", actor=ADA, at=NOON)
    assert await fetched(one) == Secret("key-of-a")
    await other._vault.revoke("a", "acme", actor=ADA, at=NOON)
    assert await fetched(one) == "was revoked"
    assert await one._vault.verify_audit() is None
    assert not vault_path(shared).exists(), "nothing is kept on the node"
    del environ


async def test_a_database_that_hangs_costs_a_call_its_keys_and_a_bounded_wait(
    two_nodes: list[TenantKeys], environ: dict[str, str]
) -> None:
    keys = two_nodes[0]
    await put(keys._vault, "a", "acme", "key-of-a")
    with psycopg.connect(environ[URL]) as session:
        session.execute("LOCK TABLE vault_secrets IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        assert await fetched(keys) == "was not read within 250 ms"
        assert await fetched(keys) == "was not read within 25 ms"
        assert time.monotonic() - began < 2, "it is the call's time limit, not the database's"
    for _ in range(100):
        if await fetched(keys) == Secret("key-of-a"):
            break
    else:
        pytest.fail("it does not recover")


async def test_a_node_whose_database_is_not_there_says_so(shared: NodeConfig) -> None:
    with pytest.raises(VaultStoreError, match=f"the vault is in Postgres, and {URL} is not set"):
        await open_tenant_keys(shared, {})
    with pytest.raises(VaultStoreError, match=f"{URL} is no URL") as caught:
        await open_tenant_keys(shared, {URL: "mysql://u:sk-secret@h/d"})
    assert "sk-secret" not in str(caught.value)
    with pytest.raises(VaultStoreUnavailable, match=r"postgres 127\.0\.0\.1/d") as gone:
        await open_tenant_keys(shared, {URL: "postgresql://u:sk-secret@127.0.0.1:1/d"})
    assert "sk-secret" not in str(gone.value)


async def test_a_key_encryption_key_that_is_gone_is_named_with_what_it_wraps(
    shared: NodeConfig, environ: dict[str, str], kek: FileKek, tmp_path: Path
) -> None:
    await fill(shared, environ)
    with pytest.raises(KekMissing, match=r"k1:[0-9a-f]{8}"):
        await open_tenant_keys(node(tmp_path, EnvironmentKek(source="env", variable="KEK")), environ)
    kek.path.unlink()
    with pytest.raises(KekUnusable, match=r"No such file.*wrapped by k1:[0-9a-f]{8}"):
        await open_tenant_keys(shared, environ)


@pytest.mark.usefixtures("keys_are_waited_for")
async def test_from_a_file_to_a_key_service_and_back_by_the_configuration(
    shared: NodeConfig, environ: dict[str, str], kek: FileKek, tmp_path: Path
) -> None:
    await fill(shared, environ)
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(TOKEN)
    async with transit_server() as server:
        service = TransitKek(source="transit", url=server.url, key="tenants", token_file=token)
        for current, older in ((service, kek), (kek, service)):
            both = NodeConfig(
                data_dir=tmp_path, store=shared.store, vault=VaultConfig(kek=current, older=(older,))
            )
            vault = await opened(both, environ)
            done = await vault.rotate_kek(actor=ADA, at=NOON)
            assert (done.rewrapped, done.finished) == (2, True)
            await vault.aclose()
            alone = await open_tenant_keys(node(tmp_path, current), environ)
            assert await fetched(alone) == Secret("key-of-a")
            assert alone is not None
            await alone.aclose()


# -- mediaserver migrate -----------------------------------------------------------------------------------


async def run(config: NodeConfig, environ: dict[str, str], *tenants: str, back: bool = False) -> list[str]:
    lines: list[str] = []
    status = await migrate(config, environ, tenants, back=back, tell=lines.append)
    assert status == int(any("failed: " in line for line in lines))
    return lines


async def tenant_a(files: NodeConfig) -> None:
    registry = await Registry.open(Path(files.data_dir), PlatformProviders(), {})
    await registry.import_tenant(tenant("a"), author="test", reason="test")
    await registry.close()


@pytest.mark.usefixtures("keys_are_waited_for")
@pytest.mark.usefixtures("keys_are_waited_for")
async def test_the_vault_goes_along_while_a_node_reads_it(
    files: NodeConfig, shared: NodeConfig, environ: dict[str, str]
) -> None:
    await tenant_a(files)
    await fill(files, environ)
    running = await open_tenant_keys(files, environ)
    assert running is not None
    done = asyncio.Event()
    reads = 0

    async def reading() -> None:
        nonlocal reads
        while not done.is_set():
            assert await fetched(running) == Secret("key-of-a")
            reads += 1

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(reading())
            lines = await run(files, environ, "a")
            assert not [line for line in lines if line.startswith("vault")], (
                "it goes as a whole, not by tenant"
            )
            lines = await run(files, environ)
            done.set()
        assert lines[1].startswith("vault: moved: 2 data keys, 1 keys, 3 audit entries, sha256 ")
        assert lines[1].endswith("its audit trail is sound")
        assert reads > 0
        assert (await run(files, environ))[1] == "vault: already there"
        # The node that was not started anew, and one on Postgres, have one vault.
        await fill(shared, environ, "put-on-the-other")
        assert await fetched(running) == Secret("put-on-the-other")
        await put(running._vault, "a", "acme", "put-here")
        other = await open_tenant_keys(shared, environ)
        assert await fetched(other) == Secret("put-here")
        assert other is not None
        lines = await run(files, environ, back=True)
        assert lines[1].startswith("vault: moved: 2 data keys, 1 keys, 5 audit entries")
        assert await fetched(running) == Secret("put-here")
        assert "VaultElsewhere" in str(await fetched(other)), "a node on Postgres alone is told"
        await other.aclose()
    finally:
        done.set()
        await running.aclose()


async def test_a_node_that_cannot_follow_is_told_where_the_vault_is(
    files: NodeConfig, environ: dict[str, str]
) -> None:
    await fill(files, environ)
    await run(files, environ)
    alone = await opened(files.model_copy(update={"store": StoreConfig()}), environ)
    with pytest.raises(VaultElsewhere, match=r"vault\.db: the vault was brought to Postgres; the node needs"):
        await alone.get("a", "acme")
    await alone.aclose()


async def test_two_nodes_vaults_are_not_put_together(
    files: NodeConfig, environ: dict[str, str], tmp_path: Path
) -> None:
    await fill(files, environ)
    second = files.model_copy(update={"data_dir": tmp_path / "second"})
    await fill(second, environ, "of-the-second")
    await run(files, environ)
    (line, *_) = await run(second, environ)
    assert line.startswith("vault: failed: there is a vault with another root key")
    vault = await opened(second, environ)
    assert (await vault.get("a", "acme")).reveal() == "of-the-second"
    await vault.aclose()


async def test_a_vault_that_the_configuration_forgot_is_told(
    files: NodeConfig, environ: dict[str, str]
) -> None:
    forgot = files.model_copy(update={"vault": None})
    assert await run(forgot, environ) == ["0 moved, 0 already there, 0 failed"]
    await fill(files, environ)
    lines = await run(forgot, environ)
    assert "the configuration has no vault section" in lines[0]
    assert (await run(files, environ))[0].startswith("vault: moved: ")
    assert (await run(files, environ, back=True))[0].startswith("vault: moved: ")


# -- mediaserver keys --------------------------------------------------------------------------------------


@pytest.fixture
def commands(tmp_path: Path, kek: FileKek) -> Commands:
    made = Commands(tmp_path)
    made.configure(
        tenants=[],
        vault={"kek": {"source": "file", "label": "k1", "path": str(kek.path)}},
        store={"kind": "postgres"},
    )
    return made


@pytest.mark.usefixtures("keys_are_waited_for")
async def test_the_commands_work_on_the_vault_of_all_nodes(
    commands: Commands, shared: NodeConfig, environ: dict[str, str], tmp_path: Path
) -> None:
    said = await commands("list", **environ)
    assert (said.status, "the vault in Postgres: no key was put yet" in said.err) == (2, True)
    said = await commands("put", "a", "acme", stdin=KEY, **environ)
    assert said.out.startswith("a: key acme is version 1 now"), said
    keys = await open_tenant_keys(shared, environ)
    assert keys is not None
    assert await fetched(keys) == Secret(KEY)
    assert (await commands("list", **environ)).out == "a\n"
    assert (await commands("rotate", "--data-key", "a", **environ)).status == 0
    assert (await commands("revoke", "a", "acme", **environ)).status == 0
    assert await fetched(keys) == "was revoked"
    await keys.aclose()
    assert len((await commands("audit", **environ)).out.splitlines()) == 8
    said = await commands("audit", "--verify", **environ)
    assert said.out.startswith("the audit trail is sound: 7 entries")
    assert not (tmp_path / "data" / "vault.db").exists()
    said = await commands("list", **{URL: ""})
    assert (said.status, f"{URL} is not set" in said.err) == (2, True)


async def test_the_command_wraps_anew_from_a_file_to_a_key_service(
    commands: Commands, kek: FileKek, environ: dict[str, str], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(TOKEN)
    file = {"source": "file", "label": "k1", "path": str(kek.path)}
    await commands("put", "a", "acme", stdin=KEY, **environ)
    async with transit_server() as server:
        service = {"source": "transit", "url": server.url, "key": "tenants", "token_file": str(token)}
        commands.configure(tenants=[], store={"kind": "postgres"}, vault={"kek": service, "older": [file]})
        said = await commands("rotate", "--kek", **environ)
        assert said.out.startswith("2 data keys are wrapped anew by transit:transit/tenants:v1\n"), said
        assert "those under vault.older may go" in said.out
        commands.configure(tenants=[], store={"kind": "postgres"}, vault={"kek": service})
        assert (await commands("audit", "--verify", **environ)).status == 0


# -- who looks at it ---------------------------------------------------------------------------------------


async def test_the_dry_run_and_the_doctor_ask_the_vault_of_all_nodes(
    shared: NodeConfig, environ: dict[str, str]
) -> None:
    await fill(shared, environ)
    vault = await opened(shared, environ)
    await put(vault, "a", "gone", "x")
    await vault.revoke("a", "gone", actor=ADA, at=NOON)
    await vault.aclose()
    absent = await absent_keys(shared, environ, "a", ("acme", "gone", "other"))
    assert absent == {"gone": "was revoked", "other": "is missing"}
    told = [(check.name, check.measured) for check in await vault_checks(shared, environ)]
    assert told == [
        ("vault", "its key-encryption keys open what they wrap"),
        ("vault's audit trail", "sound, 5 entries"),
    ]
    (check,) = await vault_checks(shared, {URL: "postgresql://u:sk-secret@127.0.0.1:1/d"})
    assert "postgres 127.0.0.1/d" in check.measured
    assert "sk-secret" not in check.measured
    assert "see that the vault's database runs" in check.todo
