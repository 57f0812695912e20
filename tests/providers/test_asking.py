"""Chains asked in virtual time: what reaches the stage, who was in flight, what breakers and counters make of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.errors import FailureCause
from mediaserver.providers.asking import Chain, Failed, Link, Piece, ProviderCare
from mediaserver.providers.breaker import BreakerKey, BreakerPolicy, Stage, State
from mediaserver.providers.hedge import MAX_IN_FLIGHT, Terms
from tests.sim.virtual_time import run_virtually

TERMS = Terms(first_ms=1_000, stall_ms=500, total_ms=10_000, hedge_ms=400)
NEVER = 10**6


@dataclass
class Provider:
    """Answers with ``pieces`` after ``first_ms`` and then every ``every_ms``; may raise at the end."""

    name: str
    first_ms: int = 0
    pieces: int = 2
    every_ms: int = 0
    error: Exception | None = None
    asked: int = 0
    running: int = 0
    others: list[Provider] = field(default_factory=list)
    most: int = 0

    async def ask(self, _: str) -> AsyncGenerator[str, None]:
        self.asked += 1
        self.running += 1
        self.most = max(self.most, self.running + sum(other.running for other in self.others))
        try:
            await asyncio.sleep(self.first_ms / 1000)
            for number in range(self.pieces):
                yield f"{self.name}{number}"
                await asyncio.sleep(self.every_ms / 1000)
            if self.error is not None:
                raise self.error
        finally:
            self.running -= 1

    def link(self, *, last_resort: bool = False) -> Link[str, str]:
        key = BreakerKey.of(Stage.LLM, self.name, "https://example", self.name, "sk-canary")
        return Link(self.name, self.ask, key, last_resort=last_resort)


def chain_of(*providers: Provider, care: ProviderCare | None = None, terms: Terms = TERMS) -> Chain[str, str]:
    return Chain(Stage.LLM, [one.link() for one in providers], care or ProviderCare.fresh(), terms)


async def told(chain: Chain[str, str]) -> list[str]:
    """What the stage is told: pieces, and failures by name and cause."""
    found = []
    async with aclosing(chain.ask("question")) as answer:
        async for one in answer:
            if isinstance(one, Piece):
                found.append(one.item)
            else:
                assert isinstance(one, Failed)
                found.append(f"{one.failure.provider}:{one.failure.cause}")
    return found


def test_a_slow_first_is_hedged_and_what_comes_first_is_the_answer() -> None:
    slow, quick = Provider("a", first_ms=900), Provider("b", first_ms=100)
    care = ProviderCare.fresh()
    assert run_virtually(told(chain_of(slow, quick, care=care))) == ["b0", "b1"]
    figures = care.stats.snapshot().providers
    assert figures[Stage.LLM, "a"].failures == {FailureCause.SLOW: 1}
    assert figures[Stage.LLM, "b"].hedges_started == figures[Stage.LLM, "b"].hedges_won == 1
    assert (figures[Stage.LLM, "b"].first_ms.count, figures[Stage.LLM, "b"].first_ms.sum_ms) == (1, 100)
    assert slow.running == quick.running == 0


def test_a_first_that_answers_after_all_is_kept_and_the_hedge_dropped() -> None:
    first, hedge = Provider("a", first_ms=600), Provider("b", first_ms=500)
    care = ProviderCare.fresh()
    assert run_virtually(told(chain_of(first, hedge, care=care))) == ["a0", "a1"]
    figures = care.stats.snapshot().providers[Stage.LLM, "b"]
    assert (figures.hedges_started, figures.hedges_won, figures.abandoned) == (1, 0, 1)
    assert not figures.failures


def test_silence_is_a_failure_like_any_other() -> None:
    silent = Provider("a", first_ms=NEVER)
    refusing = Provider("b", pieces=0, error=ConnectionRefusedError("sk-canary"))
    assert run_virtually(told(chain_of(silent, refusing, Provider("c")))) == [
        "b:unreachable",
        "c0",
        "c1",
    ]
    assert run_virtually(told(chain_of(silent, refusing))) == ["b:unreachable", "a:timeout"]


def test_an_answer_that_breaks_off_is_followed_by_the_next_providers() -> None:
    broken = Provider("a", pieces=1, error=ConnectionResetError())
    assert run_virtually(told(chain_of(broken, Provider("b", pieces=1)))) == ["a0", "a:reset", "b0"]
    stalled = Provider("a", pieces=2, every_ms=NEVER)
    assert run_virtually(told(chain_of(stalled, Provider("b", pieces=1)))) == ["a0", "a:stall", "b0"]
    empty = Provider("a", pieces=0)
    assert run_virtually(told(chain_of(empty, Provider("b", pieces=1)))) == ["a:empty", "b0"]
    odd = Provider("a", pieces=0, error=AttributeError("'str' object has no attribute 'choices'"))
    assert run_virtually(told(chain_of(odd, Provider("b", pieces=1)))) == ["a:garbage", "b0"]


def test_an_answer_that_never_ends_is_ended() -> None:
    drip = Provider("a", pieces=10_000, every_ms=400)
    heard = run_virtually(told(chain_of(drip)))
    assert heard[-1] == "a:stall"
    assert len(heard) == 27
    flood = Provider("a", pieces=10_000)

    async def taken_slowly() -> list[str]:
        found = []
        async with aclosing(chain_of(flood).ask("question")) as answer:
            async for one in answer:
                found.append(one.item if isinstance(one, Piece) else str(one.failure.cause))
                await asyncio.sleep(0.1)
        return found

    heard = run_virtually(taken_slowly())
    assert heard[-1] == "stall"
    assert len(heard) < 120


def test_an_open_breaker_costs_no_wait_and_a_probe_half_the_budget() -> None:
    care = ProviderCare.fresh(BreakerPolicy(min_failures=2, open_ms=60_000))
    silent, good = Provider("a", first_ms=NEVER), Provider("b")
    links = [silent.link(), good.link(last_resort=True)]
    chain = Chain(Stage.LLM, links, care, TERMS)

    async def course() -> None:
        loop = asyncio.get_running_loop()
        waits = []
        for pause_s in (0, 0, 0, 60, 0):
            await asyncio.sleep(pause_s)
            begun = loop.time()
            await told(chain)
            waits.append(round(loop.time() - begun, 3))
        assert waits == [1.0, 1.0, 0.0, 0.5, 0.0]

    run_virtually(course())
    snapshot = care.stats.snapshot()
    assert snapshot.providers[Stage.LLM, "a"].skipped == 2
    assert snapshot.breaker_changes == {(Stage.LLM, State.OPEN): 2, (Stage.LLM, State.HALF_OPEN): 1}


def test_when_all_are_open_the_least_recently_failed_is_asked() -> None:
    care = ProviderCare.fresh(BreakerPolicy(min_failures=1, open_ms=60_000))
    first = Provider("a", pieces=0, error=ConnectionResetError())
    second = Provider("b", pieces=0, error=ConnectionResetError())

    async def course() -> None:
        assert await told(chain_of(second, care=care)) == ["b:reset"]
        await asyncio.sleep(1)
        assert await told(chain_of(first, care=care)) == ["a:reset"]
        second.pieces, second.error = 1, None
        assert await told(chain_of(first, second, care=care)) == ["b0"]
        # Its success has closed it.
        assert await told(chain_of(first, second, care=care)) == ["b0"]

    run_virtually(course())
    assert first.asked == 1


def test_a_silent_first_that_is_always_hedged_is_left_out_in_the_end() -> None:
    care = ProviderCare.fresh()
    silent, good = Provider("a", first_ms=NEVER), Provider("b")
    chain = chain_of(silent, good, care=care)

    async def course() -> list[list[str]]:
        return [await told(chain) for _ in range(4)]

    assert run_virtually(course()) == [["b0", "b1"]] * 4
    assert silent.asked == 3


def test_giving_up_ends_everything_and_is_nobodys_failure() -> None:
    care = ProviderCare.fresh()
    first, second = Provider("a", first_ms=NEVER), Provider("b", first_ms=NEVER)
    chain = chain_of(first, second, care=care)

    async def course() -> None:
        task = asyncio.create_task(told(chain))
        await asyncio.sleep(0.5)
        assert (first.running, second.running) == (1, 1)
        task.cancel()
        await asyncio.wait([task])
        assert (first.running, second.running) == (0, 0)

    run_virtually(course())
    figures = care.stats.snapshot().providers
    assert all(not one.failures and one.abandoned == 1 for one in figures.values())


PROVIDERS = st.lists(
    st.builds(
        Provider,
        st.just("p"),
        first_ms=st.sampled_from([0, 100, 399, 400, 401, 900, 1_000, NEVER]),
        pieces=st.integers(0, 3),
        every_ms=st.sampled_from([0, 10, 499, NEVER]),
        error=st.sampled_from([None, ConnectionResetError(), ValueError("x"), OSError()]),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(PROVIDERS, st.booleans())
def test_any_chain_is_over_within_its_budgets_and_leaves_nothing_behind(
    providers: list[Provider], hedged: bool
) -> None:
    for number, one in enumerate(providers):
        one.name = f"p{number}_"
        one.others = [other for other in providers if other is not one]
    care = ProviderCare.fresh()
    terms = TERMS if hedged else Terms(1_000, 500, 10_000)

    async def course() -> float:
        begun = asyncio.get_running_loop().time()
        await told(chain_of(*providers, care=care, terms=terms))
        return asyncio.get_running_loop().time() - begun

    took_s = run_virtually(course())
    assert took_s <= 2 * len(providers) * (1.0 + 3 * 0.5) + 0.1
    assert all(one.running == 0 for one in providers)
    assert max(one.most for one in providers) <= MAX_IN_FLIGHT
    for figures in care.stats.snapshot().providers.values():
        ends = figures.answered + figures.abandoned + sum(figures.failures.values())
        assert ends == figures.requests
