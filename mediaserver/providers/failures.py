"""What an error of a provider's client means, in our own words.

Nothing of the error's own text is kept: SDKs put the provider's answer into it, and an answer may repeat the key or what
the caller said.
"""

from __future__ import annotations

import httpx2
import openai

from mediaserver.errors import FailureCause, ProviderFailed


class AnswerTooLarge(httpx2.TransportError):
    """The body of an answer went past its limit."""


class AnswerMalformed(httpx2.TransportError):
    """An answer that is none, seen below the client: its encoding, its kind."""


def failure_of(provider: str, error: Exception) -> ProviderFailed:
    """The failure that an error of any client stands for. What is not known is garbage: the answer broke the client."""
    if isinstance(error, ProviderFailed):
        return error
    if isinstance(error, openai.APIStatusError):
        return ProviderFailed(provider, f"HTTP {error.status_code}", _of_status(error.status_code))
    cause, kind = FailureCause.GARBAGE, error
    if isinstance(error, openai.APIConnectionError) and isinstance(error.__cause__, Exception):
        kind = error.__cause__
    if isinstance(kind, AnswerTooLarge):
        return ProviderFailed(provider, "an answer past its limit of size", FailureCause.TOO_LARGE)
    if isinstance(kind, httpx2.TimeoutException | openai.APITimeoutError | TimeoutError):
        cause = FailureCause.TIMEOUT
    elif isinstance(kind, httpx2.ConnectError | httpx2.ProxyError):
        cause = FailureCause.UNREACHABLE
    elif isinstance(kind, httpx2.NetworkError) or _closed_early(kind):
        cause = FailureCause.RESET
    elif isinstance(kind, OSError):
        cause = FailureCause.UNREACHABLE
    return ProviderFailed(provider, type(kind).__name__, cause)


def _of_status(status: int) -> FailureCause:
    if status in (401, 403):
        return FailureCause.DENIED
    if status == 429:
        return FailureCause.RATE_LIMITED
    return FailureCause.SERVER_ERROR if status >= 500 else FailureCause.REJECTED


def _closed_early(error: Exception) -> bool:
    """Whether the peer closed the connection before the answer's end; all else that breaks HTTP is malformed."""
    if not isinstance(error, httpx2.RemoteProtocolError):
        return False
    text = str(error)
    return "disconnected" in text or "closed connection" in text
