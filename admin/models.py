"""What the API takes and gives. Times are RFC 3339 in UTC; ids and enumerations are as in the configuration."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from tenancy.canary import Bound, Canary, CanaryPlan, Metric
from tenancy.ledger import LogLine
from tenancy.routing import LEFT_FOR_GOOD, Home
from tenancy.store import Address, TenantRow, TenantStatus
from tenancy.versions import MAX_REASON_CHARACTERS, ConfigVersion, VersionState
from vault import SecretInfo
from vault.secret import SECRET_BYTES_MAX

Reason = Annotated[str, StringConstraints(min_length=1, max_length=MAX_REASON_CHARACTERS, pattern=r"\S")]


class Given(BaseModel):
    """A request's body: nothing that is not known is overlooked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Told(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class Fault(Told):
    """One thing that is wrong with what was sent."""

    field: str
    reason: str
    line: int | None = None
    column: int | None = None


class Problem(Told):
    """What is wrong (RFC 9457)."""

    type: str = Field(examples=["urn:mediaserver:problem:precondition_failed"])
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[Fault] = Field(default_factory=list)


class Why(Given):
    """Why something is changed, for the history and the trail."""

    reason: Reason = Field(examples=["new opening hours"])


# -- tenants -----------------------------------------------------------------------------------------------


class Tenant(Told):
    """A tenant, and whether its calls are taken."""

    tenant_id: str
    status: TenantStatus
    moved_to: str | None = None
    """The node that has it, where it has moved."""

    @classmethod
    def of(cls, row: TenantRow) -> Tenant:
        """A row of the store."""
        return cls(tenant_id=row.tenant_id, status=row.status, moved_to=row.moved_to)


class Tenants(Told):
    """A page of tenants, by id."""

    items: list[Tenant]
    next_cursor: str | None


class StatusChange(Given):
    """Whether a tenant's calls are taken from now on. Those that are up go on."""

    status: TenantStatus
    moved_to: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        examples=["sip:cell-2.example.com https://cell-2.example.com", LEFT_FOR_GOOD],
    )
    """With the status moved: the SIP URI and the HTTP root of the node that callers are sent to; or ``gone``."""

    @field_validator("moved_to")
    @classmethod
    def _of_a_node(cls, text: str | None) -> str | None:
        return None if text is None else Home.checked(text)

    @model_validator(mode="after")
    def _address_of_the_moved(self) -> StatusChange:
        if (self.status is TenantStatus.MOVED) != (self.moved_to is not None):
            raise ValueError("moved_to goes with the status moved, and with no other")
        return self


class OneAddress(Told):
    """By what a tenant is called, and from where."""

    address: str
    trunks: list[str]
    origins: list[str]

    @classmethod
    def of(cls, address: Address) -> OneAddress:
        """An address of the store."""
        return cls(address=address.address, trunks=sorted(address.trunks), origins=sorted(address.origins))


class Addresses(Told):
    """All addresses of a tenant; they follow from its active version."""

    items: list[OneAddress]


class Owner(OneAddress):
    """Whose an address is."""

    tenant: Tenant


class Trunks(Told):
    """The trunks of this node, as its configuration has them."""

    items: list[dict[str, Any]]


# -- configuration -----------------------------------------------------------------------------------------


class Change(Told):
    """Who changed something, when and why."""

    author: str
    reason: str
    at: datetime


class Version(Told):
    """One version of a configuration: it never changes, but for its state."""

    version: int
    state: VersionState
    content_hash: str
    schema_version: int
    created: Change
    changed: Change | None
    """Who brought it into its state; none: its creation did."""
    restores: int | None
    """The version whose content this is, where it was made by going back."""

    @classmethod
    def of(cls, version: ConfigVersion) -> Version:
        """A version of the ledger."""
        made, changed = version.created, version.changed
        return cls(
            version=version.version,
            state=version.state,
            content_hash=version.content_hash,
            schema_version=version.schema_version,
            created=Change(author=made.author, reason=made.reason, at=made.at),
            changed=None
            if changed is None
            else Change(author=changed.author, reason=changed.reason, at=changed.at),
            restores=version.restores,
        )


class VersionWithContent(Version):
    """A version and what it says."""

    content: dict[str, Any]


class Versions(Told):
    """A page of versions, the newest first."""

    items: list[Version]
    next_cursor: str | None


class Draft(Version):
    """A version that no call gets yet."""

    warnings: list[Fault]


class Created(Told):
    """A new tenant and its first version."""

    tenant: Tenant
    version: int
    warnings: list[Fault]


class Check(Given):
    """How much of a version is checked."""

    reachability: bool = False
    """Ask every provider's root as well."""
    reason: Reason = "validation"


class Report(Told):
    """What is known of a version's content."""

    valid: bool
    errors: list[str]
    warnings: list[str]
    reachable: list[str] = Field(default_factory=list)
    unreachable: list[str] = Field(default_factory=list)


