"""What ``mediaserver config`` does, as text for people. Nothing here decides: `tenancy.lifecycle` does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.diff import differences
from config.loader import load_checked_tenant, load_tenant_config
from config.node import NodeConfig
from config.tenant import TenantConfig
from config.variables import filled_in
from mediaserver.configuring.arguments import LISTED
from mediaserver.configuring.dry_run import dry_run_on
from mediaserver.configuring.reachability import unreachable
from mediaserver.configuring.replay import lines_of, replay, speakers
from mediaserver.errors import MediaServerError
from tenancy import Registry, UnknownVersion
from tenancy.canary import SHARE_STEPS, ArmTally, Bound, Canary, CanaryPlan
from tenancy.keys import chains_for, open_tenant_keys
from tenancy.lifecycle import CURRENT, Expected, Lifecycle, Report
from tenancy.opening import open_store
from tenancy.providers import Chains
from tenancy.spending import MICROS, unpriced
from tenancy.versions import ConfigVersion, VersionState
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


async def validate_version(
    at: Desk, tenant: str, version: int, author: Author, *, reachability: bool
) -> Outcome:
    """Check a version, and note what came of it where it is a draft."""
    config = await at.lifecycle.config(tenant, version)
    found = (await at.lifecycle.ledger(tenant)).history.get(version)
    if found is not None and found.state is VersionState.DRAFT:
        origin = at.lifecycle.origin(author.name, author.reason)
        report = await at.lifecycle.validate(tenant, version, origin)
    else:
        report = await at.lifecycle.check(config)
    title = f"{tenant} version {version}"
    return await _checked(title, report, config, at.node, at.environ, reachability=reachability)


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


async def history(at: Desk, tenant: str, limit: int = LISTED) -> Outcome:
    """The newest versions, the trial that runs, and who did what."""
    ledger = await at.lifecycle.ledger(tenant)
    versions = ledger.history.versions[::-1][:limit]
    lines = [
        f"{'':2}{'version':>7}  {'state':<11}  {'content':<12}  {'schema':>6}  {'made':<20}  by, why",
        *(_row(each) for each in versions),
    ]
    if len(ledger.history.versions) > limit:
        lines.append(f"  and {len(ledger.history.versions) - limit} older ones (--limit)")
    if ledger.trial is not None:
        lines += ["", *trial_lines(ledger.trial)]
    lines += ["", "log, latest first"]
    lines += [
        f"  {line.origin.at:%Y-%m-%d %H:%M:%SZ}  version {line.version} {line.deed.value}"
        f" by {line.origin.author}: {line.origin.reason}"
        for line in await at.lifecycle.log(tenant, limit)
    ]
    return Outcome(tuple(lines))


def _row(version: ConfigVersion) -> str:
    mark = "*" if version.state is VersionState.ACTIVE else " "
    made = version.created
    restores = f" (the content of {version.restores})" if version.restores is not None else ""
    return (
        f"{mark} {version.version:>7}  {version.state.value:<11}  {version.content_hash[:12]}  {version.schema_version:>6}"
        f"  {made.at:%Y-%m-%d %H:%M:%SZ}  {made.author}: {made.reason}{restores}"
    )


def trial_lines(trial: Canary) -> list[str]:
    """A trial for people."""
    plan = trial.plan
    lines = [
        f"trial of version {plan.version} against {plan.baseline},"
        f" {plan.share * 100 / SHARE_STEPS:g} % of the calls, for at most {plan.max_duration_ms / 3_600_000:g} h"
    ]
    for name, arm in (("baseline", trial.baseline), ("canary", trial.canary)):
        lines.append(
            f"  {name:<8}  {arm.calls} calls, {arm.failures.hits} failed, {arm.transfers.hits} asked for a person,"
            f" turn latency {arm.turn_latency.mean * plan.latency_cap_ms:.0f} ms"
            f" (p95 {arm.turn_latency_p95.mean * plan.latency_cap_ms:.0f} ms){_costs(arm, plan)}"
        )
    if trial.verdict is not None:
        lines.append(f"  {trial.verdict.decision.value}: {trial.verdict.reason}")
    return lines


def _costs(arm: ArmTally, plan: CanaryPlan) -> str:
    if not arm.cost.n:
        return ""
    mean_usd = arm.cost.mean * plan.cost_cap_micros / MICROS
    estimated = f", {arm.estimated_costs} of {arm.cost.n} estimated" if arm.estimated_costs else ""
    return f", {mean_usd:.4f} USD a call{estimated}"


async def diff(at: Desk, tenant: str, old: int, new: int) -> Outcome:
    """What differs between two versions, field by field."""
    before = await at.lifecycle.config(tenant, old)
    after = await at.lifecycle.config(tenant, new)
    found = differences(before.model_dump(mode="json"), after.model_dump(mode="json"))
    return Outcome(found.lines() or (f"versions {old} and {new} say the same",))


async def draft(at: Desk, path: Path, author: Author) -> Outcome:
    """Add a file's content as a version that no call gets yet. Raises `ConfigError`."""
    config = load_tenant_config(path)
    made = await at.lifecycle.draft(config, at.lifecycle.origin(author.name, author.reason))
    return Outcome(
        (
            f"{config.tenant_id} version {made.version} is a draft of {made.content_hash[:12]}; no call gets it yet",
        )
    )


