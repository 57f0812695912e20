"""The command line's part on the stores: ``mediaserver migrate`` and ``mediaserver tenant``."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from config.loader import load_node_config
from config.node import NodeConfig
from mediaserver.core_dumps import no_core_dumps
from mediaserver.errors import MediaServerError
from mediaserver.remote import actor, add_local_only, add_remote
from tenancy.errors import TenancyError

if TYPE_CHECKING:
    from tenancy.migration import TenantReport
    from tenancy.sqlite_store import SqliteStore

EXIT_OK = 0
EXIT_FAILED = 1
MAX_LISTED = 1_000_000


class Subparsers(Protocol):
    """What `argparse` gives for commands below a command."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser: ...  # noqa: A002 - argparse's name


def add_commands(commands: Subparsers) -> None:
    """Add the commands to the program's."""
    migrate = commands.add_parser(
        "migrate", help="bring tenants and their keys from one store to the other while calls go on"
    )
    kinds = migrate.add_subparsers(required=True, metavar="KIND")
    move = kinds.add_parser("sqlite-to-postgres", help="from data_dir's files to the store.postgres database")
    _common(move)
    move.add_argument("tenants", nargs="*", metavar="TENANT", help="which (default: all, and the vault)")
    move.add_argument("--reverse", action="store_true", help="bring them back")
    move.set_defaults(run=_migrate)

    tenant = commands.add_parser(
        "tenant",
        help="tenants listed, made and suspended; one tenant's file checked, backed up, restored or moved",
    )
    what = tenant.add_subparsers(required=True, metavar="WHAT")
    for name, text, work in (
        ("check", "say what is wrong with its file", _check),
        ("backup", "write it to a file while it is in use", _backup),
        ("restore", "bring a backup back; nothing that is there is lost", _restore),
        ("export", "write it to a file and send its calls to another node from now on", _export),
        ("import", "take in what another node exported", _import),
    ):
        parser = what.add_parser(name, help=text)
        _common(parser)
        add_local_only(parser)
        if name not in ("restore", "import"):
            parser.add_argument("tenant", metavar="TENANT")
        if name != "check":
            parser.add_argument("file", type=Path, metavar="FILE")
        if name == "export":
            parser.add_argument(
                "--moved-to",
                required=True,
                metavar="ADDRESS",
                type=_moved_to,
                help="where its calls are sent, for example 'sip:cell-2.example.com https://cell-2.example.com' (SIP URI "
                "and HTTP root); or 'gone': they are told that the tenant is",
            )
        parser.set_defaults(run=work)
    _add_administration(what)


def _moved_to(text: str) -> str:
    from tenancy.routing import Home

    try:
        return Home.checked(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _add_administration(commands: Subparsers) -> None:
    for name, text in (
        ("list", "the node's tenants"),
        ("show", "whether a tenant's calls are taken, its active version and what it is called by"),
        ("suspend", "refuse a tenant's new calls; calls that are up go on"),
        ("activate", "take a tenant's calls again"),
        ("create", "make a tenant of a file, which is active at once"),
    ):
        parser = commands.add_parser(name, help=text)
        _common(parser)
        add_remote(parser)
        parser.set_defaults(run=_administrate, what=name)
        if name == "list":
            parser.add_argument("--status", choices=("active", "suspended", "moved"), help="only these")
            parser.add_argument("--limit", type=_count, default=1_000, metavar="N", help="default: 1000")
        elif name == "create":
            parser.add_argument("file", type=Path, metavar="FILE")
            parser.add_argument("--reason", default="created", help="why, for the history")
        else:
            parser.add_argument("tenant", metavar="TENANT")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= MAX_LISTED):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number from 1 to {MAX_LISTED}")
    return int(text)


async def _administrate(options: argparse.Namespace) -> int:
    # The other commands do without what this needs.
    from mediaserver.tenant_command import run

    return await run(options)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, help="the node's configuration (default: the demo node)")
    parser.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="WARNING")


@asynccontextmanager
async def _told() -> AsyncIterator[None]:
    """Tell what the tenancy package says as the program's own errors."""
    try:
        yield
    except TenancyError as error:
        raise MediaServerError(str(error)) from error


async def _migrate(options: argparse.Namespace) -> int:
    config = load_node_config(options.config, os.environ)
    if config.vault is not None:
        no_core_dumps()
    async with _told():
        return await migrate(
            config,
            os.environ,
            tuple(options.tenants),
            back=options.reverse,
            tell=lambda line: print(line, flush=True),
        )


