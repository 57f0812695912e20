"""Which key a service of a call is used with, and what failures say about keys. Sans-IO.

Times come in, in milliseconds of any monotonic clock. Rules:

- The steps of a service are the tenant's keys, the platform's, and a fallback that needs none and is always usable. The
  first usable step is chosen; each step's state and reason are part of the answer, for the call's record.
- A key that its provider refuses (401, 403) or that is out of quota (402) is held off, twice as long with each time in a
  row, up to a longest. When that is over, one call tries it; the others take the next step until its outcome is known, or
  the try counts as lost. Its success ends the hold-off.
- A key that is rate limited (429) is held off until ``Retry-After`` is over, within bounds; without one for a short while
  that doubles. Then it is usable again by all.
- A graver state is not replaced by a lesser one while it lasts. Of requests that were under way when a hold-off began, a
  success ends nothing and a failure lengthens nothing, but for a later ``Retry-After``.
- Hold-offs are of one version of a key: a key that is put anew starts afresh, and what is reported of an older version
  counts no more.
- Tenants share nothing: a tenant's reports touch its own keys, up to a number of them. The platform's keys are everybody's
  and have a place of their own, that no tenant can crowd out.

Whether a provider is up is not asked here: that is the circuit breaker's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from vault.errors import BadInput

STEPS_MAX: Final = 32
OWNERS_MAX: Final = 10_000
"""Tenants with a held-off key that are remembered; the one not reported on for longest goes first."""
HOLDS_MAX: Final = 64
"""Held-off keys of one owner that are remembered; the oldest goes first."""


class Service(StrEnum):
    """What a key is for."""

    STT = "stt"
    LLM = "llm"
    TTS = "tts"


class Origin(StrEnum):
    """Whose step it is."""

    TENANT = "tenant"
    PLATFORM = "platform"
    FALLBACK = "fallback"


class KeyState(StrEnum):
    """Whether a step can be taken, and if not, why."""

    USABLE = "usable"
    MISSING = "missing"
    REVOKED = "revoked"
    UNREADABLE = "unreadable"
    """The vault cannot open it now: its key-encryption key is gone, or what is stored is damaged."""
    DENIED = "denied"
    OUT_OF_QUOTA = "out of quota"
    RATE_LIMITED = "rate limited"


class Outcome(Enum):
    """What a request says about the key that it was made with."""

    SUCCEEDED = "succeeded"
    DENIED = "denied"
    OUT_OF_QUOTA = "out of quota"
    RATE_LIMITED = "rate limited"


_HELD: Final = {
    Outcome.DENIED: KeyState.DENIED,
    Outcome.OUT_OF_QUOTA: KeyState.OUT_OF_QUOTA,
    Outcome.RATE_LIMITED: KeyState.RATE_LIMITED,
}
_GRAVITY: Final = {KeyState.DENIED: 3, KeyState.OUT_OF_QUOTA: 2, KeyState.RATE_LIMITED: 1}
QUOTA_CODES: Final = frozenset({"insufficient_quota", "quota_exceeded", "billing_hard_limit_reached"})
"""Codes in the body of a 429 that mean an empty account, not haste."""


def classify(status: int, code: str | None = None) -> Outcome | None:
    """What an HTTP status says about the key; None where it says nothing (5xx, 404, 400 …).

    ``code`` is the error's code in the answer's body, if it has one.
    """
    if 200 <= status < 300:
        return Outcome.SUCCEEDED
    if status in (401, 403):
        return Outcome.DENIED
    if status == 402 or (status == 429 and code in QUOTA_CODES):
        return Outcome.OUT_OF_QUOTA
    return Outcome.RATE_LIMITED if status == 429 else None


@dataclass(frozen=True, slots=True)
class KeyRef:
    """One version of a key, without the key."""

    owner: str | None
    """The tenant; None is the platform."""
    name: str
    version: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """Something that can serve."""

    origin: Origin
    label: str
    """What logs call it."""
    key: KeyRef | None = None
    """None where it needs no key, as a provider on this machine."""
    stored: KeyState = KeyState.USABLE
    """What the vault says: usable, missing, revoked or unreadable."""


@dataclass(frozen=True, slots=True)
class JudgedStep:
    """A step at one moment."""

    step: Step
    state: KeyState
    reason: str
    until_ms: int | None = None
    """When the state is over by itself; None where it is not."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a service of a call is to use now, and why nothing before it."""

    service: Service
    steps: tuple[JudgedStep, ...]
    chosen: int
    """Index of the step to use."""

    @property
    def use(self) -> Step:
        """The step to use."""
        return self.steps[self.chosen].step

    @property
    def record(self) -> tuple[str, ...]:
        """A line for each step, for the call's record."""
        return tuple(
            f"{self.service}: {each.step.origin} {each.step.label}: {each.reason}" for each in self.steps
        )


