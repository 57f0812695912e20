"""What an error of a provider's client means, in our own words.

Nothing of the error's own text is kept: clients put the provider's answer into it, and an answer may repeat the key or what
the caller said.
"""

from __future__ import annotations

import aiohttp
from aiohttp import http_exceptions

from mediaserver.errors import FailureCause, MediaServerError, ProviderFailed


class AnswerRefused(MediaServerError):  # noqa: N818 - names the answer
    """An answer with another status than success."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class AnswerTooLarge(MediaServerError):  # noqa: N818
    """The body of an answer went past its limit."""


class AnswerMalformed(MediaServerError):  # noqa: N818
    """An answer that is none: its encoding, its kind, its shape."""


def failure_of(provider: str, error: Exception) -> ProviderFailed:
    """The failure that an error of any client stands for. What is not known is garbage: the answer broke the client."""
    match error:
        case ProviderFailed():
            return error
        case AnswerRefused():
            return ProviderFailed(provider, str(error), _of_status(error.status))
        case AnswerTooLarge():
            return ProviderFailed(provider, "an answer past its limit of size", FailureCause.TOO_LARGE)
        case TimeoutError():
            cause = FailureCause.TIMEOUT
        case ConnectionRefusedError() | aiohttp.ClientConnectorError() | aiohttp.ClientHttpProxyError():
            cause = FailureCause.UNREACHABLE
        case aiohttp.ServerDisconnectedError():
            # Its message is what was understood of the answer so far, or that there was none.
            cause = FailureCause.RESET if isinstance(error.message, str) else FailureCause.GARBAGE
        case aiohttp.ClientPayloadError():
            cause = FailureCause.RESET if _closed_early(error) else FailureCause.GARBAGE
        case ConnectionError() | aiohttp.ClientOSError():
            cause = FailureCause.RESET
        case OSError():
            cause = FailureCause.UNREACHABLE
        case _:
            cause = FailureCause.GARBAGE
    return ProviderFailed(provider, type(error).__name__, cause)


def _of_status(status: int) -> FailureCause:
    if status in (401, 403):
        return FailureCause.DENIED
    if status == 429:
        return FailureCause.RATE_LIMITED
    return FailureCause.SERVER_ERROR if status >= 500 else FailureCause.REJECTED


def _closed_early(error: aiohttp.ClientPayloadError) -> bool:
    """Whether the peer closed the connection before the answer's end; all else that breaks a body is malformed."""
    why = error.__cause__
    if isinstance(why, http_exceptions.TransferEncodingError):
        return "Not enough data" in why.message
    return why is None or isinstance(why, http_exceptions.ContentLengthError | OSError)
