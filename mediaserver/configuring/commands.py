"""What ``mediaserver config`` does by itself: it checks a file, and replays recorded calls. `over_api` has the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.loader import load_checked_tenant
from config.node import NodeConfig
from config.tenant import TenantConfig
from config.variables import filled_in
from mediaserver.configuring.dry_run import dry_run_on
from mediaserver.configuring.reachability import unreachable
from mediaserver.configuring.replay import lines_of, replay, speakers
from mediaserver.errors import MediaServerError
from tenancy import Registry
from tenancy.canary import Bound
from tenancy.keys import chains_for, open_tenant_keys
from tenancy.lifecycle import Lifecycle, Report
from tenancy.opening import open_store
from tenancy.providers import Chains
from tenancy.spending import unpriced
from vault import VaultError

P95_BOUND: Final = Bound(absolute=300.0, relative=0.2)
COST_BOUND: Final = 0.25
"""How much the cost per call may rise where prices are known, as a share of the baseline's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command has to say, and whether it found what it was asked to look for in order."""

    lines: tuple[str, ...]
    sound: bool = True


@dataclass(frozen=True, slots=True)
class Author:
    """Who asks for a change, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Desk:
    """The versions of a node's tenants, and what a version is checked with."""

    node: NodeConfig
    environ: Mapping[str, str]
    registry: Registry
    lifecycle: Lifecycle


@asynccontextmanager
async def desk(node: NodeConfig, environ: Mapping[str, str]) -> AsyncIterator[Desk]:
    """Open the node's store; a node that runs meanwhile goes on. Raises `TenancyError`."""
    store = await open_store(node, environ)
    try:
        registry = Registry(store, node.providers, environ)
        lifecycle = Lifecycle(
            store,
            dry_run=dry_run_on(node, environ),
            unpriced=lambda config: unpriced(config.providers, node.providers, environ),
        )
        yield Desk(node, environ, registry, lifecycle)
    finally:
        await store.close()


async def validate_file(
    path: Path, node: NodeConfig, environ: Mapping[str, str], *, reachability: bool
) -> Outcome:
    """Check a file as far as that goes without its tenant's history. Raises `ConfigError`."""
    config, warnings = load_checked_tenant(path)
    dry = await dry_run_on(node, environ)(config)
    report = Report(dry.errors, (*map(str, warnings), *dry.warnings))
    return await _checked(str(path), report, config, node, environ, reachability=reachability)


async def _checked(
    title: str,
    report: Report,
    config: TenantConfig,
    node: NodeConfig,
    environ: Mapping[str, str],
    *,
    reachability: bool,
) -> Outcome:
    lines = [f"error: {each}" for each in report.errors]
    lines += [f"warning: {each}" for each in report.warnings]
    unreached: tuple[str, ...] = ()
    if reachability:
        reached, unreached = await unreachable(config, node.providers, environ)
        lines += [f"reachable: {each}" for each in reached]
        lines += [f"error: {each}" for each in unreached]
    sound = not report.errors and not unreached
    lines.append(f"{title}: {'valid' if sound else 'not valid'}")
    return Outcome(tuple(lines), sound)


async def replayed(at: Desk, tenant: str, version: int, calls: int, *, ask_models: bool) -> Outcome:
    """What a version would say differently in the newest recorded conversations."""
    config = filled_in(await at.lifecycle.config(tenant, version))
    records = await at.registry.calls(tenant, calls)
    lines: list[str] = []
    replies = differ = affected = 0
    chains = await _chains(at, config, keys=ask_models)
    async with speakers(config, chains, ask_models=ask_models) as who:
        for record in records:
            found = await replay(record, config, who.one())
            replies += found.exchanges
            differ += len(found.differences)
            affected += bool(found.differences) or found.cut
            if found.differences or found.cut:
                lines += [*lines_of(found), ""]
    lines.append(
        f"{tenant} version {version}, answered by {who.name}: {differ} of {replies} replies would differ, in {affected} of"
        f" {len(records)} calls"
    )
    if who.models and not ask_models:
        lines.append(f"its calls are answered by {who.models[0].name} first, which --ask-models asks")
    return Outcome(tuple(lines))


async def _chains(at: Desk, config: TenantConfig, *, keys: bool) -> Chains:
    """Who serves a version's calls; ``keys``: with its keys from the vault, for who is going to ask."""
    try:
        opened = await open_tenant_keys(at.node, at.environ) if keys else None
    except VaultError as error:
        raise MediaServerError(f"the vault of tenants' keys cannot be used: {error}") from error
    try:
        return await chains_for(config, at.node.providers, at.environ, opened)
    finally:
        if opened is not None:
            await opened.aclose()
