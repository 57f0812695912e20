"""What a call has used of its providers, and what that costs at the prices that their configuration states. Sans-IO.

Rules:

- a request counts unless it failed before the first piece of its answer: one that we gave up is worked on by the provider all
  the same, and most charge for it;
- what a provider does not say it used is estimated, and marked so;
- the models of this machine cost nothing; a provider without a price makes the call's cost unknown, as soon as it is used;
- a price per million is a millionth of the currency apiece: amounts are added up exactly, and rounded once, at the call's end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from config.node import PlatformProviders
from config.tenant import Embedded, Listener, Price, Provider, Providers
from tenancy.providers import OPENAI_KEY, ResolvedProvider

MICROS: Final = 1_000_000
MS_PER_MINUTE: Final = 60_000
MAX_PROVIDERS: Final = 64
"""Of one call; its chains have fewer."""
FREE: Final = Price(
    usd_per_million_input_tokens=0.0,
    usd_per_million_output_tokens=0.0,
    usd_per_minute=0.0,
    usd_per_million_characters=0.0,
)
"""What this machine's own models cost."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used of one provider, in one request or in many."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    """Those of the input that the provider had kept from before."""
    output_tokens: int = 0
    audio_ms: int = 0
    """Heard, or spoken."""
    characters: int = 0
    """Of texts that were to be spoken."""
    estimated: bool = False
    """Whether some of it is not the provider's own figure."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.output_tokens + other.output_tokens,
            self.audio_ms + other.audio_ms,
            self.characters + other.characters,
            self.estimated or other.estimated,
        )


Used = tuple[str, str]
"""A service (``stt``, ``llm``, ``tts``) and the name of a provider (`ResolvedProvider.name`)."""


@dataclass(slots=True)
class CallUsage:
    """All that a call has used."""

    of: dict[Used, Usage] = field(default_factory=dict)
    complete: bool = True
    """False: there were more than `MAX_PROVIDERS`."""

    def add(self, service: str, provider: str, usage: Usage) -> None:
        """Count one request, or several."""
        key = service, provider
        if key not in self.of and len(self.of) >= MAX_PROVIDERS:
            self.complete = False
            return
        self.of[key] = self.of.get(key, Usage()) + usage

    @property
    def estimated(self) -> bool:
        """Whether some of it is estimated."""
        return any(each.estimated for each in self.of.values())

    def cost_micros(self, prices: Mapping[Used, Price | None]) -> int | None:
        """In millionths of a US dollar, rounded half to even; None: something was used whose price is not known."""
        if not self.complete:
            return None
        total = Fraction(0)
        for (service, provider), usage in self.of.items():
            cost = cost_of(service, usage, prices.get((service, provider)))
            if cost is None:
                return None
            total += cost
        return round(total)


def cost_of(service: str, usage: Usage, price: Price | None) -> Fraction | None:
    """What was used of one provider, in millionths of a US dollar; None where its price does not say."""
    if price is None:
        return None
    match service:
        case "stt":
            return _per_minute(usage.audio_ms, price.usd_per_minute)
        case "llm":
            return _tokens(usage, price)
        case "tts":
            parts = (
                _each(usage.characters, price.usd_per_million_characters),
                _per_minute(usage.audio_ms, price.usd_per_minute),
            )
            stated = [part for part in parts if part is not None]
            return sum(stated, Fraction(0)) if stated else None
        case _:
            return None


def _tokens(usage: Usage, price: Price) -> Fraction | None:
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    cached_price = price.usd_per_million_cached_input_tokens
    parts = (
        _each(usage.input_tokens - cached, price.usd_per_million_input_tokens),
        _each(cached, price.usd_per_million_input_tokens if cached_price is None else cached_price),
        _each(usage.output_tokens, price.usd_per_million_output_tokens),
    )
    known = [part for part in parts if part is not None]
    return sum(known, Fraction(0)) if len(known) == len(parts) else None


def _each(count: int, usd_per_million: float | None) -> Fraction | None:
    # The decimal that is written in the file, not the binary number nearest to it.
    return None if usd_per_million is None else count * Fraction(str(usd_per_million))


def _per_minute(audio_ms: int, usd_per_minute: float | None) -> Fraction | None:
    if usd_per_minute is None:
        return None
    return Fraction(str(usd_per_minute)) * audio_ms * MICROS / MS_PER_MINUTE


def prices_of(
    stt: Sequence[ResolvedProvider], llm: Sequence[ResolvedProvider], tts: Sequence[ResolvedProvider]
) -> dict[Used, Price | None]:
    """The price of each step of a call's chains. Two of one name with two prices have none: which was used is not known."""
    prices: dict[Used, Price | None] = {}
    for service, chain in (("stt", stt), ("llm", llm), ("tts", tts)):
        for step in chain:
            price = FREE if step.kind == "embedded" else step.price
            key = service, step.name
            prices[key] = price if prices.get(key, price) == price else None
    return prices


def unpriced(
    providers: Providers, platform: PlatformProviders, environ: Mapping[str, str]
) -> tuple[str, ...]:
    """Who may be asked in a tenant's calls without a price being stated: with any, no bound on cost can be kept."""
    return tuple(_unpriced(providers, platform, environ))


def _unpriced(providers: Providers, platform: PlatformProviders, environ: Mapping[str, str]) -> Iterator[str]:
    chains: tuple[tuple[str, Sequence[Provider | Listener]], ...] = (
        ("stt", providers.stt),
        ("llm", providers.llm),
        ("tts", providers.tts),
    )
    for service, chain in chains:
        for index, step in enumerate(chain):
            if not isinstance(step, Embedded) and step.price is None:
                yield f"providers.{service}.{index} ({step.model})"
    if not providers.use_platform:
        return
    for service, shared in (("stt", platform.stt), ("llm", platform.llm), ("tts", platform.tts)):
        for index, step in enumerate(shared):
            if step.price is None:
                yield f"the platform's providers.{service}.{index} ({step.model})"
    if not platform.llm and environ.get(OPENAI_KEY, "").strip():
        yield f"the platform's language model ({OPENAI_KEY} is set)"
