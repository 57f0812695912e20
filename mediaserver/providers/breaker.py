"""Circuit breakers: a provider that keeps failing is left out for a while instead of costing every call its budget.

Sans-IO: times come in, in milliseconds of any monotonic clock. Rules:

- CLOSED: requests pass; outcomes of the last ``window_ms`` are kept, ``window_size`` at most. Enough failures, and a large
  enough share of them, open the breaker.
- OPEN: no request passes until ``open_ms`` is over; each failed probe doubles that, up to ``open_max_ms``.
- HALF_OPEN: one request passes at a time, the probe. Its success closes the breaker, its failure opens it again. A
  probe without an outcome (the caller hung up) lets the next request probe.
- Outcomes of requests that began before the breaker last changed its state change nothing: they tell of what was.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from hashlib import blake2b


class Stage(StrEnum):
    """What a provider is asked for."""

    STT = "stt"
    LLM = "llm"
    TTS = "tts"


class State(StrEnum):
    """Whether requests pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Outcome(Enum):
    """What a request says about its provider."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"
    """Nothing: given up by us, or refused for what was in it."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens and for how long."""

    window_ms: int = 60_000
    window_size: int = 20
    min_failures: int = 3
    failure_ratio: float = 0.5
    open_ms: int = 20_000
    """Longer than a turn, or a call that is alone would probe at every sentence, and each probe is a wait."""
    open_max_ms: int = 300_000
    probe_lost_ms: int = 120_000
    """After this long without an outcome a probe counts as lost."""


@dataclass(frozen=True, slots=True)
class BreakerKey:
    """A stage of a provider as one key reaches it. The key itself cannot be had from it."""

    stage: Stage
    provider: str
    """The name that logs and metrics use."""
    fingerprint: str

    @classmethod
    def of(cls, stage: Stage, provider: str, base_url: str, model: str, key: str) -> BreakerKey:
        """The breaker of an API root, a model and a key."""
        digest = blake2b(digest_size=16)
        for part in (base_url, model, key):
            digest.update(len(part).to_bytes(4, "big") + part.encode())
        return cls(stage, provider, digest.hexdigest())


@dataclass(frozen=True, slots=True)
class Permit:
    """A request that was let through; hand it back with its outcome."""

    era: int
    probe: bool


StateChanged = Callable[[BreakerKey, State], None]


class Breaker:
    """One breaker; see the module's docstring."""

    def __init__(
        self, key: BreakerKey, policy: BreakerPolicy, on_change: StateChanged = lambda _key, _state: None
    ) -> None:
        self.key = key
        self._policy = policy
        self._on_change = on_change
        self._state = State.CLOSED
        self._era = 0
        """Counts the changes of state."""
        self._outcomes: deque[tuple[int, bool]] = deque(maxlen=policy.window_size)
        """When, and whether it failed."""
        self._reopened = 0
        self._open_until_ms = 0
        self._probe_since_ms: int | None = None
        self.last_failure_ms: int | None = None

    def state(self, now_ms: int) -> State:
        """The state at this time: an open breaker half-opens by itself."""
        if self._state is State.OPEN and now_ms >= self._open_until_ms:
            self._change(State.HALF_OPEN)
        return self._state

    def passes(self, now_ms: int) -> bool:
        """Whether `begin` would let a request through."""
        match self.state(now_ms):
            case State.CLOSED:
                return True
            case State.OPEN:
                return False
            case State.HALF_OPEN:
                since_ms = self._probe_since_ms
                return since_ms is None or now_ms - since_ms >= self._policy.probe_lost_ms

    def begin(self, now_ms: int, *, anyway: bool = False) -> Permit | None:
        """Let a request through, or None. ``anyway``: there is nobody else to ask; the outcome counts all the same."""
        if not (anyway or self.passes(now_ms)):
            return None
        probe = self.state(now_ms) is State.HALF_OPEN
        if probe:
            self._probe_since_ms = now_ms
        return Permit(self._era, probe)

    def end(self, permit: Permit, outcome: Outcome, now_ms: int) -> None:
        """Take the outcome of a request."""
        if outcome is Outcome.FAILURE:
            self.last_failure_ms = now_ms
        state = self.state(now_ms)
        if permit.era != self._era:
            # Asked although open: its success is as good as a probe's. All else is of another time.
            if outcome is Outcome.SUCCESS and state is State.HALF_OPEN and permit.era == self._era - 1:
                self._close()
            return
        match state:
            case State.CLOSED:
                self._count(outcome, now_ms)
            case State.OPEN:
                if outcome is Outcome.SUCCESS:
                    self._close()
            case State.HALF_OPEN:
                self._probe_since_ms = None
                if outcome is Outcome.SUCCESS:
                    self._close()
                elif outcome is Outcome.FAILURE:
                    self._reopened += 1
                    self._open(now_ms)

    def _count(self, outcome: Outcome, now_ms: int) -> None:
        if outcome is Outcome.NEUTRAL:
            return
        self._outcomes.append((now_ms, outcome is Outcome.FAILURE))
        while self._outcomes[0][0] <= now_ms - self._policy.window_ms:
            self._outcomes.popleft()
        failures = sum(failed for _, failed in self._outcomes)
        if (
            failures >= self._policy.min_failures
            and failures >= self._policy.failure_ratio * len(self._outcomes)
            and outcome is Outcome.FAILURE
        ):
            self._open(now_ms)

    def _open(self, now_ms: int) -> None:
        policy = self._policy
        # Bounded before it is computed: a provider that is down for days would shift for ever.
        doublings = min(self._reopened, 32)
        self._open_until_ms = now_ms + min(policy.open_ms << doublings, policy.open_max_ms)
        self._change(State.OPEN)

    def _close(self) -> None:
        self._reopened = 0
        self._change(State.CLOSED)

    def _change(self, state: State) -> None:
        self._state = state
        self._era += 1
        self._outcomes.clear()
        self._probe_since_ms = None
        self._on_change(self.key, state)


class Breakers:
    """The breakers of a process, the least recently used out first; one that comes back anew is closed."""

    def __init__(
        self,
        policy: BreakerPolicy | None = None,
        limit: int = 4_096,
        on_change: StateChanged = lambda _key, _state: None,
    ) -> None:
        self._policy = policy or BreakerPolicy()
        self._limit = limit
        self._on_change = on_change
        self._breakers: OrderedDict[BreakerKey, Breaker] = OrderedDict()

    def __len__(self) -> int:
        return len(self._breakers)

    def of(self, key: BreakerKey) -> Breaker:
        """The breaker of a key."""
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._breakers[key] = Breaker(key, self._policy, self._on_change)
            if len(self._breakers) > self._limit:
                self._breakers.popitem(last=False)
        else:
            self._breakers.move_to_end(key)
        return breaker

    def open_now(self, now_ms: int) -> int:
        """How many let nothing through."""
        return sum(breaker.state(now_ms) is State.OPEN for breaker in self._breakers.values())


def least_recently_failed(breakers: Iterable[Breaker]) -> Breaker:
    """Whom to ask when all are open: the one whose last failure is the longest ago."""
    return min(
        breakers, key=lambda breaker: -1 if breaker.last_failure_ms is None else breaker.last_failure_ms
    )
