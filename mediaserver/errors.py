"""The root of everything that the media server raises on purpose."""

from __future__ import annotations

from enum import StrEnum


class MediaServerError(Exception):
    """Something that an operator or a caller of the API can be told as it stands."""


class StartupError(MediaServerError):
    """The server cannot start; the text says what is wrong and what to do."""


class LinkClosed(MediaServerError):  # noqa: N818 - names the event that ended the wait
    """The media of the call is gone; nothing further will arrive on its link."""


class FailureCause(StrEnum):
    """What became of a request that failed; few and fixed, for metrics."""

    TIMEOUT = "timeout"
    """Nothing within the budget: a provider that accepts and stays silent."""
    STALL = "stall"
    """Silence, or no end, in an answer that had begun."""
    SLOW = "slow"
    """Still silent when the next provider, asked for that reason, delivered."""
    UNREACHABLE = "unreachable"
    """No connection."""
    RESET = "reset"
    """The connection broke."""
    DENIED = "denied"
    """401 or 403: the key."""
    OUT_OF_QUOTA = "out_of_quota"
    """402, or a 429 that says so: the key's account is empty."""
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    REJECTED = "rejected"
    """Another 4xx: this request, not the provider."""
    GARBAGE = "garbage"
    """An answer that is none."""
    TOO_LARGE = "too_large"
    EMPTY = "empty"
    """An answer without content."""


class ProviderFailed(MediaServerError):  # noqa: N818
    """A provider refused, broke off, or exceeded its budget.

    ``why`` is ours and never the provider's text, which may repeat what it was sent: a key, the caller's words.
    """

    def __init__(
        self, provider: str, why: str, cause: FailureCause, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{provider}: {why}")
        self.provider = provider
        self.why = why
        self.cause = cause
        self.retry_after_s = retry_after_s
        """How long the provider asks to be left alone, within bounds; None where it does not say."""