async def activate(at: Desk, tenant: str, version: int, author: Author, expected: int | None) -> Outcome:
    """Give a version to new calls."""
    origin = at.lifecycle.origin(author.name, author.reason)
    await at.lifecycle.activate(tenant, version, origin, expected=_expected(expected))
    return Outcome(
        (f"{tenant} version {version} is active: new calls have it, calls that are up keep theirs",)
    )


async def rollback(at: Desk, tenant: str, to: int, author: Author, expected: int | None) -> Outcome:
    """Give new calls the content of an earlier version."""
    origin = at.lifecycle.origin(author.name, author.reason)
    made = await at.lifecycle.roll_back(tenant, to, origin, expected=_expected(expected))
    return Outcome((f"{tenant} version {made.version} is active, with the content of version {to}",))


async def reject(at: Desk, tenant: str, version: int, author: Author) -> Outcome:
    """Keep a version from ever becoming active."""
    await at.lifecycle.reject(tenant, version, at.lifecycle.origin(author.name, author.reason))
    return Outcome((f"{tenant} version {version} is refused for good",))


@dataclass(frozen=True, slots=True)
class Trial:
    """How a version is to be tried; see `tenancy.canary.CanaryPlan`."""

    share_percent: float
    hours: float
    min_calls: int
    max_cost_percent: float | None = None
    """How much the cost per call may rise; None: by a quarter where prices are known, else it is not compared."""
    cost_cap_usd: float = 1.0
    """A call's cost counts up to this: the lower, the fewer calls show a rise."""


async def canary(at: Desk, tenant: str, version: int, author: Author, trial: Trial) -> Outcome:
    """Give a version to a share of calls until it is shown to be good or bad."""
    active = (await at.lifecycle.ledger(tenant)).history.active
    if active is None:
        raise UnknownVersion(f"{tenant} has no active version to compare with")
    missing = at.lifecycle.unpriced(
        await at.lifecycle.config(tenant, active.version), await at.lifecycle.config(tenant, version)
    )
    relative = COST_BOUND if trial.max_cost_percent is None else trial.max_cost_percent / 100
    plan = CanaryPlan(
        version=version,
        baseline=active.version,
        share=round(trial.share_percent * SHARE_STEPS / 100),
        min_calls=trial.min_calls,
        turn_latency_p95=P95_BOUND,
        # Where it was asked for without prices, the lifecycle says which are missing.
        cost=None if missing and trial.max_cost_percent is None else Bound(relative=relative),
        cost_cap_micros=max(1, round(trial.cost_cap_usd * MICROS)),
        max_duration_ms=round(trial.hours * 3_600_000),
    )
    origin = at.lifecycle.origin(author.name, author.reason)
    await at.lifecycle.begin_trial(tenant, plan, origin)
    ledger = await at.lifecycle.ledger(tenant)
    lines = trial_lines(ledger.trial) if ledger.trial is not None else []
    if plan.cost is None:
        lines.append(f"  cost per call is not compared: no price is stated for {'; '.join(missing)}")
    return Outcome(tuple(lines))


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


def _expected(given: int | None) -> Expected:
    """What was seen active: as given, 0 for none, else what is active when the command is given."""
    return CURRENT if given is None else given or None
