"""The SQLite files of a node: whole, of the present schema, and what the node kept of its own measurements."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Select
from sqlalchemy.dialects import sqlite

from config.node import NodeConfig
from mediaserver.doctor.checks import Check, error, ok, warning
from mediaserver.doctor.read_only import STEPS, reading
from tenancy.backup import file_problems
from tenancy.figures import NodeMinute, NodeRow
from tenancy.node_repository import NodeRepository
from tenancy.schema_history import SchemaHistory

SAMPLE: Final = 20
"""Tenants' files that are read through without ``--all-tenants``; others each time."""
FILE_S: Final = 10.0
"""For one file, at most: a day's calls take milliseconds."""
MAX_NAMED: Final = 5
"""Damaged files that are named; all are counted."""
RESTORE: Final = "keep a copy of the file, then bring a backup back: mediaserver tenant restore FILE (see README, tenants' files)"


@dataclass(frozen=True, slots=True)
class Shared:
    """What ``shared.db`` says; empty where it cannot be read."""

    checks: list[Check]
    tenants: tuple[str, ...] = ()
    """Those that live here."""
    nodes: tuple[NodeRow, ...] = ()
    minutes: tuple[NodeMinute, ...] = ()


@dataclass(slots=True)
class _Found:
    version: int = 0
    problems: list[str] = field(default_factory=list)
    tenants: tuple[str, ...] = ()
    nodes: tuple[NodeRow, ...] = ()
    minutes: tuple[NodeMinute, ...] = ()
    unfinished: bool = False


def shared(config: NodeConfig, since_minute: int) -> Shared:
    """Check ``shared.db`` and read what it holds."""
    name, path, head = "shared.db", config.data_dir / "shared.db", SchemaHistory("shared").head
    if not path.exists():
        return Shared([warning(name, f"{path} is not there", "start a node once: it makes the file")])
    try:
        found = reading(path, lambda connection: _read_shared(connection, head, since_minute))
    except sqlite3.Error as fault:
        return Shared([_unreadable(name, path, fault)])
    checks = [_file_check(name, path, found, head)]
    return Shared(checks, found.tenants, found.nodes, found.minutes)


def _read_shared(connection: sqlite3.Connection, head: int, since_minute: int) -> _Found:
    found = _Found(version=_version(connection))
    _limit(connection)
    try:
        found.problems = _integrity(connection)
    except sqlite3.OperationalError as fault:
        if "interrupted" not in str(fault):
            raise
        found.unfinished = True
    connection.set_progress_handler(None, 0)
    if found.problems or found.version > head:
        return found
    query = "SELECT tenant_id FROM tenants ORDER BY tenant_id"
    if found.version >= 2:
        query = "SELECT tenant_id FROM tenants WHERE moved_to IS NULL ORDER BY tenant_id"
    found.tenants = tuple(tenant_id for (tenant_id,) in connection.execute(query))
    if found.version >= 4:
        nodes = NodeRepository()
        found.nodes = tuple(NodeRow(*row) for row in _rows(connection, nodes.nodes_query))
        minutes = _rows(connection, nodes.minutes_query, since=since_minute)
        found.minutes = tuple(NodeMinute(*row) for row in minutes)
    return found


def _rows(connection: sqlite3.Connection, query: Select[Any], **values: int) -> Iterator[Sequence[Any]]:
    compiled = query.compile(dialect=sqlite.dialect())
    parameters = compiled.params | values
    yield from connection.execute(str(compiled), [parameters[name] for name in compiled.positiontup or ()])


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _integrity(connection: sqlite3.Connection) -> list[str]:
    return [line for (line,) in connection.execute(f"PRAGMA integrity_check({MAX_NAMED})") if line != "ok"]


def _limit(connection: sqlite3.Connection) -> None:
    give_up = time.monotonic() + FILE_S
    connection.set_progress_handler(lambda: int(time.monotonic() > give_up), STEPS)


def _unreadable(name: str, path: Path, fault: sqlite3.Error) -> Check:
    code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        todo = "find out who holds it (fuser FILE); a node waits for 5 s and then loses calls"
        return warning(name, f"{path} is locked by another program", todo)
    if code == sqlite3.SQLITE_CANTOPEN:
        return error(name, f"{path} cannot be opened: {fault}", "give the server's user the right to read it")
    return error(name, f"{path} is damaged, or no database of ours: {fault}", RESTORE)


