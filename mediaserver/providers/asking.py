"""A chain of providers asked for one piece of work after another: the asyncio shell of `hedge` and `breaker`.

Every request runs in a task of its own, which alone touches the provider's stream: streams of HTTP clients must be closed
where they are read. The tasks belong to the one `Chain.ask` that started them and end with it, whatever ends it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Generic, TypeVar, assert_never

from loguru import logger

from mediaserver.errors import FailureCause, ProviderFailed
from mediaserver.providers.breaker import (
    BreakerKey,
    BreakerPolicy,
    Breakers,
    Outcome,
    Permit,
    Stage,
    State,
    least_recently_failed,
)
from mediaserver.providers.failures import failure_of, key_outcome
from mediaserver.providers.hedge import Action, Ask, Drop, Entrant, Fail, GiveUp, Race, Terms
from mediaserver.providers.key_watch import KeyReport, KeyWatch
from mediaserver.providers.stats import ProviderStats
from mediaserver.providers.trail import Happened, Passed, ProviderTrail, Reason
from vault.resolver import KeyRef
from vault.resolver import Outcome as KeyOutcome

Q = TypeVar("Q")
T = TypeVar("T")

INBOX_PIECES = 8
"""Pieces that wait for whoever takes the answer; a provider that is faster is held back by its own connection."""
STOP_S = 1.0
"""How long cancelled requests may take to end before the call goes on without having seen it."""
NEUTRAL_CAUSES = frozenset({FailureCause.REJECTED, FailureCause.EMPTY})
"""Failures that another request to the same provider need not have."""


@dataclass(frozen=True, slots=True)
class ProviderCare:
    """What the calls of a process know together about providers. Nothing in it says whose calls they were."""

    stats: ProviderStats
    breakers: Breakers
    keys: KeyWatch = field(default_factory=KeyWatch)
    trail: ProviderTrail | None = None
    """One call's alone: None where it is no call's."""

    def note(self, stage: Stage, provider: str, happened: Happened, reason: Reason = None) -> None:
        """What became of a provider, for the call's record."""
        if self.trail is not None:
            self.trail.note(stage, provider, happened, reason)

    def passed(self, stage: Stage, provider: str, why: Passed) -> None:
        """A provider was not asked."""
        self.stats.skipped(stage, provider)
        self.note(stage, provider, Happened.NOT_ASKED, why)

    def failed(self, stage: Stage, provider: str, cause: FailureCause) -> None:
        """A request failed."""
        self.stats.failed(stage, provider, cause)
        self.note(stage, provider, Happened.FAILED, cause)

    @classmethod
    def fresh(cls, policy: BreakerPolicy | None = None) -> ProviderCare:
        """With every breaker closed and every counter at zero."""
        stats = ProviderStats()
        return cls(stats, Breakers(policy, on_change=stats.breaker_changed))


@dataclass(frozen=True, slots=True)
class Link(Generic[Q, T]):
    """A provider of a chain."""

    name: str
    ask: Callable[[Q], AsyncGenerator[T, None]]
    """The answer in pieces, each of which has content; raises anything."""
    breaker: BreakerKey | None = None
    """None: it cannot fail (the built-in receptionist)."""
    last_resort: bool = False
    """Asked after failures only: it costs this machine's processors, or answers worse."""
    key: KeyRef | None = None
    """The key that it is asked with, where what its provider says of that is kept."""


@dataclass(frozen=True, slots=True)
class Piece(Generic[T]):
    """A piece of the answer of the provider at ``position``."""

    position: int
    item: T


@dataclass(frozen=True, slots=True)
class Failed:
    """A provider failed. Pieces of it that came before are all that there is of its answer."""

    position: int
    failure: ProviderFailed
    more: bool
    """Whether another is asked, or will be."""


@dataclass(frozen=True, slots=True)
class _End:
    """The pump of a request has come to its answer's end, or failed."""

    failure: ProviderFailed | None = None


@dataclass(slots=True)
class _Request(Generic[T]):
    """A request in flight."""

    position: int
    hedge: bool
    asked_ms: int
    permit: Permit | None
    task: asyncio.Task[None]
    begun: bool = False


_Event = tuple["_Request[T]", T | _End]


class Chain(Generic[Q, T]):
    """The providers of one stage of one call."""

    def __init__(self, stage: Stage, links: Sequence[Link[Q, T]], care: ProviderCare, terms: Terms) -> None:
        self._stage = stage
        self._links = tuple(links)
        self._care = care
        self._terms = terms
        self._known_good: set[int] = set()
        """Positions whose key has served this call and was not refused since."""

    async def ask(self, question: Q) -> AsyncGenerator[Piece[T] | Failed, None]:
        """Ask until one has answered; close it to give up. It ends without a piece when nobody could answer."""
        errand = _Errand(self._stage, self._links, self._care, self._terms, question, self._known_good)
        try:
            async with aclosing(errand.run()) as course:
                async for told in course:
                    yield told
        finally:
            await errand.close()


