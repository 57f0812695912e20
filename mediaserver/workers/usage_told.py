"""What a request of a worker's call has used, to and from its message. Sans-IO."""

from __future__ import annotations

from typing import Final

from mediaserver.providers.breaker import Stage
from mediaserver.workers.messages import UsageTold, WireError
from tenancy.spending import Usage

COUNT_MAX: Final = 100_000_000
"""Of anything; no request uses so much."""


def told_of_usage(service: str, provider: str, usage: Usage) -> UsageTold:
    """The message of what was used."""
    return UsageTold(
        service,
        provider,
        _bounded(usage.input_tokens),
        _bounded(usage.cached_input_tokens),
        _bounded(usage.output_tokens),
        _bounded(usage.audio_ms),
        _bounded(usage.characters),
        usage.estimated,
    )


def _bounded(count: int) -> int:
    return min(max(0, count), COUNT_MAX)


def usage_of(message: UsageTold) -> tuple[str, str, Usage]:
    """Service, provider, and what was used. Raises `WireError` for what no worker says."""
    counts = (
        message.input_tokens,
        message.cached_input_tokens,
        message.output_tokens,
        message.audio_ms,
        message.characters,
    )
    if not all(0 <= count <= COUNT_MAX for count in counts):
        raise WireError("UsageTold: a count is out of its range")
    try:
        service = Stage(message.service)
    except ValueError:
        raise WireError("UsageTold: no such service") from None
    return str(service), message.provider, Usage(*counts, estimated=message.estimated)