def _file_check(name: str, path: Path, found: _Found, head: int) -> Check:
    figures = {"path": str(path), "schema": found.version, "schema_here": head}
    if found.problems:
        return error(name, f"{path}: {found.problems[0]}", RESTORE, problems=found.problems, **figures)
    if found.version > head:
        todo = "run the release that wrote it, or a newer one"
        return error(name, f"schema {found.version} is newer than this program's {head}", todo, **figures)
    if found.version < head:
        todo = "back it up and start the node: it brings the schema up to date"
        return warning(name, f"whole, schema {found.version}; this program's is {head}", todo, **figures)
    if found.unfinished:
        todo = "look at the disk's load; run doctor again when it is quiet"
        return warning(name, f"schema {head}; not read through within {FILE_S:.0f} s", todo, **figures)
    return ok(name, f"whole, schema {head}", **figures)


@dataclass(slots=True)
class _Tally:
    read: int = 0
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    old: int = 0
    newer: int = 0
    unfinished: int = 0
    locked: int = 0


def tenants(config: NodeConfig, tenant_ids: Sequence[str], *, every: bool) -> list[Check]:
    """Check tenants' files: some of them, or every one."""
    chosen = list(tenant_ids)
    if not every and len(chosen) > SAMPLE:
        chosen = random.sample(chosen, SAMPLE)
    head, tally = SchemaHistory("tenant").head, _Tally()
    for tenant_id in chosen:
        _look_at(config.data_dir / "tenants" / f"client-{tenant_id}.db", tenant_id, head, tally)
    if not tenant_ids:
        return [
            warning(
                "tenants' files",
                "no tenant lives here",
                "name tenant files in the configuration: a node without tenants does not start",
            )
        ]
    of = f"{tally.read} of {len(tenant_ids)} read"
    figures = {
        "tenants": len(tenant_ids),
        "read": tally.read,
        "damaged": tally.damaged,
        "missing": tally.missing,
        "older_schema": tally.old,
        "newer_schema": tally.newer,
    }
    return [_tenants_check(of, tally, head, figures)]


def _tenants_check(of: str, tally: _Tally, head: int, figures: dict[str, object]) -> Check:
    name, bad = "tenants' files", [*tally.damaged, *tally.missing]
    if bad:
        named = "; ".join(bad[:MAX_NAMED]) + ("; …" if len(bad) > MAX_NAMED else "")
        return error(name, f"{of}, {len(bad)} cannot be used: {named}", RESTORE, **figures)
    if tally.newer:
        todo = "run the release that wrote them, or a newer one"
        return error(name, f"{of}, {tally.newer} have a schema newer than {head}", todo, **figures)
    if tally.locked or tally.unfinished:
        todo = "run doctor again; mediaserver tenant check TENANT waits longer"
        said = f"{of}; {tally.locked} are locked, {tally.unfinished} were not read through in {FILE_S:.0f} s"
        return warning(name, said, todo, **figures)
    if tally.old:
        todo = "nothing is lost: each is brought up to date when it is next opened"
        return warning(name, f"{of}, {tally.old} of a schema before {head}", todo, **figures)
    return ok(name, f"{of}, whole, schema {head}", **figures)


def _look_at(path: Path, tenant_id: str, head: int, tally: _Tally) -> None:
    if not path.exists():
        tally.missing.append(f"{tenant_id}: {path.name} is not there")
        return
    tally.read += 1
    try:
        version, problems = reading(path, lambda connection: _read_tenant(connection, tenant_id))
    except sqlite3.Error as fault:
        code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            tally.locked += 1
        elif code == sqlite3.SQLITE_INTERRUPT:
            tally.unfinished += 1
        else:
            tally.damaged.append(f"{tenant_id}: {fault}")
        return
    if problems:
        tally.damaged.append(f"{tenant_id}: {problems[0]}")
    tally.old += version < head
    tally.newer += version > head


def _read_tenant(connection: sqlite3.Connection, tenant_id: str) -> tuple[int, tuple[str, ...]]:
    _limit(connection)
    return _version(connection), file_problems(connection, tenant_id)
