"""What a worker says of a call's providers, to and from its message. Sans-IO."""

from __future__ import annotations

from mediaserver.providers.breaker import Stage
from mediaserver.providers.trail import Happened, ProviderEvent
from mediaserver.workers.messages import ProviderTold, WireError


def told_of_provider(event: ProviderEvent) -> ProviderTold:
    """The message of an event."""
    return ProviderTold(str(event.stage), event.provider, str(event.happened), event.reason, event.times)


def event_of(message: ProviderTold) -> ProviderEvent:
    """The event in a message. Raises `WireError` for what no worker says."""
    try:
        stage, happened = Stage(message.stage), Happened(message.happened)
        return ProviderEvent(stage, message.provider, happened, message.reason, message.times)
    except ValueError as error:
        raise WireError(f"ProviderTold: {error}") from None
