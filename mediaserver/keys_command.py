"""``mediaserver keys``: tenants' own keys put, listed, revoked and rotated, and the audit trail of that.

It works on the node's vault (in its data folder, or in Postgres where its store is), whether the node runs or not; a running node's next call uses what was
changed. A key comes from standard input or a prompt and is never an argument: those stand in the process list and in the
shell's history.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from config.errors import ConfigError
from config.loader import load_node_config, load_tenants
from config.node import NodeConfig
from mediaserver.core_dumps import no_core_dumps
from mediaserver.errors import MediaServerError
from tenancy.call_keys import key_names
from tenancy.keys import open_vault, open_vault_store, vault_name, vault_path
from vault import Entry, Secret, SecretInfo, SecretStore, Vault, VaultError
from vault.rotation import Failure
from vault.secret import SECRET_BYTES_MAX

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
PAGE: Final = 500
MAX_ENTRIES: Final = 100_000
"""Audit entries that one command prints."""

Say = Callable[[str], object]


async def keys(options: Namespace, say: Say = print) -> int:
    """Run one of the commands; returns the exit status. Raises `MediaServerError` and `ConfigError`."""
    config = load_node_config(options.config, os.environ)
    if config.vault is None:
        raise MediaServerError(
            "this node has no vault: add a vault section to its configuration, for example\n"
            "  vault: {kek: {source: file, path: /etc/mediaserver/kek}}\n"
            "with the file made by: umask 077; openssl rand -base64 32 > /etc/mediaserver/kek"
        )
    no_core_dumps()
    try:
        match options.keys_command:
            case "put":
                if options.key:
                    # Not repeated: whoever reads the error need not read the key.
                    raise MediaServerError(
                        "a key is never an argument: pipe it in, or leave it out and type it at the prompt"
                    )
                return await _put(config, options.tenant, options.name, say)
            case "list":
                return await _list(config, options.tenant, say)
            case "revoke":
                return await _revoke(config, options.tenant, options.name, say)
            case "rotate":
                return await _rotate(config, options.data_key, say)
            case _:
                return await _audit(config, options.limit, say, verify=options.verify)
    except VaultError as error:
        raise MediaServerError(str(error)) from error


@asynccontextmanager
async def _vault(config: NodeConfig) -> AsyncIterator[Vault]:
    vault = await open_vault(config, os.environ)
    assert vault is not None, "the section is there"
    try:
        yield vault
    finally:
        await vault.aclose()


@asynccontextmanager
async def _store(config: NodeConfig) -> AsyncIterator[SecretStore]:
    """The store alone, for what needs no key-encryption key. A file that is not there is not made."""
    if config.store.kind == "sqlite" and not await asyncio.to_thread(vault_path(config).exists):
        raise MediaServerError(f"{vault_path(config)}: no key was put yet")
    store = await open_vault_store(config, os.environ)
    try:
        if await store.head() is None:
            raise MediaServerError(f"{vault_name(config)}: no key was put yet")
        yield store
    finally:
        await store.aclose()


async def _put(config: NodeConfig, tenant_id: str, name: str, say: Say) -> int:
    secret = await asyncio.to_thread(_asked_for, f"key {name} of {tenant_id}: ")
    async with _vault(config) as vault:
        info = await vault.put(tenant_id, name, secret, actor=_actor(), at=datetime.now(UTC))
    say(f"{tenant_id}: key {name} is version {info.version} now, fingerprint {info.fingerprint}")
    if (note := _unused(config, tenant_id, name)) is not None:
        print(f"note: {note}", file=sys.stderr)
    return EXIT_OK


def _asked_for(prompt: str) -> Secret:
    """The key, from a prompt that does not show it or from what is piped in; spaces and line ends around it are no part of it."""
    if sys.stdin.isatty():
        text = getpass.getpass(prompt)
    else:
        raw = sys.stdin.buffer.read(SECRET_BYTES_MAX + 64)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            # Apart from the error, whose text shows bytes of the key.
            text = ""
        if raw and not text:
            raise MediaServerError("the key on standard input is not UTF-8")
    if not text.strip():
        raise MediaServerError("no key came on standard input: pipe it in, or type it at the prompt")
    return Secret(text.strip())


def _unused(config: NodeConfig, tenant_id: str, name: str) -> str | None:
    """Why no call uses the key, as far as the node's tenant files tell."""
    try:
        tenants = {tenant.tenant_id: tenant for tenant in load_tenants(config.tenants)}
    except ConfigError as error:
        return f"whether a call uses it is not known: {error}"
    tenant = tenants.get(tenant_id)
    if tenant is None:
        return f"no tenant file of this node has the id {tenant_id}"
    if name not in key_names(tenant.providers):
        return f"no provider of {tenant_id} names it yet: write `key: {name}` in its configuration"
    return None


