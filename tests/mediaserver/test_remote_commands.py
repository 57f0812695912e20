"""The command line on a node that runs: it says what it says on the store itself, or one line about why it cannot."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from admin.clocks import Clocks
from admin.opening import AdminParts, open_admin
from admin.principals import Role
from config.admin import AdminConfig
from config.node import NodeConfig
from mediaserver.cli import parser, run
from mediaserver.remote import user_name
from tenancy import TenantStatus
from tests.sim.node import RunningNode, running_node, tenant
from tests.sim.vault import vault_config

KEY = "sk-proj-canary-77b1-of-the-bakery"
BAKERY = {"greeting": "First."}
FLORIST = {**BAKERY, "tenant_id": "florist", "numbers": ["+15550198"], "business_name": "Test Florist"}


@dataclass(frozen=True)
class Said:
    """What a command printed."""

    status: int
    out: str
    err: str


class Cli:
    """The command line, on the store that a node has, or on the node itself."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node = directory / "node.yaml"
        vault_config(directory)
        kek = {"source": "file", "label": "test", "path": str(directory / "kek")}
        self.node.write_text(yaml.safe_dump({"data_dir": str(directory / "data"), "vault": {"kek": kek}}))

    def file(self, name: str, time_zone: str = "Europe/Berlin", /, **changes: object) -> str:
        path = self.directory / f"{name}.yaml"
        document = tenant("http://127.0.0.1:9/v1", **changes).model_dump(mode="json")
        path.write_text(yaml.safe_dump({**document, "time_zone": time_zone}))
        return str(path)

    async def __call__(self, *arguments: str, at: tuple[str, Path] | None = None, stdin: str = "") -> Said:
        """Run a command in the test's own process: each by itself would load Pipecat."""
        out, err = io.StringIO(), io.StringIO()
        given = io.TextIOWrapper(io.BytesIO(stdin.encode()))
        with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
            patched.setattr(sys, "stdin", given)
            try:
                status = await run(parser().parse_args([*arguments, *self._where(at)]))
            except SystemExit as refused:
                status = int(refused.code or 0)
        return self._said(status, out.getvalue(), err.getvalue())

    async def process(
        self, *arguments: str, at: tuple[str, Path] | None = None, environ: Mapping[str, str] | None = None
    ) -> Said:
        """Run a command as a person does."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mediaserver", *arguments, *self._where(at)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **(environ or {})},
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return self._said(process.returncode, out.decode(), err.decode())

    def _where(self, at: tuple[str, Path] | None) -> tuple[str, ...]:
        return ("--config", str(self.node)) if at is None else ("--url", at[0], "--token-file", str(at[1]))

    def _said(self, status: int, out: str, err: str) -> Said:
        assert KEY not in out + err, "no command shows a key"
        return Said(status, out, err)


@asynccontextmanager
async def parts(directory: Path) -> AsyncIterator[AdminParts]:
    opened = await open_admin(NodeConfig(data_dir=directory / "data", admin=AdminConfig()), {}, Clocks())
    try:
        yield opened
    finally:
        await opened.aclose()


async def token_file(directory: Path, role: Role = Role.OPERATOR, tenant_id: str | None = None) -> Path:
    async with parts(directory) as at:
        made = await at.tokens.create(role=role, tenant_id=tenant_id, label="test", created_by="test")
    path = directory / f"token-{tenant_id or 'operator'}"
    path.write_text(made.token.reveal() + "\n")
    return path


def url_of(running: RunningNode) -> str:
    assert running.node.admin is not None
    return f"http://127.0.0.1:{running.node.admin.port}"


def alike(text: str, tenant_id: str) -> str:
    """Without what differs between two tenants, two authors and two moments."""
    for pattern, name in (
        (tenant_id, "TENANT"),
        (r"\+155501\d\d", "NUMBER"),
        (r"\b[0-9a-f]{12}\b", "HASH"),
        (r"\b[0-9a-f]{16}\b", "FINGERPRINT"),
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\dZ", "TIME"),
        (rf"(cli:)?\b{user_name()}\b|test \[\w+\]", "AUTHOR"),
        (" +", " "),
    ):
        text = re.sub(pattern, name, text)
    return text


async def test_each_command_says_the_same_on_the_store_and_on_the_node(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    lines: list[tuple[tuple[str, ...], str]] = [
        (("config", "history", "TENANT"), ""),
        (("config", "draft", "second"), ""),
        (("config", "diff", "TENANT", "1", "2"), ""),
        (("config", "validate", "--tenant", "TENANT", "--version", "2"), ""),
        (("config", "activate", "TENANT", "2", "--expected", "1", "--reason", "nicer"), ""),
        (("config", "activate", "TENANT", "2", "--expected", "1"), ""),
        (("config", "activate", "TENANT", "9"), ""),
        (("config", "draft", "third"), ""),
        (("config", "canary", "TENANT", "3", "--share", "10"), ""),
        (("config", "canary", "TENANT", "3", "--share", "90"), ""),
        (("config", "reject", "TENANT", "3"), ""),
        (("config", "rollback", "TENANT", "1"), ""),
        (("config", "history", "TENANT", "--limit", "2"), ""),
        (("config", "draft", "wrong"), ""),
        (("config", "history", "nobody"), ""),
        (("tenant", "show", "TENANT"), ""),
        (("tenant", "suspend", "TENANT"), ""),
        (("tenant", "suspend", "TENANT"), ""),
        (("tenant", "activate", "TENANT"), ""),
        (("tenant", "create", "second"), ""),
        (("tenant", "show", "Nobody"), ""),
        (("keys", "put", "TENANT", "openai"), KEY),
        (("keys", "put", "TENANT", "openai"), ""),
        (("keys", "put", "TENANT", "sk-No-Name"), KEY),
        (("keys", "list", "TENANT"), ""),
        (("keys", "rotate", "--data-key", "TENANT"), ""),
        (("keys", "rotate", "--kek"), ""),
        (("keys", "revoke", "TENANT", "openai"), ""),
        (("keys", "revoke", "TENANT", "other"), ""),
    ]
    vault = vault_config(tmp_path)
    async with running_node(
        tmp_path, admin=AdminConfig(port=0), vault=vault, others=(FLORIST,), greeting=BAKERY["greeting"]
    ) as running:
        there = (url_of(running), await token_file(tmp_path))
        files: dict[tuple[str, str], str] = {}
        for name, changes in (("bakery", BAKERY), ("florist", FLORIST)):
            files[name, "second"] = cli.file(f"{name}-2", **changes | {"greeting": "Second."})
            files[name, "third"] = cli.file(f"{name}-3", **changes | {"greeting": "Third."})
            files[name, "wrong"] = cli.file(f"{name}-4", "Europe/Nowhere", **changes)
        statuses = []
        for command, stdin in lines:
            said = {}
            for name, at in (("bakery", None), ("florist", there)):
                arguments = [files.get((name, each), each).replace("TENANT", name) for each in command]
                answer = await cli(*arguments, at=at, stdin=stdin)
                # On its machine the node's files say who uses a key; they are of no node here.
                err = re.sub(r"note: .*\n", "note\n", answer.err)
                said[name] = (answer.status, alike(answer.out, name), alike(err, name))
            assert said["bakery"] == said["florist"], command
            statuses.append(said["bakery"][0])
        assert statuses == [
            0, 0, 0, 0, 0, 3, 2, 0, 0, 2, 0, 0, 0, 2, 2,
            0, 0, 0, 0, 3, 2,
            0, 2, 2, 0, 0, 0, 0, 2,
        ]  # fmt: skip
        provider = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m", "key": "openai"}
        using = cli.file("using", **FLORIST, providers={"llm": [provider]})
        assert (await cli("config", "draft", using, at=there)).status == 0
        assert (await cli("config", "activate", "florist", "5", at=there)).status == 0
        assert (await cli("keys", "put", "florist", "openai", at=there, stdin=KEY)).err == "", (
            "a call uses it"
        )
        assert (await cli("tenant", "list")).out == (await cli("tenant", "list", at=there)).out
        async with parts(tmp_path) as admin:
            trail = await admin.audit.page(tenant_id="bakery", after=0, limit=99)
            assert await admin.audit.verify() is None
        deeds = [each.deed for each in trail if each.deed.action == "config.activate"]
        assert [each.status for each in deeds[:2]] == [102, 200]
        assert deeds[0].credential.startswith("command line of ")


async def test_a_tenant_is_made_on_a_node_and_refused_when_it_is_there(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    async with running_node(tmp_path, admin=AdminConfig(port=0)) as running:
        there = (url_of(running), await token_file(tmp_path))
        file = cli.file("florist", **FLORIST)
        made = await cli("tenant", "create", file, "--reason", "new shop", at=there)
        assert (made.status, made.out) == (0, "florist is made: version 1 is active, its calls are taken\n")
        assert (await cli("tenant", "list", at=there)).out == "bakery   active\nflorist  active\n"
        assert "and more" in (await cli("tenant", "list", "--limit", "1", at=there)).out
        shown = (await cli("tenant", "show", "florist", at=there)).out.splitlines()
        assert shown[0] == "florist: active"
        assert shown[1].endswith("new shop")
        assert shown[2] == "  +15550198; trunks any"
        again = await cli("tenant", "create", file, at=there)
        assert (again.status, again.out) == (3, "")
        assert again.err.count("\n") == 1


async def test_a_moved_tenant_is_not_taken_back_by_the_way(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    async with running_node(tmp_path) as running:
        copy = str(tmp_path / "copy")
        away = ("tenant", "export", "bakery", copy, "--moved-to", "sip:b.example.com https://b.example.com")
        assert (await cli(*away)).status == 0
        said = await cli("tenant", "activate", "bakery")
        assert (said.status, said.out) == (3, "")
        assert "bakery has moved to sip:b.example.com" in said.err
        assert "moved to sip:b.example.com" in (await cli("tenant", "list")).out
        for said_before, told in (("gone", "gone"), ("elsewhere", "gone (elsewhere is no node's address)")):
            await running.node.registry.set_status("bakery", TenantStatus.MOVED, moved_to=said_before)
            assert (await cli("tenant", "list")).out == f"bakery  {told}\n"
            assert f"bakery is {told}: " in (await cli("tenant", "activate", "bakery")).err


async def test_what_cannot_be_done_there_is_one_line_and_status_2(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    look = ("config", "history", "bakery")
    async with running_node(tmp_path, admin=AdminConfig(port=0)) as running:
        good = await token_file(tmp_path)
        theirs = await token_file(tmp_path, Role.TENANT, "bakery")
        stranger = cli.file("florist", **FLORIST)
        wrong, several = tmp_path / "wrong", tmp_path / "several"
        wrong.write_text("mst_nothing")
        several.write_text("one\ntwo\n")
        url = url_of(running)
        operator = f"http://127.0.0.1:{running.node.operator_port}"
        for arguments, at, words in (
            (look, ("http://127.0.0.1:9", good), "http://127.0.0.1:9: "),
            (look, (operator, good), "and not as the admin API does"),
            (look, ("ftp://x", good), "no http or https URL"),
            (look, ("http://[::1", good), "http://[::1: "),
            (look, (url, wrong), "an API token is 57 characters long"),
            (look, (url, several), "is no token"),
            (look, (url, tmp_path / "none"), "No such file"),
            (("config", "history", "florist"), (url, theirs), "no tenant 'florist'"),
            (("config", "draft", stranger), (url, good), "mediaserver tenant create"),
            (("config", "validate", str(good)), (url, good), "a FILE is checked here"),
            (
                (*("config", "reject", "bakery", "1"), "--author", "ada"),
                (url, good),
                "the token says who asks",
            ),
            (("keys", "list"), (url, good), "name a TENANT"),
            (("keys", "list", "bakery"), (url, good), "this node has no vault"),
            (("keys", "put", "bakery", "openai", KEY), (url, good), "a key is never an argument"),
        ):
            said = await cli(*arguments, at=at)
            assert (said.status, said.out) == (2, ""), (arguments, said)
            assert said.err.startswith("mediaserver: "), said
            assert words in said.err, said
            assert said.err.count("\n") == 1, said
        refused = await cli("tenant", "suspend", "bakery", at=(url, theirs))
        assert (refused.status, refused.err) == (3, "mediaserver: this needs the role operator\n")


@pytest.mark.parametrize(
    "command",
    [
        ("config", "try", "bakery", "1"),
        ("keys", "audit"),
        ("tenant", "backup", "bakery", "file"),
        ("tenant", "restore", "file"),
    ],
)
async def test_what_is_local_says_so(tmp_path: Path, command: tuple[str, ...]) -> None:
    said = await Cli(tmp_path)(*command, at=("http://127.0.0.1:9", tmp_path / "token"))
    assert (said.status, said.out) == (2, "")
    assert said.err.endswith(
        "this works on the node's own files and stores, on its machine: leave --url out\n"
    )


async def test_the_environment_says_where_and_with_what(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.node.write_text("data_dir: /nowhere/at/all\n")
    async with running_node(tmp_path, admin=AdminConfig(port=0)) as running:
        secret = (await token_file(tmp_path)).read_text()
        variables = {"MEDIASERVER_ADMIN_URL": url_of(running), "MEDIASERVER_ADMIN_TOKEN": secret}
        assert (await cli.process("tenant", "list", environ=variables)).out == "bakery  active\n"


async def test_a_node_that_goes_away_in_the_middle_of_a_change(tmp_path: Path) -> None:
    """It answers what is asked first; the change reaches it, and its answer comes no more."""
    cli = Cli(tmp_path)
    async with running_node(tmp_path, admin=AdminConfig(port=0)) as running:
        assert running.node.admin is not None
        port, token, cut = running.node.admin.port, await token_file(tmp_path), []

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            from_node, to_node = await asyncio.open_connection("127.0.0.1", port)
            changing = False

            async def ask() -> None:
                nonlocal changing
                while asked := await reader.read(65_536):
                    changing = changing or asked.startswith(b"PATCH")
                    to_node.write(asked)

            asking = asyncio.create_task(ask())
            while answer := await from_node.read(65_536):
                if changing:
                    cut.append(answer.split(b"\r\n")[0])
                    break
                writer.write(answer)
            asking.cancel()
            to_node.close()
            writer.close()

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            said = await cli.process("tenant", "suspend", "bakery", at=(url, token))
        assert cut == [b"HTTP/1.1 200 OK"]
        assert (said.status, said.out) == (2, "")
        assert said.err.startswith(f"mediaserver: {url}: ")
        assert said.err.endswith("whether it was done is not known: look before you try again\n")
        assert said.err.count("\n") == 1
        assert "suspended" in (await cli("tenant", "show", "bakery")).out


async def test_without_its_key_encryption_key_configurations_are_changed_all_the_same(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    async with running_node(tmp_path, vault=vault_config(tmp_path)):
        pass
    (tmp_path / "kek").unlink()
    said = await cli("config", "draft", cli.file("second", greeting="Second."))
    assert (said.status, said.err) == (0, "")