class Rollback(Why):
    """Go back to an earlier version's content."""

    to: int = Field(ge=1, lt=2**31)


class Difference(Told):
    """One field that two versions have otherwise."""

    field: str
    kind: str
    old: str | None
    new: str | None


class Differences(Told):
    """What two versions have otherwise; secrets are left out."""

    items: list[Difference]
    cut_off: bool
    """There are more."""


class Line(Told):
    """Who did what to which version."""

    version: int
    deed: str
    by: Change

    @classmethod
    def of(cls, line: LogLine) -> Line:
        """A line of the log."""
        by = Change(author=line.origin.author, reason=line.origin.reason, at=line.origin.at)
        return cls(version=line.version, deed=line.deed.value, by=by)


class Log(Told):
    """A page of the log of changes, latest first."""

    items: list[Line]
    next_cursor: str | None


# -- trials ------------------------------------------------------------------------------------------------


class NewTrial(Why):
    """A version for a share of calls until it is shown to be good or bad. What is left out is as `tenancy.canary.CanaryPlan` has it."""

    version: int = Field(ge=1, lt=2**31)
    share_percent: float = Field(default=5.0, ge=0.01, le=50.0)
    min_calls: int = Field(default=50, ge=1, le=1_000_000)
    hours: float = Field(default=168.0, ge=1 / 60, le=2_160.0)
    bounds: dict[Metric, Bound] = Field(default_factory=dict)
    """How far each metric may rise over the baseline's; those that are left out keep their defaults. Of cost: a quarter, where
    every provider's price is stated; else it is not compared."""
    cost_cap_usd: float = Field(default=1.0, gt=0.0, le=1_000_000.0)
    """A call's cost counts up to this."""


class ArmFigures(Told):
    """What one arm's calls came to; a metric without calls is null."""

    calls: int
    failed: int
    asked_for_a_person: int
    means: dict[Metric, float | None]
    costs: int
    """Calls whose cost is known."""
    estimated_costs: int
    """Those of them whose cost is estimated."""


class Trial(Told):
    """A trial: what it compares, and what it has seen."""

    version: int
    baseline: int
    share_percent: float
    started_at: datetime
    ends_at: datetime
    bounds: dict[Metric, Bound]
    old: ArmFigures
    new: ArmFigures
    decision: str
    verdict: str | None
    unpriced: list[str] = Field(default_factory=tuple, validate_default=True)
    """Providers without a price, for which cost is not compared; said when a trial begins."""

    @classmethod
    def of(cls, trial: Canary, started_at: datetime, ends_at: datetime, share_percent: float) -> Trial:
        """A trial of the ledger."""
        plan = trial.plan
        return cls(
            version=plan.version,
            baseline=plan.baseline,
            share_percent=share_percent,
            started_at=started_at,
            ends_at=ends_at,
            bounds=dict(plan.bounds()),
            old=_figures(trial, plan, baseline=True),
            new=_figures(trial, plan, baseline=False),
            decision=trial.decision.value,
            verdict=None if trial.verdict is None else trial.verdict.reason,
        )


def _figures(trial: Canary, plan: CanaryPlan, *, baseline: bool) -> ArmFigures:
    arm = trial.baseline if baseline else trial.canary
    tallies = {metric: arm.of(metric) for metric in Metric}
    means = {
        metric: tally.mean * plan.scale(metric) if tally.n else None for metric, tally in tallies.items()
    }
    return ArmFigures(
        calls=arm.calls,
        failed=arm.failures.hits,
        asked_for_a_person=arm.transfers.hits,
        means=means,
        costs=arm.cost.n,
        estimated_costs=arm.estimated_costs,
    )


class Trials(Told):
    """A page of trials, of the newest version first."""

    items: list[Trial]
    next_cursor: str | None


# -- keys --------------------------------------------------------------------------------------------------


class NewKey(Given):
    """A provider's key. It is sealed, and never shown again."""

    key: SecretStr = Field(min_length=1, max_length=SECRET_BYTES_MAX)


class Key(Told):
    """What may be told of a key: never the key."""

    name: str
    version: int
    fingerprint: str
    put_at: str
    put_by: str
    revoked_at: str | None

    @classmethod
    def of(cls, info: SecretInfo) -> Key:
        """The vault's."""
        return cls(**{name: getattr(info, name) for name in SecretInfo.__slots__})


class Keys(Told):
    """A tenant's keys by name, the revoked ones too."""

    items: list[Key]


class NotRotated(Told):
    """What stays as it was, and why."""

    tenant_id: str
    what: str
    reason: str


class DataKeyRotation(Told):
    """A tenant's keys sealed anew under a new data key."""

    generation: int
    resumed: bool
    """A rotation that was interrupted was finished; no new data key was made."""
    resealed: int
    finished: bool
    failures: list[NotRotated]


class KekRotation(Told):
    """Data keys wrapped anew by the present key-encryption key."""

    kek_id: str
    rewrapped: int
    failed: int
    finished: bool
    failures: list[NotRotated]
