"""The keys of one call: what its tenant's vault gave for each name, and whether providers take them at present. Sans-IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from config.tenant import Deepgram, OpenAICompatible, Providers
from vault.resolver import JudgedStep, KeyRef, KeyResolver, Origin, Service, Step
from vault.secret import Secret


@dataclass(frozen=True, slots=True)
class FoundKey:
    """What the vault gave for a name."""

    secret: Secret | None
    version: int = 0
    reason: str = ""
    """Why there is none, to follow the key's name: ``is missing``, ``was revoked``."""


@dataclass(frozen=True, slots=True)
class CallKeys:
    """A tenant's keys at the beginning of a call."""

    tenant_id: str
    found: Mapping[str, FoundKey]
    """By name: all that its configuration names."""
    resolver: KeyResolver
    now_ms: int
    """Of the resolver's clock."""

    def judge(self, service: str, steps: Sequence[tuple[str, KeyRef | None]]) -> tuple[JudgedStep, ...]:
        """Whether each step (its name and its key) is to be taken now, and why. A last one that needs no key follows.

        Where the first that is usable has a key whose hold-off is over, this call is the one that tries it.
        """
        candidates = [Step(_owner(key), label, key) for label, key in steps]
        fallback = Step(Origin.FALLBACK, "fallback")
        resolution = self.resolver.resolve(
            self.tenant_id, Service(service), (*candidates, fallback), self.now_ms
        )
        return resolution.steps[:-1]


def _owner(key: KeyRef | None) -> Origin:
    return Origin.TENANT if key is not None and key.owner is not None else Origin.PLATFORM


def key_names(providers: Providers) -> tuple[str, ...]:
    """The names of the keys in the vault that a tenant's chains ask for, each once."""
    steps = (*providers.stt, *providers.llm, *providers.tts)
    named = (step.key for step in steps if isinstance(step, OpenAICompatible | Deepgram))
    return tuple(dict.fromkeys(name for name in named if name is not None))
