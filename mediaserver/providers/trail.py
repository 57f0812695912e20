"""What became of a call's providers, for its record: who served, who failed and how, who was not asked and why. Sans-IO.

Each kind of event is told when it happens for the first time, so that a worker that is lost takes no more than the number
of times with it, and its further times when the call is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from mediaserver.errors import FailureCause
from mediaserver.providers.breaker import Stage
from tenancy.providers import ProviderStep
from vault.resolver import Origin

MAX_KINDS: Final = 64
"""Of events in one call: five steps in each of three chains, with four kinds each. What is past them is counted."""
MAX_NAME_CHARACTERS: Final = 500
BUILT_IN: Final = "receptionist"
"""Who replies where no language model does: the embedded step of that chain."""


class Happened(StrEnum):
    """What became of a provider."""

    SERVED = "served"
    """Its answer began."""
    FAILED = "failed"
    """The reason is a `FailureCause`."""
    NOT_ASKED = "not_asked"
    """The reason is a `Passed`."""


class Passed(StrEnum):
    """Why a provider of the chain was passed over."""

    BREAKER = "breaker_open"
    KEY = "key_held_off"


Reason = FailureCause | Passed | None
_REASONS: Final[Mapping[Happened, frozenset[str]]] = MappingProxyType(
    {
        Happened.SERVED: frozenset({""}),
        Happened.FAILED: frozenset(FailureCause),
        Happened.NOT_ASKED: frozenset(Passed),
    }
)


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """Something happened to a provider so many times."""

    stage: Stage
    provider: str
    """What logs and metrics call it: its origin, host and model."""
    happened: Happened
    reason: str
    """Of the fixed vocabulary; empty where it served."""
    times: int = 1

    def __post_init__(self) -> None:
        if self.reason not in _REASONS[self.happened]:
            raise ValueError(f"{self.reason!r} is no reason for {self.happened}")
        if not 0 < self.times < 2**31 or len(self.provider) > MAX_NAME_CHARACTERS:
            raise ValueError("a count or a name is out of its range")


Told = Callable[[ProviderEvent], None]
_Kind = tuple[Stage, str, Happened, str]


class ProviderTrail:
    """One for each pipeline."""

    def __init__(self, tell: Told) -> None:
        self._tell = tell
        self._further: dict[_Kind, int] = {}

    def note(self, stage: Stage, provider: str, happened: Happened, reason: Reason = None) -> None:
        """Something happened."""
        kind = (stage, provider[:MAX_NAME_CHARACTERS], happened, reason or "")
        if kind in self._further:
            self._further[kind] += 1
        elif len(self._further) < MAX_KINDS:
            self._further[kind] = 0
            self._tell(ProviderEvent(*kind))

    def flush(self) -> None:
        """Tell of what happened again."""
        for kind, times in self._further.items():
            if times:
                self._further[kind] = 0
                self._tell(ProviderEvent(*kind, times))


class ProviderHistory:
    """What the trails of one call have told, of all workers that had it."""

    def __init__(self) -> None:
        self._times: dict[_Kind, int] = {}
        self.dropped = 0
        """Events past `MAX_KINDS`."""

    def take(self, event: ProviderEvent) -> None:
        """Add an event."""
        kind = (event.stage, event.provider, event.happened, event.reason)
        if kind in self._times or len(self._times) < MAX_KINDS:
            self._times[kind] = self._times.get(kind, 0) + event.times
        else:
            self.dropped += event.times

    @property
    def events(self) -> tuple[ProviderEvent, ...]:
        """In the order in which each happened first."""
        return tuple(ProviderEvent(*kind, times) for kind, times in self._times.items())


def is_built_in(step: ProviderStep) -> bool:
    """Whether the step is the built-in receptionist."""
    return step.service == Stage.LLM and step.origin is Origin.FALLBACK


def provider_entries(steps: Sequence[ProviderStep], history: ProviderHistory) -> list[dict[str, object]]:
    """The providers of a call as its record has them (`tenancy.CallRecord.providers`).

    - as resolved: ``service``, ``origin``, ``model``, ``outcome`` (``chosen`` or ``left_out``), ``reason``, and ``provider``
      where it is chosen;
    - as it went: ``service``, ``provider``, ``outcome`` (`Happened`), ``reason`` and ``times``.
    """
    resolved: list[dict[str, object]] = []
    for step in steps:
        entry: dict[str, object] = {
            "service": step.service,
            "origin": str(step.origin),
            "model": step.model,
            "outcome": "left_out" if step.provider is None else "chosen",
            "reason": step.reason,
        }
        if step.provider is not None:
            entry["provider"] = BUILT_IN if is_built_in(step) else step.provider
        resolved.append(entry)
    went: list[dict[str, object]] = [
        {
            "service": str(event.stage),
            "provider": event.provider,
            "outcome": str(event.happened),
            "reason": event.reason,
            "times": event.times,
        }
        for event in history.events
    ]
    return resolved + went
