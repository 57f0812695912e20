"""``mediaserver keys`` as a person runs it, beside a node that has the vault open."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from config.node import NodeConfig, PlatformProviders, VaultConfig
from tenancy import Registry
from tenancy.keys import open_tenant_keys
from tests.sim import forked
from tests.sim.node import tenant
from tests.sim.vault import KEK, vault_config
from vault import Secret

KEY = "sk-proj-canary-4411aaF0-ä"


@dataclass(frozen=True)
class Said:
    """What a command printed."""

    status: int | None
    out: str
    err: str


@dataclass(frozen=True)
class Commands:
    """The command line with a node's configuration."""

    directory: Path

    def configure(self, **changes: object) -> None:
        config = {
            "vault": {"kek": {"source": "file", "label": "k1", "path": str(self.directory / "kek")}},
            "data_dir": str(self.directory / "data"),
            "tenants": ["tenant.yaml"],
            **changes,
        }
        (self.directory / "node.yaml").write_text(yaml.safe_dump(config))

    async def __call__(self, *arguments: str, stdin: str | bytes = b"", **environ: str) -> Said:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        node = self.directory / "node.yaml"
        done = await forked.start("keys", *arguments, "--config", node, stdin=given, environ=environ)
        for stream in (done.stdout, done.stderr):
            assert KEY.encode() not in stream, "no command shows a key"
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def keys(tmp_path: Path) -> Commands:
    commands = Commands(tmp_path)
    vault_config(tmp_path)
    provider = {"kind": "openai", "model": "m", "key": "openai"}
    config = tenant("http://127.0.0.1:9/v1", providers={"llm": [provider]})
    (tmp_path / "tenant.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    commands.configure()
    return commands


async def test_a_keys_life_beside_a_node_that_has_the_vault_open(keys: Commands, tmp_path: Path) -> None:
    said = await keys("put", "bakery", "openai", stdin=f"{KEY}\n")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("bakery: key openai is version 1 now, fingerprint ")
    config = NodeConfig(data_dir=tmp_path / "data", vault=_labelled(tmp_path))
    node = await open_tenant_keys(config, {})
    assert node is not None
    try:
        assert (await node.fetch("bakery", ("openai",))).found["openai"].secret == Secret(KEY)
        said = await keys("put", "bakery", "openai", stdin="the-second-key")
        assert "version 2" in said.out
        found = (await node.fetch("bakery", ("openai",))).found["openai"]
        assert (found.secret, found.version) == (Secret("the-second-key"), 2)
        said = await keys("list", "bakery")
        heading, row = said.out.splitlines()
        assert heading.split() == ["NAME", "VERSION", "FINGERPRINT", "PUT", "BY", "STATE"]
        assert (row.split()[:2], row.split()[-1]) == (["openai", "2"], "usable")
        assert (await keys("list")).out == "bakery\n"
        said = await keys("rotate", "--data-key", "bakery")
        assert said.out == "bakery: data key 2 seals 1 keys anew\n"
        assert (await node.fetch("bakery", ("openai",))).found["openai"].secret == Secret("the-second-key")
        said = await keys("revoke", "bakery", "openai")
        assert (said.status, "is revoked" in said.out) == (0, True)
        assert (await node.fetch("bakery", ("openai",))).found["openai"].reason == "was revoked"
    finally:
        await node.aclose()
    said = await keys("audit")
    assert [line.split()[3] for line in said.out.splitlines()[1:]] == [
        "data-key-added", "data-key-added", "put", "put", "data-key-added", "resealed", "data-key-retired", "revoke",
    ]  # fmt: skip
    assert len((await keys("audit", "--limit", "2")).out.splitlines()) == 3
    said = await keys("audit", "--verify")
    assert said.out.startswith("the audit trail is sound: 8 entries, head ")
    for path in (tmp_path / "data").iterdir():
        assert KEY.encode() not in path.read_bytes()


def _labelled(directory: Path) -> VaultConfig:
    section = vault_config(directory)
    return section.model_copy(update={"kek": section.kek.model_copy(update={"label": "k1"})})


async def test_a_new_key_encryption_key_and_the_old_one_taken_away(keys: Commands, tmp_path: Path) -> None:
    await keys("put", "bakery", "openai", stdin=KEY)
    keys.configure(vault={"kek": {"source": "env", "label": "k2", "variable": "KEK"}})
    new = KEK[::-1]
    said = await keys("rotate", "--kek", KEK=new)
    assert said.status == 1
    assert "bakery: data key 1 is as it was: " in said.err
    assert "the key-encryption key k1:" in said.err
    assert "2 could not be rotated" in said.err
    both = {
        "kek": {"source": "env", "label": "k2", "variable": "KEK"},
        "older": [{"source": "file", "label": "k1", "path": str(tmp_path / "kek")}],
    }
    keys.configure(vault=both)
    said = await keys("rotate", "--kek", KEK=new)
    assert said.status == 0, said
    assert said.out.startswith("2 data keys are wrapped anew by k2:")
    assert "those under vault.older may go" in said.out
    keys.configure(vault={"kek": both["kek"]})
    assert (await keys("audit", "--verify", KEK=new)).status == 0


async def test_a_trail_that_was_tampered_with_is_told(keys: Commands, tmp_path: Path) -> None:
    await keys("put", "bakery", "openai", stdin=KEY)
    with sqlite3.connect(tmp_path / "data" / "vault.db") as file:
        file.execute("DROP TRIGGER audit_stays")
        file.execute("UPDATE audit SET actor = 'nobody' WHERE sequence = 3")
    file.close()
    said = await keys("audit", "--verify")
    assert said.status == 1
    assert "not sound at entry 3" in said.err


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (("put", "bakery", "openai"), "", "no key came on standard input"),
        (("put", "bakery", "openai"), b"\xff\xfe" + KEY.encode(), "not UTF-8"),
        (("put", "bakery", "openai"), "k" * 9_000, "1 to 8192 bytes"),
        (("put", "bakery", "openai", KEY), "", "never an argument"),
        (("put", "bakery", KEY), "x", "no name of a key"),
        (("put", "Bakery", "openai"), KEY, "lower-case letters"),
        (("list",), "", "no key was put yet"),
        (("revoke", "bakery", "openai"), "", "bakery has no key named openai"),
        (("rotate", "--data-key", "bakery"), "", "bakery has no keys"),
        (("audit", "--limit", "0"), "", "--limit must be 1 to"),
    ],
)
async def test_what_is_wrong_is_told_in_a_line(
    keys: Commands, arguments: tuple[str, ...], stdin: str | bytes, words: str
) -> None:
    said = await keys(*arguments, stdin=stdin)
    assert said.status == 2
    assert said.err.startswith("mediaserver: ")
    assert words in said.err
    assert said.out == ""


