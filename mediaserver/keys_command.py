"""``mediaserver keys``: tenants' own keys put, listed, revoked and rotated, and the audit trail of that.

It works on the node's vault (in its data folder, or in Postgres where its store is), whether the node runs or not; or, with
``--url``, on a node that runs elsewhere, through its admin API. A running node's next call uses what was changed. A key comes
from standard input or a prompt and is never an argument: those stand in the process list and in the shell's history.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from admin.client import AdminClient
from admin.errors import AdminError
from config.errors import ConfigError
from config.loader import load_node_config, load_tenants, stored_tenant
from config.node import NodeConfig
from config.tenant import TenantConfig
from mediaserver import keys_over_api as over_api
from mediaserver.core_dumps import no_core_dumps
from mediaserver.errors import MediaServerError
from mediaserver.remote import Remote, actor, remote_of
from tenancy.call_keys import key_names
from tenancy.errors import TenancyError
from tenancy.keys import open_vault, open_vault_store, vault_name, vault_path
from vault import Entry, Secret, SecretInfo, SecretStore, Vault, VaultError
from vault.names import check_name, check_tenant
from vault.rotation import DataKeyRotation, Failure, KekRotation
from vault.secret import SECRET_BYTES_MAX

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
PAGE: Final = 500
MAX_ENTRIES: Final = 100_000
"""Audit entries that one command prints."""

Say = Callable[[str], object]


async def keys(options: Namespace, say: Say = print) -> int:
    """Run one of the commands; returns the exit status. Raises `MediaServerError` and `ConfigError`."""
    if options.keys_command == "put" and options.key:
        # Not repeated: whoever reads the error need not read the key.
        raise MediaServerError(
            "a key is never an argument: pipe it in, or leave it out and type it at the prompt"
        )
    if options.keys_command != "audit":
        remote = remote_of(options.url, options.token_file, os.environ)
        if remote is not None:
            return await _remotely(remote, options, say)
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


async def _remotely(remote: Remote, options: Namespace, say: Say) -> int:
    no_core_dumps()
    try:
        async with AdminClient(remote.url, remote.token) as api:
            return await _over_api(api, options, say)
    except (AdminError, VaultError) as error:
        raise MediaServerError(str(error)) from error


async def _over_api(api: AdminClient, options: Namespace, say: Say) -> int:
    command = options.keys_command
    tenant_id = options.data_key if command == "rotate" else options.tenant
    # Before they stand in a URL, which reaches logs: what was pasted in place of a name may be a key.
    if tenant_id is not None:
        check_tenant(tenant_id)
    if command in ("put", "revoke"):
        check_name(options.name)
    match command:
        case "put":
            secret = await asyncio.to_thread(_asked_for, f"key {options.name} of {tenant_id}: ")
            info = await over_api.put(api, tenant_id, options.name, secret)
            return _say_put(tenant_id, info, await over_api.unused(api, tenant_id, options.name), say)
        case "list":
            return _say_listed(tenant_id, await over_api.listed(api, tenant_id), say)
        case "revoke":
            return _say_revoked(tenant_id, await over_api.revoke(api, tenant_id, options.name), say)
        case _ if tenant_id is None:
            return _say_rewrapped(await over_api.rewrap(api), say)
        case _:
            return _say_resealed(tenant_id, await over_api.reseal(api, tenant_id), say)


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
        info = await vault.put(tenant_id, name, secret, actor=actor(), at=datetime.now(UTC))
    return _say_put(tenant_id, info, await _unused(config, tenant_id, name), say)


def _say_put(tenant_id: str, info: SecretInfo, note: str | None, say: Say) -> int:
    say(f"{tenant_id}: key {info.name} is version {info.version} now, fingerprint {info.fingerprint}")
    if note is not None:
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


async def _unused(config: NodeConfig, tenant_id: str, name: str) -> str | None:
    """Why no call uses the key: by what is active, or by the node's files where it has not taken them over yet."""
    try:
        files = {tenant.tenant_id: tenant for tenant in load_tenants(config.tenants)}
        tenant = await _active(config, tenant_id) or files.get(tenant_id)
    except (ConfigError, TenancyError) as error:
        return f"whether a call uses it is not known: {error}"
    if tenant is None:
        return f"this node has no tenant {tenant_id} yet"
    if name not in key_names(tenant.providers):
        return f"no provider of {tenant_id} names it yet: write `key: {name}` in its configuration"
    return None


async def _active(config: NodeConfig, tenant_id: str) -> TenantConfig | None:
    """What new calls of the tenant get. Raises `TenancyError`, `ConfigError`. A store that is not there is not made."""
    from tenancy.opening import open_store  # seconds of imports

    shared = Path(config.data_dir) / "shared.db"
    if config.store.kind == "sqlite" and not await asyncio.to_thread(shared.exists):
        return None
    store = await open_store(config, os.environ)
    try:
        active = None
        if await store.tenant(tenant_id) is not None:
            active = await store.active(tenant_id)
        content = None if active is None else await store.content(tenant_id, active.version)
        return None if content is None else stored_tenant(content.body.encode(), store.place(tenant_id))
    finally:
        await store.close()


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
    return _say_listed(tenant_id, found, say)


def _say_listed(tenant_id: str, found: Sequence[SecretInfo], say: Say) -> int:
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
        info = await vault.revoke(tenant_id, name, actor=actor(), at=datetime.now(UTC))
    return _say_revoked(tenant_id, info, say)


def _say_revoked(tenant_id: str, info: SecretInfo, say: Say) -> int:
    say(f"{tenant_id}: key {info.name} version {info.version} is revoked; calls that have it already keep it")
    return EXIT_OK


async def _rotate(config: NodeConfig, data_key_of: str | None, say: Say) -> int:
    async with _vault(config) as vault:
        now = datetime.now(UTC)
        if data_key_of is None:
            return _say_rewrapped(await vault.rotate_kek(actor=actor(), at=now), say)
        return _say_resealed(
            data_key_of, await vault.rotate_data_key(data_key_of, actor=actor(), at=now), say
        )


def _say_rewrapped(done: KekRotation, say: Say) -> int:
    say(f"{done.rewrapped} data keys are wrapped anew by {done.kek_id}")
    _failures(done.failures, done.failed)
    if done.finished:
        say("nothing is wrapped by an older key-encryption key: those under vault.older may go")
    return EXIT_OK if done.finished else EXIT_FAILED


def _say_resealed(tenant_id: str, done: DataKeyRotation, say: Say) -> int:
    how = "an interrupted rotation was finished: " if done.resumed else ""
    say(f"{tenant_id}: {how}data key {done.generation} seals {done.resealed} keys anew")
    _failures(done.failures, len(done.failures))
    return EXIT_OK if done.finished else EXIT_FAILED


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
