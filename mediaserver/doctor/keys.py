"""The vault of tenants' keys: whether its key-encryption keys are there and its audit trail is sound.

The vault's code may write (an older schema, a journal), so a copy of its file is looked at; what is in it is sealed. In Postgres
it is looked at where it is.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from config.node import NodeConfig
from mediaserver.doctor.checks import Check, error, ok, warning
from mediaserver.doctor.read_only import copied
from tenancy.keys import key_encryption, open_vault, vault_path
from vault import KekUnavailable, Vault, VaultError, VaultStoreError

NAME: Final = "vault"
AUDIT: Final = "vault's audit trail"
KEEP_KEK: Final = "bring the key-encryption key back from where it is kept (vault.kek, vault.older): without it tenants' keys cannot be opened"
WAIT_S: Final = 30.0
"""For a key service, and for an audit trail of a million entries."""


async def vault_checks(config: NodeConfig, environ: Mapping[str, str]) -> list[Check]:
    """Check the vault, where the node has one."""
    if config.vault is None:
        return [ok(NAME, "none: tenants bring no keys of their own")]
    try:
        async with asyncio.timeout(WAIT_S):
            return await _checks(config, environ)
    except TimeoutError:
        return [
            warning(NAME, f"not looked through within {WAIT_S:.0f} s", "see whether the key service answers")
        ]


async def _checks(config: NodeConfig, environ: Mapping[str, str]) -> list[Check]:
    assert config.vault is not None
    if config.store.kind == "postgres":
        # Its schema is brought up to date by whichever node is started first, this program's version or a later one.
        return await _look(config, environ)
    path = vault_path(config)
    if not await asyncio.to_thread(path.exists):
        try:
            keks = key_encryption(config.vault, environ)
        except VaultError as fault:
            return [error(NAME, str(fault), KEEP_KEK)]
        await keks.aclose()
        return [ok(NAME, "its key-encryption key can be read; no key was put yet")]
    try:
        with tempfile.TemporaryDirectory(prefix="mediaserver-doctor-") as folder:
            try:
                await asyncio.to_thread(copied, path, Path(folder) / path.name)
            except sqlite3.Error as fault:
                todo = "bring vault.db back from the last backup of the data folder"
                return [error(NAME, f"{path} cannot be read: {fault}", todo)]
            return await _look(config.model_copy(update={"data_dir": Path(folder)}), environ)
    except OSError as fault:
        todo = "set TMPDIR to a folder with room: the vault is looked at as a copy"
        return [warning(NAME, f"no copy can be made of it: {fault}", todo)]


async def _look(copy: NodeConfig, environ: Mapping[str, str]) -> list[Check]:
    try:
        vault = await open_vault(copy, environ)
    except VaultStoreError as fault:
        todo = "see that the vault's database runs, and that store.postgres.url_env names the variable with its URL"
        return [error(NAME, str(fault), todo)]
    except VaultError as fault:
        return [error(NAME, str(fault), KEEP_KEK)]
    assert vault is not None
    try:
        try:
            await vault.check_keks()
        except KekUnavailable as fault:
            todo = "see whether the key service runs; until it answers, calls do without tenants' keys"
            return [error(NAME, str(fault), todo)]
        except VaultError as fault:
            return [error(NAME, str(fault), KEEP_KEK)]
        return [ok(NAME, "its key-encryption keys open what they wrap"), *await _audit(vault)]
    finally:
        await vault.aclose()


async def _audit(vault: Vault) -> list[Check]:
    try:
        head, finding = await vault.audit_head(), await vault.verify_audit()
    except VaultError as fault:
        return [error(AUDIT, str(fault), "keep a copy of vault.db, and see mediaserver keys audit --verify")]
    if finding is not None:
        todo = (
            "somebody changed vault.db by hand, or put an older one back: keep a copy of it and find out who"
        )
        return [error(AUDIT, f"not sound at entry {finding.sequence}: {finding.reason}", todo)]
    return [ok(AUDIT, f"sound, {0 if head is None else head.sequence} entries")]
