"""What the API's routes need of authentication, the audit trail and idempotency, whatever stands behind.

Every method may raise `admin.errors.Unavailable`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from admin.principals import Principal


class Authenticator(Protocol):
    """Finds out who asks."""

    async def authenticate(self, authorization: str | None, source: str) -> Principal:
        """Whose token it is.

        ``authorization`` is the header field as it came; ``source`` the address of who asks, to which failures are counted.

        Raises:
            Unauthenticated: it is nobody's; the text says why, but never repeats the token. Throttled: too many failures.
            Forbidden: it is a good JWT, and gives no role on this node.
        """


@dataclass(frozen=True, slots=True)
class Deed:
    """What was done or refused, by whom. Never a secret, nor what a caller said."""

    at: datetime
    principal: str
    """`Principal.name`, or ``anonymous``."""
    credential: str
    source: str
    """The address of who asked."""
    action: str
    """The route's name: ``config.activate``."""
    tenant_id: str | None
    target: str | None
    """What within the tenant: a version's number, a key's name."""
    status: int
    """Of the answer."""
    request_id: str
    detail: str = ""
    """Of a refusal: the problem's kind."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A deed in the chain of hashes."""

    sequence: int
    deed: Deed
    hash: bytes


class AuditTrail(Protocol):
    """Changes and refusals, append-only, in a chain of hashes."""

    async def append(self, deed: Deed) -> None:
        """Add one."""

    async def page(self, *, tenant_id: str | None, after: int, limit: int) -> tuple[Entry, ...]:
        """Entries with a sequence above ``after``, in order; of one tenant, or of all."""

    async def verify(self) -> str | None:
        """What is wrong with the chain first, or None."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The answer to a request with an idempotency key."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Idempotency(Protocol):
    """Requests with an ``Idempotency-Key``: each is carried out once, and repetitions get its answer.

    A key is a principal's own. It is kept for 24 hours; a request that never ended (the process died) frees it after a minute.
    """

    async def begin(
        self, principal: Principal, key: str, fingerprint: bytes, now: datetime
    ) -> KeptAnswer | None:
        """The first request's answer; None: this is the first, and has to `finish` or `abandon`.

        ``fingerprint`` is a digest of method, path, precondition and body. Raises `KeyReused`, `StillRunning`, and `Throttled`:
        the principal has used as many keys as are kept.
        """

    async def finish(self, principal: Principal, key: str, answer: KeptAnswer, now: datetime) -> None:
        """Keep the answer, whose body has at most 1 MiB."""

    async def abandon(self, principal: Principal, key: str) -> None:
        """Nothing was done: the key is free."""


class Limiter(Protocol):
    """How much one principal may ask."""

    def take(self, principal: Principal, now_ms: int) -> Mapping[str, str]:
        """Count a request; the answer's fields of how many are left (draft-ietf-httpapi-ratelimit-headers). Raises `Throttled`."""
