"""What the admin package raises: each an answer that an HTTP client gets as RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with what was sent."""

    field: str
    reason: str
    line: int | None = None
    column: int | None = None


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

    def __init__(
        self, detail: str, retry_after_s: int, fields: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """``fields``: of the header, beside Retry-After."""
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        """Whole seconds, at least one."""
        self._fields = fields

    @property
    def headers(self) -> Mapping[str, str]:
        """RFC 9110, section 10.2.3."""
        return {**self._fields, "Retry-After": str(self.retry_after_s)}


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


class BadRequest(AdminError):  # noqa: N818
    """The request cannot be read as it is."""

    status = 400
    kind = "bad_request"


class TooLarge(AdminError):  # noqa: N818
    """The body is larger than any that is read."""

    status = 413
    kind = "too_large"


class UnsupportedMedia(AdminError):  # noqa: N818
    """The body is of a type that is not read here."""

    status = 415
    kind = "unsupported_media_type"


class PreconditionFailed(AdminError):  # noqa: N818
    """What ``If-Match`` names is not what is there."""

    status = 412
    kind = "precondition_failed"


class PreconditionRequired(AdminError):  # noqa: N818
    """The change needs an ``If-Match`` (RFC 6585 3)."""

    status = 428
    kind = "precondition_required"


class Invalid(AdminError):  # noqa: N818
    """What was sent says what cannot be used."""

    status = 422
    kind = "invalid"

    def __init__(self, detail: str, faults: Iterable[Fault] = ()) -> None:
        super().__init__(detail)
        self.faults = tuple(faults)
