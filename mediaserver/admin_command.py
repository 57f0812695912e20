"""``mediaserver admin``: the admin API's first token, and what has to work where the API does not.

It works on the store itself, whether the node runs or not: a running node refuses a revoked token within a second. What is done
is in the same audit trail as what the API does.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from config.loader import load_node_config
from mediaserver.core_dumps import no_core_dumps
from mediaserver.errors import MediaServerError
from mediaserver.remote import actor

if TYPE_CHECKING:
    from admin.opening import AdminParts
    from mediaserver.store_commands import Subparsers

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
PAGE: Final = 500
COMMAND_LINE: Final = "command line"


def add_admin(commands: Subparsers) -> None:
    """Add the command to the program's."""
    admin = commands.add_parser(
        "admin", help="the admin API's tokens, and who is refused, while the node runs or not"
    )
    what = admin.add_subparsers(required=True, metavar="WHAT")
    token = what.add_parser("token", help="make, list and revoke API tokens").add_subparsers(
        required=True, metavar="COMMAND"
    )
    create = token.add_parser("create", help="make a token and print it, this once")
    create.add_argument("--label", required=True, help="who uses it, for lists and the audit trail")
    create.add_argument(
        "--tenant", metavar="TENANT", help="whose data it may touch (default: an operator's token)"
    )
    create.add_argument(
        "--days", type=int, metavar="N", help="how long it is good (default: admin.tokens.life_days)"
    )
    create.set_defaults(run=_create)
    listing = token.add_parser("list", help="the tokens, never the tokens themselves")
    listing.add_argument("--tenant", metavar="TENANT", help="of one tenant (default: all)")
    listing.set_defaults(run=_list)
    revoke = token.add_parser("revoke", help="refuse a token for good")
    revoke.add_argument("id", metavar="ID", help="the part between its two underscores")
    revoke.set_defaults(run=_revoke)
    deny = what.add_parser("deny", help="refuse JWTs that an issuer has signed already")
    deny.add_argument("--issuer", required=True, metavar="URL", help="as the configuration has it")
    whom = deny.add_mutually_exclusive_group(required=True)
    whom.add_argument("--jti", help="one token, by its id")
    whom.add_argument("--subject", metavar="SUB", help="all of a subject's that were issued until now")
    deny.set_defaults(run=_deny)
    verify = what.add_parser("verify-audit", help="check the audit trail's chain of hashes")
    verify.set_defaults(run=_verify)
    for each in (create, listing, revoke, deny, verify):
        each.add_argument("--config", type=Path, help="the node's configuration (default: the demo node)")
        each.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="WARNING")


@asynccontextmanager
async def _parts(options: argparse.Namespace) -> AsyncIterator[AdminParts]:
    from admin.errors import AdminError
    from admin.opening import open_admin

    config = load_node_config(options.config, os.environ)
    if config.admin is None:
        raise MediaServerError(
            "this node has no admin API: add an admin section to its configuration, which may be empty:\n  admin: {}"
        )
    no_core_dumps()
    try:
        parts = await open_admin(config, os.environ)
        try:
            yield parts
        finally:
            await parts.aclose()
    except AdminError as error:
        # Who types this may know what a client may not: the place, and what the database said.
        raise MediaServerError(str(error.__cause__ or error)) from error


async def _create(options: argparse.Namespace) -> int:
    from admin.errors import AdminError
    from admin.principals import Role

    async with _parts(options) as parts:
        made = await parts.tokens.create(
            role=Role.OPERATOR if options.tenant is None else Role.TENANT,
            tenant_id=options.tenant,
            label=options.label,
            created_by=actor(),
            life_days=options.days,
        )
        try:
            await _enter(parts, "token.create", options.tenant, made.info.public_id, 201)
        except AdminError:
            # Nobody has seen it yet.
            await parts.tokens.revoke(made.info.public_id, tenant_id=None, by=actor())
            raise
        whose = "an operator" if options.tenant is None else f"tenant {options.tenant}"
        print(
            f"a token of {whose}, good until {_time(made.info.expires_ms)}; it is not shown again:",
            file=sys.stderr,
        )
        print(made.token.reveal(), flush=True)
    if options.tenant is not None:
        await _note_unknown(options)
    return EXIT_OK


async def _note_unknown(options: argparse.Namespace) -> None:
    """A token may be made before its tenant is; for a name with a slip in it, it opens nothing."""
    from tenancy.errors import TenancyError
    from tenancy.opening import open_store

    try:
        store = await open_store(load_node_config(options.config, os.environ), os.environ)
        try:
            known = await store.tenant(options.tenant) is not None
        finally:
            await store.close()
    except TenancyError as error:
        print(f"note: whether there is a tenant {options.tenant} is not known: {error}", file=sys.stderr)
        return
    if not known:
        print(f"note: this node has no tenant {options.tenant} yet", file=sys.stderr)


async def _list(options: argparse.Namespace) -> int:
    rows = [("ID", "ROLE", "TENANT", "LABEL", "MADE", "BY", "GOOD UNTIL", "STATE")]
    async with _parts(options) as parts:
        after = ""
        while page := await parts.tokens.list(tenant_id=options.tenant, after=after, limit=PAGE):
            for each in page:
                revoked = (
                    None
                    if each.revoked_ms is None
                    else f"revoked {_time(each.revoked_ms)} by {each.revoked_by}"
                )
                over = each.expires_ms <= datetime.now(UTC).timestamp() * 1000
                rows.append(
                    (
                        each.public_id,
                        str(each.role),
                        each.tenant_id or "-",
                        each.label,
                        _time(each.created_ms),
                        each.created_by,
                        _time(each.expires_ms),
                        revoked or ("expired" if over else "good"),
                    )
                )
            after = page[-1].public_id
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return EXIT_OK


async def _revoke(options: argparse.Namespace) -> int:
    async with _parts(options) as parts:
        info = await parts.tokens.revoke(options.id, tenant_id=None, by=actor())
        await _enter(parts, "token.revoke", info.tenant_id, info.public_id, 200)
        print(f"{info.public_id} ({info.label}) is revoked; running nodes refuse it within a second")
    return EXIT_OK


async def _deny(options: argparse.Namespace) -> int:
    async with _parts(options) as parts:
        if options.jti is not None:
            await parts.issued.deny_token(options.issuer, options.jti)
            what = f"jti {options.jti}"
        else:
            await parts.issued.deny_subject(options.issuer, options.subject)
            what = f"sub {options.subject}"
        await _enter(parts, "jwt.deny", None, f"{what} of {options.issuer}", 200)
        print(f"{options.issuer}: {what} is refused from now on")
    return EXIT_OK


async def _verify(options: argparse.Namespace) -> int:
    async with _parts(options) as parts:
        finding = await parts.audit.verify()
        head = await parts.audit.head()
    if finding is not None:
        print(f"{parts.store.place}: the audit trail is not sound: {finding}", file=sys.stderr)
        return EXIT_FAILED
    print(f"the audit trail is sound: {head.sequence} entries, head {head.hash.hex()}")
    return EXIT_OK


async def _enter(parts: AdminParts, action: str, tenant_id: str | None, target: str, status: int) -> None:
    from admin.ports import Deed

    await parts.audit.append(
        Deed(
            at=datetime.now(UTC),
            principal=f"{actor()} ({COMMAND_LINE})",
            credential="",
            source=COMMAND_LINE,
            action=action,
            tenant_id=tenant_id,
            target=target,
            status=status,
            request_id="",
        )
    )


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