@dataclass(slots=True)
class _Errand(Generic[Q, T]):
    """One piece of work under way."""

    stage: Stage
    links: tuple[Link[Q, T], ...]
    care: ProviderCare
    terms: Terms
    question: Q
    known_good: set[int]
    _race: Race = field(init=False)
    _in_flight: dict[int, _Request[T]] = field(init=False, default_factory=dict)
    _inbox: asyncio.Queue[_Event[T]] = field(init=False)
    _forced: int | None = field(init=False, default=None)
    """The position that is asked although its breaker is open."""
    _told: deque[Failed] = field(init=False, default_factory=deque)
    _stopping: set[asyncio.Task[None]] = field(init=False, default_factory=set)
    """Cancelled and not yet seen to end."""

    def __post_init__(self) -> None:
        self._inbox = asyncio.Queue(INBOX_PIECES)
        self._race = Race(self._entrants(), self.terms)

    async def run(self) -> AsyncGenerator[Piece[T] | Failed, None]:
        race = self._race
        self._do(race.begin(_now_ms()))
        while True:
            while self._told:
                yield self._told.popleft()
            if race.over:
                return
            event = await self._next_event()
            if event is None:
                self._do(race.poll(_now_ms()))
                continue
            request, item = event
            if self._in_flight.get(request.position) is not request:
                continue  # Dropped meanwhile.
            if isinstance(item, _End):
                self._ended(request, item)
                continue
            actions = race.delivered(request.position, _now_ms())
            if not request.begun:
                self._do(actions)
                self._count_first(request)
            yield Piece(request.position, item)
            now_ms = _now_ms()
            race.resumed(now_ms)
            if now_ms >= request.asked_ms + self.terms.total_ms:
                # Pieces that keep coming must not keep the answer's own limit from being noticed.
                self._do(race.poll(now_ms))

    async def close(self) -> None:
        """End what is in flight; the caller has spoken, or there is enough."""
        for request in list(self._in_flight.values()):
            self._abandon(request, Outcome.SUCCESS if request.begun else Outcome.NEUTRAL)
        if self._stopping:
            _, late = await asyncio.wait(self._stopping, timeout=STOP_S)
            if late:
                logger.warning("{} requests to providers did not end when cancelled", len(late))

    # -- what the race asks for -----------------------------------------------------------------------

    def _do(self, actions: Sequence[Action]) -> None:
        pending = deque(actions)
        while pending:
            action = pending.popleft()
            match action:
                case Ask():
                    if not self._send(action):
                        pending.extend(self._race.failed(action.position, _now_ms()))
                case Fail():
                    request = self._in_flight[action.position]
                    self._stop(request)
                    self._tell(request, ProviderFailed(self._name(request), action.why, action.cause))
                case Drop():
                    request = self._in_flight[action.position]
                    if action.slow:
                        # Otherwise a silent provider would cost every turn the hedge's wait, and never be left out.
                        self.care.failed(self.stage, self._name(request), FailureCause.SLOW)
                        self._settle(request, Outcome.FAILURE)
                        self._stop(request)
                    else:
                        self._abandon(request, Outcome.NEUTRAL)
                case GiveUp():
                    pass
                case _:
                    assert_never(action)

    def _send(self, ask: Ask) -> bool:
        """Send a request; False when a breaker has closed its door since the race began."""
        link, now_ms = self.links[ask.position], _now_ms()
        permit = None
        if link.breaker is not None:
            breaker = self.care.breakers.of(link.breaker)
            permit = breaker.begin(now_ms, anyway=ask.position == self._forced)
            if permit is None:
                self.care.passed(self.stage, link.name, Passed.BREAKER)
                return False
        self.care.stats.asked(self.stage, link.name, hedge=ask.hedge)
        request: _Request[T]
        task = asyncio.get_running_loop().create_task(
            self._pump(link, lambda: request), name=f"{self.stage}-request"
        )
        request = _Request(ask.position, ask.hedge, now_ms, permit, task)
        self._in_flight[ask.position] = request
        return True

    async def _pump(self, link: Link[Q, T], whose: Callable[[], _Request[T]]) -> None:
        """Carry one provider's answer into the inbox, and close its stream."""
        request = whose()
        answer = link.ask(self.question)
        end = _End()
        try:
            async for item in answer:
                await self._inbox.put((request, item))
        except Exception as error:  # noqa: BLE001 - a stranger's answer in somebody else's library may raise anything
            end = _End(failure_of(link.name, error))
        finally:
            await answer.aclose()
        await self._inbox.put((request, end))

    async def _next_event(self) -> _Event[T] | None:
        """The next event, or None when the race is due. What is there already comes first."""
        if not self._inbox.empty():
            return self._inbox.get_nowait()
        deadline_ms = self._race.deadline_ms
        if deadline_ms is None:
            return await self._inbox.get()
        try:
            async with asyncio.timeout_at(deadline_ms / 1000):
                return await self._inbox.get()
        except TimeoutError:
            return None

    # -- how requests end -----------------------------------------------------------------------------

    def _ended(self, request: _Request[T], end: _End) -> None:
        failure = end.failure
        if failure is None and not request.begun:
            failure = ProviderFailed(self._name(request), "an empty answer", FailureCause.EMPTY)
        del self._in_flight[request.position]
        if failure is None:
            self._race.finished(request.position)
            self.care.stats.answered(self.stage, self._name(request))
            self._settle(request, Outcome.SUCCESS)
            return
        actions = self._race.failed(request.position, _now_ms())
        self._tell(request, failure)
        self._do(actions)

    def _tell(self, request: _Request[T], failure: ProviderFailed) -> None:
        self.care.failed(self.stage, failure.provider, failure.cause)
        self._report_refusal(request, failure)
        self._settle(request, Outcome.NEUTRAL if failure.cause in NEUTRAL_CAUSES else Outcome.FAILURE)
        self._told.append(Failed(request.position, failure, self._race.more))

    def _abandon(self, request: _Request[T], outcome: Outcome) -> None:
        self.care.stats.abandoned(self.stage, self._name(request))
        self._settle(request, outcome)
        self._stop(request)

    def _stop(self, request: _Request[T]) -> None:
        """Cancel a request; `close` sees it end, so that nobody waits for it before the next is asked."""
        self._in_flight.pop(request.position, None)
        request.task.cancel()
        self._stopping.add(request.task)

    def _settle(self, request: _Request[T], outcome: Outcome) -> None:
        key = self.links[request.position].breaker
        if key is not None and request.permit is not None:
            self.care.breakers.of(key).end(request.permit, outcome, _now_ms())

    def _count_first(self, request: _Request[T]) -> None:
        request.begun = True
        if request.position not in self.known_good:
            self.known_good.add(request.position)
            self._report_key(request, KeyOutcome.SUCCEEDED)
        latency_ms = _now_ms() - request.asked_ms
        self.care.stats.first_piece(self.stage, self._name(request), latency_ms, hedge=request.hedge)
        self.care.note(self.stage, self._name(request), Happened.SERVED)

    def _report_refusal(self, request: _Request[T], failure: ProviderFailed) -> None:
        if (outcome := key_outcome(failure.cause)) is None:
            return
        self.known_good.discard(request.position)
        retry_after_ms = None if failure.retry_after_s is None else int(failure.retry_after_s * 1000)
        self._report_key(request, outcome, retry_after_ms)

    def _report_key(
        self, request: _Request[T], outcome: KeyOutcome, retry_after_ms: int | None = None
    ) -> None:
        key, now_ms = self.links[request.position].key, _now_ms()
        if key is not None:
            report = KeyReport(self.stage, key, outcome, now_ms - request.asked_ms, retry_after_ms)
            self.care.keys.report(report, now_ms)

    def _name(self, request: _Request[T]) -> str:
        return self.links[request.position].name

    # -- who takes part -------------------------------------------------------------------------------

    def _entrants(self) -> list[Entrant]:
        """Everybody whose breaker lets a request through and whose key is not held off.

        If nobody's breaker does, whoever failed the longest ago.
        """
        now_ms = _now_ms()
        entrants = []
        shut = {}
        for position, link in enumerate(self.links):
            if self.care.keys.held_off(self.stage, link.key, now_ms):
                self.care.passed(self.stage, link.name, Passed.KEY)
                continue
            breaker = self.care.breakers.of(link.breaker) if link.breaker is not None else None
            if breaker is not None and not breaker.passes(now_ms):
                shut[breaker] = position
                continue
            probe = breaker is not None and breaker.state(now_ms) is State.HALF_OPEN
            entrants.append(Entrant(position, not link.last_resort, probe))
        if not entrants and shut:
            self._forced = shut.pop(least_recently_failed(shut))
            entrants = [Entrant(self._forced, hedged=False)]
        for position in shut.values():
            self.care.passed(self.stage, self.links[position].name, Passed.BREAKER)
        return entrants


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)
