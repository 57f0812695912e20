"""What calls cost: the arithmetic, whose price is missing, and that no bound on cost is kept without prices."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from config.canonical import canonical_json
from config.node import PlatformProviders
from config.tenant import MAX_USD, Price, Providers, TenantConfig
from tenancy import ChangeRefused, Registry
from tenancy.canary import Bound, CallOutcome, Canary, CanaryPlan, Decision, Metric
from tenancy.lifecycle import Lifecycle
from tenancy.providers import resolve
from tenancy.spending import FREE, MAX_PROVIDERS, CallUsage, Usage, cost_of, prices_of, unpriced
from tests.tenancy.conftest import tenant

COUNTS = st.integers(0, 10_000_000)
USD = st.floats(0.0, MAX_USD, allow_nan=False)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.booleans())
PRICES = st.builds(
    Price,
    usd_per_million_input_tokens=USD,
    usd_per_million_cached_input_tokens=USD,
    usd_per_million_output_tokens=USD,
    usd_per_minute=USD,
    usd_per_million_characters=USD,
)
SERVICES = st.sampled_from(("stt", "llm", "tts"))
MODEL = {"usd_per_million_input_tokens": 0.4, "usd_per_million_output_tokens": 1.6}


def cost(service: str, usage: Usage, price: Price | None) -> Fraction:
    found = cost_of(service, usage, price)
    assert found is not None
    return found


@given(SERVICES, USAGES, USAGES, PRICES)
def test_requests_cost_together_what_they_cost_one_by_one(
    service: str, one: Usage, other: Usage, price: Price
) -> None:
    # As providers have it: what is cached is some of the input.
    one, other = (
        Usage(each.input_tokens, min(each.cached_input_tokens, each.input_tokens), each.output_tokens,
              each.audio_ms, each.characters)
        for each in (one, other)
    )  # fmt: skip
    assert cost(service, one + other, price) == cost(service, one, price) + cost(service, other, price)


@given(SERVICES, USAGES, PRICES)
def test_nothing_costs_nothing_and_more_never_costs_less(service: str, usage: Usage, price: Price) -> None:
    assert cost(service, Usage(), price) == 0
    assert cost(service, usage, FREE) == 0
    found = cost(service, usage, price)
    assert found >= 0
    for more in (Usage(input_tokens=1), Usage(output_tokens=1), Usage(audio_ms=1), Usage(characters=1)):
        assert cost(service, usage + more, price) >= found


@given(st.lists(st.tuples(SERVICES, st.sampled_from("abc"), USAGES), max_size=12), PRICES, st.randoms())
def test_the_order_of_requests_does_not_matter_and_a_call_is_rounded_once(
    requests: list[tuple[str, str, Usage]], price: Price, random: object
) -> None:
    prices: dict[tuple[str, str], Price | None] = {
        (service, provider): price for service in ("stt", "llm", "tts") for provider in "abc"
    }
    one, other = CallUsage(), CallUsage()
    for each in requests:
        one.add(*each)
    random.shuffle(requests)  # type: ignore[attr-defined] # hypothesis gives a random.Random
    for each in requests:
        other.add(*each)
    micros = one.cost_micros(prices)
    assert micros == other.cost_micros(prices)
    assert micros is not None
    exact = sum((cost(service, used, price) for (service, _), used in one.of.items()), Fraction(0))
    assert abs(micros - exact) <= Fraction(1, 2)
    assert one.estimated == any(usage.estimated for _, _, usage in requests)


def test_prices_are_the_decimals_that_are_written() -> None:
    price = Price(
        usd_per_million_input_tokens=0.1,
        usd_per_million_output_tokens=0.3,
        usd_per_minute=0.0043,
        usd_per_million_characters=15.0,
    )
    assert cost("llm", Usage(input_tokens=30, output_tokens=10), price) == 6
    # 0.1 and 0.3 are no binary numbers: added up as such, thirty and ten of them are no whole number.
    assert cost("stt", Usage(audio_ms=90_000), price) == Fraction(Decimal("6450"))
    assert cost("tts", Usage(characters=100, audio_ms=60_000), price) == 1_500 + 4_300
    only = Price(usd_per_million_characters=15.0)
    assert cost("tts", Usage(characters=100, audio_ms=60_000), only) == 1_500
    cached = Price(**MODEL, usd_per_million_cached_input_tokens=0.1)
    assert cost("llm", Usage(1_000, 400, 0), cached) == 600 * Fraction("0.4") + 40
    assert cost("llm", Usage(1_000, 400, 0), Price(**MODEL)) == 400


def test_what_has_no_price_makes_the_cost_unknown_once_it_is_used() -> None:
    spent = CallUsage()
    assert spent.cost_micros({}) == 0
    spent.add("stt", "ours", Usage(audio_ms=60_000))
    prices: dict[tuple[str, str], Price | None] = {
        ("stt", "ours"): Price(usd_per_minute=0.01),
        ("llm", "x"): None,
    }
    assert spent.cost_micros(prices) == 10_000
    spent.add("llm", "x", Usage(input_tokens=1))
    assert spent.cost_micros(prices) is None
    assert cost_of("llm", Usage(), Price(usd_per_million_input_tokens=1.0)) is None
    assert cost_of("stt", Usage(), Price(usd_per_million_characters=1.0)) is None
    assert cost_of("tts", Usage(), Price(**MODEL)) is None


def test_a_call_s_providers_are_bounded_and_past_that_its_cost_is_unknown() -> None:
    spent = CallUsage()
    for n in range(MAX_PROVIDERS + 5):
        spent.add("llm", f"p{n}", Usage(input_tokens=1))
    assert len(spent.of) == MAX_PROVIDERS
    assert spent.cost_micros(dict.fromkeys(spent.of, FREE)) is None


def providers(**chains: object) -> Providers:
    return Providers.model_validate(chains)


def step(model: str = "m", /, **price: float) -> dict[str, object]:
    return {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": model} | (
        {"price": price} if price else {}
    )


def test_resolved_steps_have_their_prices() -> None:
    config = providers(llm=[step("dear", **MODEL), step("twice", **MODEL), step("twice"), step("none")])
    chains = resolve(config, PlatformProviders(), {})
    prices = prices_of(chains.stt, chains.llm, chains.tts)
    assert prices["llm", "tenant:127.0.0.1:9/dear"] == Price(**MODEL)
    # One name, two prices: which of them was asked is not known.
    assert prices["llm", "tenant:127.0.0.1:9/twice"] is None
    assert prices["llm", "tenant:127.0.0.1:9/none"] is None
    assert prices["stt", "embedded"] == FREE


@pytest.mark.parametrize(
    ("service", "price", "why"),
    [
        (
            "stt",
            {"usd_per_million_characters": 1.0},
            "stt.0.price: transcription is charged by usd_per_minute",
        ),
        ("llm", {"usd_per_million_input_tokens": 1.0}, "llm.0.price: a language model is charged by"),
        ("llm", {**MODEL, "usd_per_minute": 1.0}, "llm.0.price: a language model is charged by"),
        ("tts", MODEL, "tts.0.price: speech is charged by usd_per_million_characters or usd_per_minute"),
        ("tts", {"usd_per_minute": -1.0}, "greater than or equal to 0"),
        ("tts", {"usd_per_minute": float("nan")}, "should be a finite number"),
        ("tts", {"usd_per_second": 1.0}, "Extra inputs are not permitted"),
    ],
)
def test_a_price_that_fits_its_service_not_is_refused_with_the_field(
    service: str, price: dict[str, float], why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        providers(**{service: [step(**price)]})
    if "extra" not in why.lower():
        with pytest.raises(ValidationError, match=why):
            PlatformProviders.model_validate({service: [step(**price)]})


def test_a_configuration_without_prices_is_the_document_that_it_was() -> None:
    config = tenant().model_dump(mode="json") | {"providers": {"llm": [step()]}}
    assert b"price" not in canonical_json(TenantConfig.model_validate(config))


def test_who_has_no_price_is_named() -> None:
    config = providers(
        stt=[{"kind": "deepgram", "price": {"usd_per_minute": 0.0043}}, step("whisper")],
        llm=[step("gpt", **MODEL)],
    )
    platform = PlatformProviders.model_validate({"tts": [step("voice")]})
    assert unpriced(config, platform, {}) == (
        "providers.stt.1 (whisper)", "the platform's providers.tts.0 (voice)",
    )  # fmt: skip
    assert "OPENAI_API_KEY is set" in unpriced(config, platform, {"OPENAI_API_KEY": "k"})[-1]
    alone = config.model_copy(update={"use_platform": False})
    assert unpriced(alone, platform, {"OPENAI_API_KEY": "k"}) == ("providers.stt.1 (whisper)",)
    assert unpriced(providers(), PlatformProviders(), {}) == ()


async def test_a_bound_on_cost_without_prices_is_refused_and_named(sqlite_registry: Registry) -> None:
    lifecycle: Lifecycle = sqlite_registry.lifecycle
    origin = lifecycle.origin("ada", "try it")
    await sqlite_registry.import_tenant(tenant("a"), author="op", reason="first")

    async def tried(**price: float) -> None:
        document = tenant("a").model_dump(mode="json") | {"providers": {"llm": [step(**price)]}}
        drafted = await lifecycle.draft(TenantConfig.model_validate(document), origin)
        plan = CanaryPlan(version=drafted.version, baseline=1, cost=Bound(relative=0.25))
        await lifecycle.begin_trial("a", plan, origin)

    with pytest.raises(ChangeRefused, match=r"no price is stated for providers\.llm\.0 \(m\)"):
        await tried()
    assert (await lifecycle.ledger("a")).trial is None
    await tried(**MODEL)
    assert (await lifecycle.ledger("a")).trial is not None


@given(st.integers(0, 400), st.integers(500, 1_000))
def test_a_dearer_version_is_rolled_back_for_its_cost_and_calls_of_unknown_cost_show_nothing(
    before: int, after: int
) -> None:
    plan = CanaryPlan(
        version=2, baseline=1, failures=None, transfers=None, turn_latency=None,
        cost=Bound(relative=0.1), cost_cap_micros=1_000,
    )  # fmt: skip
    trial = Canary(plan, 0)
    for n in range(400):
        trial = trial.observe(CallOutcome(1, cost_micros=before, cost_estimated=True), n)
        trial = trial.observe(CallOutcome(2, cost_micros=after), n)
        trial = trial.observe(CallOutcome(2), n)
    assert trial.verdict is not None
    assert (trial.decision, trial.verdict.metric) == (Decision.ROLL_BACK, Metric.COST)
    assert trial.baseline.estimated_costs == trial.baseline.cost.n
    assert trial.canary.estimated_costs == 0
    assert trial.canary.calls >= trial.canary.cost.n