async def test_a_node_without_a_vault_and_one_whose_key_is_gone(keys: Commands, tmp_path: Path) -> None:
    keys.configure(vault=None)
    said = await keys("list")
    assert (said.status, "add a vault section" in said.err) == (2, True)
    keys.configure()
    await keys("put", "bakery", "openai", stdin=KEY)
    (tmp_path / "kek").rename(tmp_path / "elsewhere")
    said = await keys("put", "bakery", "openai", stdin=KEY)
    assert said.status == 2
    assert (
        f"{tmp_path / 'kek'}: No such file or directory; what the vault keeps is wrapped by k1:" in said.err
    )
    assert (await keys("list", "bakery")).status == 0, "what needs no key-encryption key goes on"


async def test_a_key_that_nobody_uses_is_kept_and_noted(keys: Commands) -> None:
    said = await keys("put", "bakery", "deepgram", stdin=KEY)
    assert (said.status, "no provider of bakery names it yet" in said.err) == (0, True)
    said = await keys("put", "florist", "openai", stdin=KEY)
    assert (said.status, "this node has no tenant florist yet" in said.err) == (0, True)


async def test_who_uses_a_key_is_what_is_active(keys: Commands, tmp_path: Path) -> None:
    """And not what a file says that was never taken over."""
    provider = {"kind": "openai", "model": "m", "key": "other"}
    changed = tenant("http://127.0.0.1:9/v1", providers={"llm": [provider]})
    registry = await Registry.open(tmp_path / "data", PlatformProviders(), {})
    await registry.import_tenant(changed, author="ada", reason="by the API")
    await registry.close()
    said = await keys("put", "bakery", "openai", stdin=KEY)
    assert (said.status, "no provider of bakery names it yet" in said.err) == (0, True)
    said = await keys("put", "bakery", "other", stdin=KEY)
    assert (said.status, said.err) == (0, "")
