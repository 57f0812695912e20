"""``mediaserver doctor``: every check, one after the other.

Exit status: 0 all is well; 1 there are warnings; 2 there are errors (also where the configuration cannot be read).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import orjson

from config.errors import ConfigError
from config.loader import load_node_config, load_tenants
from config.node import NodeConfig
from mediaserver.core_dumps import no_core_dumps
from mediaserver.doctor import files, machine, postgres, running
from mediaserver.doctor.checks import EXIT, Check, as_document, as_text, error, ok, worst
from mediaserver.doctor.gate_checks import gate_checks
from mediaserver.doctor.keys import vault_checks
from tenancy.figures import MINUTE_MS
from tenancy.gate import KEPT_MINUTES, GateBounds, assess

CONFIGURATION: Final = "configuration"


async def doctor(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    checks = await examine(options.config, os.environ, every_tenant=options.all_tenants)
    if options.json:
        print(orjson.dumps(as_document(checks), option=orjson.OPT_INDENT_2).decode())
    else:
        print(as_text(checks))
    return EXIT[worst(checks)]


async def examine(
    path: Path | None, environ: Mapping[str, str], *, every_tenant: bool = False
) -> list[Check]:
    """All checks of the node that a configuration file is of (None: the demo node's)."""
    try:
        config = load_node_config(path, environ)
    except ConfigError as fault:
        return [error(CONFIGURATION, str(fault).partition("\n")[0], f"correct it:\n{fault}")]
    if config.vault is not None:
        no_core_dumps()
    return await examine_node(config, environ, every_tenant=every_tenant, source=str(path or "the demo node"))


async def examine_node(
    config: NodeConfig, environ: Mapping[str, str], *, every_tenant: bool = False, source: str = "given"
) -> list[Check]:
    """All checks of a node."""
    now_ms = time.time_ns() // 1_000_000
    minute = now_ms // MINUTE_MS
    since = minute - KEPT_MINUTES
    checks = [_configuration(config, source)]
    shared = await asyncio.to_thread(_guarded_shared, config, since)
    database = await asyncio.to_thread(_guarded_postgres, config, environ, since)
    there = config.store.kind == "postgres"
    nodes, minutes = (database.nodes, database.minutes) if there else (shared.nodes, shared.minutes)
    pid = running.node_process(config, nodes, socket.gethostname())
    checks += await asyncio.to_thread(running.node, config, pid)
    checks.append(running.several(config, nodes, now_ms))
    checks += _guarded("data folder", lambda: machine.data_folder(config))
    if not there:
        checks += shared.checks
        checks += await asyncio.to_thread(
            _guarded, "tenants' files", lambda: files.tenants(config, shared.tenants, every=every_tenant)
        )
    checks += database.checks
    checks += await vault_checks(config, environ)
    checks += _guarded("ports", lambda: machine.ports(config, pid))
    checks += _guarded("file descriptors", lambda: [machine.descriptors(config, pid)])
    checks += await asyncio.to_thread(_guarded, "models", lambda: [machine.models(config)])
    checks += _guarded("memory", lambda: [machine.memory()])
    checks.append(machine.capacity(config))
    newest_ms = max((each.seen_ms for each in nodes), default=None)
    checks.append(machine.clock(now_ms, newest_ms))
    bounds = GateBounds(**config.store.gate.model_dump())
    return checks + gate_checks(assess(minutes, bounds, minute), postgres=there)


def _guarded(name: str, work: Callable[[], list[Check]]) -> list[Check]:
    """A check that the system does not let be made is an answer as well."""
    try:
        return work()
    except OSError as fault:
        todo = "run doctor as the server's user, on the machine that the node runs on"
        return [error(name, f"cannot be looked at: {fault}", todo)]


def _guarded_shared(config: NodeConfig, since: int) -> files.Shared:
    found: list[files.Shared] = []

    def work() -> list[Check]:
        found.append(files.shared(config, since))
        return []

    checks = _guarded("shared.db", work)
    return found[0] if found else files.Shared(checks)


def _guarded_postgres(config: NodeConfig, environ: Mapping[str, str], since: int) -> postgres.Postgres:
    try:
        return postgres.postgres(config, environ, since)
    except ImportError as fault:
        todo = "install the package anew: pip install ai-receptionist"
        return postgres.Postgres([error("postgres", f"the driver is missing: {fault}", todo)])


def _configuration(config: NodeConfig, source: str) -> Check:
    try:
        tenants = load_tenants(config.tenants)
    except ConfigError as fault:
        return error(CONFIGURATION, str(fault).partition("\n")[0], f"correct it:\n{fault}")
    folder = config.tenant_folder
    if folder is not None and not folder.path.is_dir():
        return error(
            CONFIGURATION, f"tenant_folder: {folder.path} is no folder", "make it, or set it to another"
        )
    return ok(CONFIGURATION, f"{source} can be read, and the files of {len(tenants)} tenants")
