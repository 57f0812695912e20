"""The fixed phrases of a tenant, the same words every time so that their audio can be kept."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from config.tenant import TenantConfig
from mediaserver.receptionist.speakable import as_sentence, speakable


@dataclass(frozen=True, slots=True)
class Phrases:
    """What the server says without asking any provider."""

    one_moment: str
    """A provider failed and the next one is being asked."""
    failure: str
    """Every provider failed."""
    still_there: str
    """The caller has been silent for long."""
    not_caught: str
    """An utterance was not understood."""
    goodbye: str
    hold_on: str
    """A call worker is gone and another one takes the call."""

    @classmethod
    def of(cls, config: TenantConfig) -> Phrases:
        """The phrases in this tenant's name."""
        return cls(
            one_moment="Sorry, I'm having a little trouble. One moment please.",
            failure="I'm sorry, I can't help you right now. Please call again in a few minutes.",
            still_there="Are you still there?",
            not_caught="Sorry, I didn't catch that.",
            goodbye=f"Thank you for calling {as_sentence(speakable(config.business_name))} Goodbye!",
            hold_on="One moment, please.",
        )

    def all(self) -> tuple[str, ...]:
        """Every phrase, for synthesis ahead of the first call."""
        return tuple(astuple(self))


def first_message(config: TenantConfig) -> str:
    """What the caller hears first, in the tenant's own words."""
    return config.greeting