async def _list(config: NodeConfig, tenant_id: str | None, say: Say) -> int:
    async with _store(config) as store:
        if tenant_id is None:
            after = ""
            while page := await store.tenants(after, PAGE):
                for each in page:
                    if not each.startswith("_"):  # the vault's own
                        say(each)
                after = page[-1]
            return EXIT_OK
        found = [SecretInfo.of(row) for row in await store.secrets(tenant_id)]
    if not found:
        raise MediaServerError(f"{tenant_id} has no keys")
    rows = [("NAME", "VERSION", "FINGERPRINT", "PUT", "BY", "STATE")]
    rows += [
        (
            each.name,
            str(each.version),
            each.fingerprint,
            _short(each.put_at),
            each.put_by,
            "usable" if each.revoked_at is None else f"revoked {_short(each.revoked_at)}",
        )
        for each in found
    ]
    _table(rows, say)
    return EXIT_OK


async def _revoke(config: NodeConfig, tenant_id: str, name: str, say: Say) -> int:
    async with _vault(config) as vault:
        info = await vault.revoke(tenant_id, name, actor=_actor(), at=datetime.now(UTC))
    say(f"{tenant_id}: key {name} version {info.version} is revoked; calls that have it already keep it")
    return EXIT_OK


async def _rotate(config: NodeConfig, data_key_of: str | None, say: Say) -> int:
    async with _vault(config) as vault:
        now = datetime.now(UTC)
        if data_key_of is None:
            turned = await vault.rotate_kek(actor=_actor(), at=now)
            say(f"{turned.rewrapped} data keys are wrapped anew by {turned.kek_id}")
            _failures(turned.failures, turned.failed)
            if turned.finished:
                say("nothing is wrapped by an older key-encryption key: those under vault.older may go")
            return EXIT_OK if turned.finished else EXIT_FAILED
        made = await vault.rotate_data_key(data_key_of, actor=_actor(), at=now)
    how = "an interrupted rotation was finished: " if made.resumed else ""
    say(f"{data_key_of}: {how}data key {made.generation} seals {made.resealed} keys anew")
    _failures(made.failures, len(made.failures))
    return EXIT_OK if made.finished else EXIT_FAILED


def _failures(failures: Iterable[Failure], count: int) -> None:
    for each in failures:
        print(f"{each.tenant_id}: {each.what} is as it was: {each.reason}", file=sys.stderr)
    if count:
        print(f"{count} could not be rotated; the rotation can be run again", file=sys.stderr)


async def _audit(config: NodeConfig, limit: int, say: Say, *, verify: bool) -> int:
    if not 1 <= limit <= MAX_ENTRIES:
        raise MediaServerError(f"--limit must be 1 to {MAX_ENTRIES}")
    if verify:
        return await _verify(config, say)
    async with _store(config) as store:
        head = await store.head()
        after = max(0, (head.sequence if head is not None else 0) - limit)
        rows = [("#", "AT", "BY", "WHAT", "TENANT", "KEY", "VERSION", "KEK")]
        while page := await store.entries(after, PAGE):
            rows += map(_row, page)
            after = page[-1].sequence
    _table(rows, say)
    return EXIT_OK


async def _verify(config: NodeConfig, say: Say) -> int:
    async with _store(config):
        pass
    async with _vault(config) as vault:
        head = await vault.audit_head()
        finding = await vault.verify_audit()
    if finding is not None:
        print(
            f"{vault_name(config)}: the audit trail is not sound at entry {finding.sequence}: {finding.reason}",
            file=sys.stderr,
        )
        return EXIT_FAILED
    if head is None:
        say("the audit trail is empty")
    else:
        say(f"the audit trail is sound: {head.sequence} entries, head {head.hash.hex()}")
    return EXIT_OK


def _row(entry: Entry) -> tuple[str, str, str, str, str, str, str, str]:
    return (
        str(entry.sequence),
        _short(entry.at),
        entry.actor,
        str(entry.action),
        "-" if entry.tenant_id.startswith("_") else entry.tenant_id,
        entry.name or "-",
        "-" if entry.version is None else str(entry.version),
        entry.kek_id or "-",
    )


def _short(at: str) -> str:
    """A time to the second."""
    return at.partition(".")[0] + "Z"


def _table(rows: Iterable[tuple[str, ...]], say: Say) -> None:
    listed = list(rows)
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    for row in listed:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _actor() -> str:
    """Who runs the command, for the audit trail."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid-{os.getuid()}"
    return f"cli:{user}"[:200]
