"""What an error of a provider's client means, in our own words.

Nothing of the error's own text is kept: clients put the provider's answer into it, and an answer may repeat the key or what
the caller said.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

import aiohttp
import orjson
from aiohttp import http_exceptions

from mediaserver.errors import FailureCause, MediaServerError, ProviderFailed
from vault.resolver import Outcome, classify

RETRY_AFTER_MAX_S: Final = 86_400.0
"""A provider that asks for more is asked again after a day."""
REFUSAL_BYTES_MAX: Final = 16_384
"""Of a refusal's body that are read for its code."""
_SECONDS: Final = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,6})?")


class RefusalCode(StrEnum):
    """What a refusal's body may say more than its status: the codes that mean an empty account."""

    INSUFFICIENT_QUOTA = "insufficient_quota"
    QUOTA_EXCEEDED = "quota_exceeded"
    BILLING_HARD_LIMIT_REACHED = "billing_hard_limit_reached"


_CODES: Final = {str(code): code for code in RefusalCode}


class AnswerRefused(MediaServerError):  # noqa: N818 - names the answer
    """An answer with another status than success."""

    def __init__(
        self, status: int, code: RefusalCode | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"HTTP {status}" if code is None else f"HTTP {status} ({code})")
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        """0 to `RETRY_AFTER_MAX_S`; None where the answer does not say, or says what is no time."""


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """The seconds of a Retry-After header: a number, or a date (RFC 9110 10.2.3); 0 to `RETRY_AFTER_MAX_S`."""
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), RETRY_AFTER_MAX_S)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return min(max(0.0, (at - (now or datetime.now(UTC))).total_seconds()), RETRY_AFTER_MAX_S)


def refusal_code(body: bytes) -> RefusalCode | None:
    """The code in a refusal's body, where it is one of the few that matter; OpenAI's error objects have it as code or type."""
    try:
        told: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    error = told.get("error") if isinstance(told, dict) else None
    if not isinstance(error, dict):
        return None
    said = (error.get("code"), error.get("type"))
    return next((_CODES[each] for each in said if isinstance(each, str) and each in _CODES), None)


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
            cause = _of_status(error.status, error.code)
            return ProviderFailed(provider, str(error), cause, error.retry_after_s)
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


def _of_status(status: int, code: RefusalCode | None) -> FailureCause:
    match classify(status, code):
        case Outcome.DENIED:
            return FailureCause.DENIED
        case Outcome.OUT_OF_QUOTA:
            return FailureCause.OUT_OF_QUOTA
        case Outcome.RATE_LIMITED:
            return FailureCause.RATE_LIMITED
        case _:
            return FailureCause.SERVER_ERROR if status >= 500 else FailureCause.REJECTED


def key_outcome(cause: FailureCause) -> Outcome | None:
    """What a failure says about the key; None where it says nothing."""
    match cause:
        case FailureCause.DENIED:
            return Outcome.DENIED
        case FailureCause.OUT_OF_QUOTA:
            return Outcome.OUT_OF_QUOTA
        case FailureCause.RATE_LIMITED:
            return Outcome.RATE_LIMITED
        case _:
            return None


def _closed_early(error: aiohttp.ClientPayloadError) -> bool:
    """Whether the peer closed the connection before the answer's end; all else that breaks a body is malformed."""
    why = error.__cause__
    if isinstance(why, http_exceptions.TransferEncodingError):
        return "Not enough data" in why.message
    return why is None or isinstance(why, http_exceptions.ContentLengthError | OSError)