@dataclass(frozen=True, slots=True)
class HoldPolicy:
    """How long keys are held off."""

    denied_ms: int = 60_000
    denied_max_ms: int = 3_600_000
    quota_ms: int = 60_000
    quota_max_ms: int = 1_800_000
    rate_ms: int = 2_000
    """Where a 429 has no ``Retry-After``."""
    rate_max_ms: int = 60_000
    retry_after_min_ms: int = 500
    retry_after_max_ms: int = 600_000
    try_lost_ms: int = 30_000
    """After this long without an outcome another call may try."""
    forget_ms: int = 3_600_000
    """So long after a hold-off the next one is the first again."""

    def first_ms(self, state: KeyState) -> int:
        """The first hold-off."""
        return {
            KeyState.DENIED: self.denied_ms,
            KeyState.OUT_OF_QUOTA: self.quota_ms,
        }.get(state, self.rate_ms)

    def max_ms(self, state: KeyState) -> int:
        """The longest hold-off."""
        return {
            KeyState.DENIED: self.denied_max_ms,
            KeyState.OUT_OF_QUOTA: self.quota_max_ms,
        }.get(state, self.rate_max_ms)


@dataclass(slots=True)
class _Hold:
    version: int
    state: KeyState
    since_ms: int
    until_ms: int
    times: int = 0
    """Hold-offs in a row before this one."""
    trying_until_ms: int | None = None


_Holds = OrderedDict[tuple[Service, str], _Hold]


