"""What the admin package raises: each an answer that an HTTP client gets as RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class AdminError(Exception):
    """The root of this package's errors. The text is the problem's ``detail``, which names what is wrong and what is allowed."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "internal"
    """The problem's type: one word for programs, in every answer of this class."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields that the answer has besides."""
        return {}


class Unauthenticated(AdminError):  # noqa: N818
    """Nobody known asks: no token, or one that is unknown, expired, revoked, tampered with or meant for somebody else."""

    status = 401
    kind = "unauthenticated"

    @property
    def headers(self) -> Mapping[str, str]:
        """RFC 6750, section 3."""
        return {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class Forbidden(AdminError):  # noqa: N818
    """Whoever asks is known, and may not."""

    status = 403
    kind = "forbidden"


class NotFound(AdminError):  # noqa: N818
    """There is none, or it is another tenant's: the same answer for both."""

    status = 404
    kind = "not_found"


class Throttled(AdminError):  # noqa: N818
    """Too many requests, or too many failed logins."""

    status = 429
    kind = "throttled"

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        """Whole seconds, at least one."""

    @property
    def headers(self) -> Mapping[str, str]:
        """RFC 9110, section 10.2.3."""
        return {"Retry-After": str(self.retry_after_s)}


class KeyReused(AdminError):  # noqa: N818
    """An idempotency key came with another request than before."""

    status = 422
    kind = "idempotency_key_reused"


class StillRunning(AdminError):  # noqa: N818
    """The first request with this idempotency key has not ended yet."""

    status = 409
    kind = "still_running"


class Unavailable(AdminError):  # noqa: N818
    """The store, the vault or an identity provider cannot be used now; nothing was changed."""

    status = 503
    kind = "unavailable"

    @property
    def headers(self) -> Mapping[str, str]:
        """RFC 9110, section 10.2.3."""
        return {"Retry-After": "1"}