async def migrate(
    config: NodeConfig,
    environ: Mapping[str, str],
    tenants: tuple[str, ...],
    *,
    back: bool,
    tell: Callable[[str], None],
) -> int:
    """Move tenants (none: all, and the vault) and tell of each; returns the exit status. Raises `MediaServerError`, `StoreError`."""
    if config.store.kind != "sqlite" or config.store.postgres is None:
        raise MediaServerError(
            "the node must have store.kind sqlite and a store.postgres section, and have been started with it:"
            " it could not follow its tenants otherwise"
        )
    from tenancy.migration import Migration, Outcome
    from tenancy.opening import open_postgres, open_sqlite

    failed = False
    files = await open_sqlite(config)
    try:
        postgres = await open_postgres(config.store.postgres, environ)
        try:
            mover = Migration(files, postgres)
            counts = dict.fromkeys(Outcome, 0)
            async for report in mover.to_sqlite(tenants) if back else mover.to_postgres(tenants):
                counts[report.outcome] += 1
                tell(_line(report))
        finally:
            await postgres.close()
        if not tenants:
            failed = not await _migrate_vault(config, environ, back=back, tell=tell)
    finally:
        await files.close()
    tell(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return EXIT_FAILED if failed or counts[Outcome.FAILED] else EXIT_OK


async def _migrate_vault(
    config: NodeConfig, environ: Mapping[str, str], *, back: bool, tell: Callable[[str], None]
) -> bool:
    """Move the vault too, where the node has one; whether nothing failed."""
    from tenancy.keys import move_vault, vault_path
    from vault import VaultError

    if config.vault is None:
        kept = await asyncio.to_thread(vault_path(config).exists)
        if kept:
            tell(f"vault: failed: {vault_path(config)} is there, and the configuration has no vault section")
        return not kept
    try:
        report = await move_vault(config, environ, back=back)
    except VaultError as error:
        tell(f"vault: failed: {error}")
        return False
    if report.checksum:
        tell(
            f"vault: {report.outcome}: {report.data_keys} data keys, {report.secrets} keys, {report.entries} audit entries,"
            f" sha256 {report.checksum}, changes waited {report.held_ms:.0f} ms; its audit trail is sound"
        )
    else:
        tell(f"vault: {report.outcome}")
    return True


def _line(report: TenantReport) -> str:
    if report.reason:
        return f"{report.tenant_id}: {report.outcome}: {report.reason}"
    if not report.checksum:
        return f"{report.tenant_id}: {report.outcome}"
    return (
        f"{report.tenant_id}: {report.outcome}: {report.versions} versions, {report.calls} calls,"
        f" sha256 {report.checksum}, writes waited {report.frozen_ms:.0f} ms"
    )


async def _with_files(options: argparse.Namespace, work: Callable[[SqliteStore], Awaitable[object]]) -> None:
    from tenancy.opening import open_sqlite

    config = load_node_config(options.config, os.environ)
    async with _told():
        files = await open_sqlite(config)
        try:
            print(orjson.dumps(await work(files), default=str, option=orjson.OPT_INDENT_2).decode())
        finally:
            await files.close()


async def _check(options: argparse.Namespace) -> int:
    from tenancy import backup

    found: list[tuple[str, ...]] = []

    async def work(files: SqliteStore) -> dict[str, Any]:
        found.append(await backup.check(files, options.tenant))
        return {"tenant": options.tenant, "problems": found[0]}

    await _with_files(options, work)
    return EXIT_FAILED if found[0] else EXIT_OK


async def _backup(options: argparse.Namespace) -> int:
    from tenancy import backup

    await _with_files(options, lambda files: backup.backup(files, options.tenant, options.file))
    return EXIT_OK


async def _restore(options: argparse.Namespace) -> int:
    from tenancy import backup

    await _with_files(options, lambda files: backup.restore(files, options.file, author=actor()))
    return EXIT_OK


async def _export(options: argparse.Namespace) -> int:
    from tenancy import backup

    await _with_files(
        options, lambda files: backup.export(files, options.tenant, options.file, options.moved_to)
    )
    return EXIT_OK


async def _import(options: argparse.Namespace) -> int:
    from tenancy import backup

    await _with_files(options, lambda files: backup.arrive(files, options.file, author=actor()))
    return EXIT_OK