class KeyResolver:
    """One for a process; see the module's docstring."""

    def __init__(
        self, policy: HoldPolicy | None = None, owners_max: int = OWNERS_MAX, holds_max: int = HOLDS_MAX
    ) -> None:
        self._policy = policy or HoldPolicy()
        self._owners_max = owners_max
        self._holds_max = holds_max
        self._platform: _Holds = OrderedDict()
        self._tenants: OrderedDict[str, _Holds] = OrderedDict()
        self.forgotten = 0
        """Hold-offs that gave way to the bounds: their keys are tried again early."""

    def __len__(self) -> int:
        return len(self._platform) + sum(len(holds) for holds in self._tenants.values())

    def resolve(self, tenant_id: str, service: Service, steps: Sequence[Step], now_ms: int) -> Resolution:
        """The step to use now. Where it is a key's first use after a hold-off, this call is the one that tries it.

        Raises:
            BadInput: there is no fallback at the end, a step's key is another owner's, or there are too many steps.
        """
        _check(tenant_id, steps)
        judged = tuple(self._judge(service, step, now_ms) for step in steps)
        chosen = next(index for index, each in enumerate(judged) if each.state is KeyState.USABLE)
        key = steps[chosen].key
        hold = self._hold(service, key) if key is not None else None
        if hold is not None and key is not None and hold.version == key.version:
            hold.trying_until_ms = now_ms + self._policy.try_lost_ms
        return Resolution(service, judged, chosen)

    def held_off(self, service: Service, key: KeyRef, now_ms: int) -> bool:
        """Whether nobody is to ask with this key now. It asks, and makes nobody the one that tries."""
        hold = self._hold(service, key, now_ms)
        return hold is not None and hold.version == key.version and now_ms < hold.until_ms

    def report(
        self,
        service: Service,
        key: KeyRef,
        outcome: Outcome,
        *,
        began_ms: int,
        now_ms: int,
        retry_after_ms: int | None = None,
    ) -> None:
        """Take the outcome of a request that began then, made with this key."""
        hold = self._hold(service, key, now_ms)
        if outcome is Outcome.SUCCEEDED:
            if hold is not None and hold.version == key.version and began_ms >= hold.since_ms:
                self._drop(service, key)
            return
        if hold is not None and hold.version > key.version:
            return
        state = _HELD[outcome]
        if hold is None or hold.version < key.version:
            until_ms = now_ms + self._duration_ms(state, 0, retry_after_ms)
            self._keep(service, key, _Hold(key.version, state, now_ms, until_ms))
        elif _GRAVITY[state] < _GRAVITY[hold.state] and (now_ms < hold.until_ms or began_ms < hold.since_ms):
            return
        elif state is not hold.state:
            until_ms = now_ms + self._duration_ms(state, 0, retry_after_ms)
            self._keep(service, key, _Hold(key.version, state, now_ms, until_ms))
        elif began_ms < hold.since_ms:
            if retry_after_ms is not None and state is KeyState.RATE_LIMITED:
                hold.until_ms = max(hold.until_ms, now_ms + self._duration_ms(state, 0, retry_after_ms))
        else:
            times = hold.times + 1
            until_ms = now_ms + self._duration_ms(state, times, retry_after_ms)
            self._keep(service, key, _Hold(key.version, state, now_ms, max(until_ms, hold.until_ms), times))

    def _judge(self, service: Service, step: Step, now_ms: int) -> JudgedStep:
        key = step.key
        if key is None:
            return JudgedStep(step, KeyState.USABLE, "needs no key")
        named = f"key {key.name}"
        if step.stored is not KeyState.USABLE:
            return JudgedStep(step, step.stored, f"{named} is {step.stored}")
        named = f"{named} version {key.version}"
        hold = self._hold(service, key, now_ms)
        if hold is None or hold.version != key.version:
            return JudgedStep(step, KeyState.USABLE, f"{named} is usable")
        if now_ms < hold.until_ms:
            left_ms = hold.until_ms - now_ms
            return JudgedStep(
                step, hold.state, f"{named} is {hold.state} for {left_ms} ms more", hold.until_ms
            )
        limited = hold.state is KeyState.RATE_LIMITED
        if not limited and hold.trying_until_ms is not None and now_ms < hold.trying_until_ms:
            reason = f"{named} was {hold.state} and is being tried by another call"
            return JudgedStep(step, hold.state, reason, hold.trying_until_ms)
        return JudgedStep(step, KeyState.USABLE, f"{named} was {hold.state} and may be tried again")

    def _duration_ms(self, state: KeyState, times: int, retry_after_ms: int | None) -> int:
        policy = self._policy
        if state is KeyState.RATE_LIMITED and retry_after_ms is not None:
            return min(max(retry_after_ms, policy.retry_after_min_ms), policy.retry_after_max_ms)
        # Bounded before it is computed: a key that is refused for days would shift for ever.
        return min(policy.first_ms(state) << min(times, 32), policy.max_ms(state))

    def _holds(self, key: KeyRef) -> _Holds | None:
        return self._platform if key.owner is None else self._tenants.get(key.owner)

    def _hold(self, service: Service, key: KeyRef, now_ms: int | None = None) -> _Hold | None:
        """The hold-off of a key of this name; one that is long over is dropped."""
        holds = self._holds(key)
        hold = holds.get((service, key.name)) if holds is not None else None
        if hold is not None and now_ms is not None and now_ms >= hold.until_ms + self._policy.forget_ms:
            self._drop(service, key)
            return None
        return hold

    def _keep(self, service: Service, key: KeyRef, hold: _Hold) -> None:
        if key.owner is None:
            holds = self._platform
        else:
            holds = self._tenants.setdefault(key.owner, OrderedDict())
            self._tenants.move_to_end(key.owner)
        holds[service, key.name] = hold
        holds.move_to_end((service, key.name))
        if len(holds) > self._holds_max:
            holds.popitem(last=False)
            self.forgotten += 1
        if len(self._tenants) > self._owners_max:
            self.forgotten += len(self._tenants.popitem(last=False)[1])

    def _drop(self, service: Service, key: KeyRef) -> None:
        holds = self._holds(key)
        if holds is not None:
            holds.pop((service, key.name), None)
            if not holds and key.owner is not None:
                self._tenants.pop(key.owner, None)


def _check(tenant_id: str, steps: Sequence[Step]) -> None:
    if not 1 <= len(steps) <= STEPS_MAX:
        raise BadInput(f"a service has 1 to {STEPS_MAX} steps, not {len(steps)}")
    last = steps[-1]
    if last.origin is not Origin.FALLBACK or last.key is not None:
        raise BadInput("the last step must be a fallback that needs no key")
    for step in steps:
        owner = tenant_id if step.origin is Origin.TENANT else None
        if step.key is not None and step.key.owner != owner:
            raise BadInput(f"{step.label}: the key {step.key.name} is not that of the step's owner")
