"""API tokens: made, listed, revoked, and whose they are.

A token is kept as an Argon2id hash alone, with the parameters that OWASP's Password Storage Cheat Sheet names (19 MiB, two
passes, one lane). A check takes a thread, and only so many run at a time; who waits in vain is told to come back. One whose
id nobody knows costs the same, against a hash that fits nothing. What was checked is remembered for a short while
(`admin.verified`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from admin.clocks import Clocks
from admin.errors import AdminError, NotFound, Throttled, Unauthenticated
from admin.principals import Principal, Role
from admin.store import PAGE_MAX, AdminStore, TokenRow
from admin.throttle import LoginThrottle
from admin.tokens import ID_BYTES, PUBLIC_ID, SECRET_BYTES, ApiToken, TokenFault, without_tokens
from admin.verified import VerifiedTokens
from config.admin import ApiTokensConfig
from config.tenant import TENANT_ID_PATTERN
from tenancy.database import unbroken

DAY_MS: Final = 86_400_000
LABEL_CHARACTERS_MAX: Final = 64
WAITING_MAX: Final = 64
"""Checks that wait for their turn."""
MEMORY_KIB: Final = 19_456
PASSES: Final = 2
LANES: Final = 1
UNKNOWN: Final = "the API token is not known here: it was never made, or is of another node"


class BadToken(AdminError):  # noqa: N818
    """A token cannot be made as asked; the text says what is allowed."""

    status = 422
    kind = "bad_token_request"


class TooManyTokens(AdminError):  # noqa: N818
    """The tenant, or all operators together, have as many tokens as they may."""

    status = 409
    kind = "too_many_tokens"


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What may be told of a token."""

    public_id: str
    role: Role
    tenant_id: str | None
    label: str
    created_by: str
    created_ms: int
    expires_ms: int
    revoked_ms: int | None
    revoked_by: str | None

    @classmethod
    def of(cls, row: TokenRow) -> TokenInfo:
        """All of it but the hash."""
        return cls(**{name: getattr(row, name) for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made. Only its owner keeps it: it cannot be shown again."""

    token: ApiToken
    info: TokenInfo


def subject_of(row: TokenRow) -> str:
    """Whom audit trails name: the label, which two tokens may share, and the id, which they may not."""
    return f"{row.label} [{row.public_id}]"


class ApiTokens:
    """The tokens of a store."""

    def __init__(
        self,
        store: AdminStore,
        config: ApiTokensConfig,
        throttle: LoginThrottle,
        clocks: Clocks,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._config = config
        self._throttle = throttle
        self._clocks = clocks
        self._random_bytes = random_bytes
        self._hasher = PasswordHasher(PASSES, MEMORY_KIB, LANES, type=Type.ID)
        self._verified = VerifiedTokens()
        self._turn = asyncio.Semaphore(config.checks_at_once)
        self._waiting = 0
        self._dummy = ""
        self.checks = 0
        """Hashes that were computed to check a token."""

    async def prepare(self) -> None:
        """Make the hash that tokens which nobody knows are checked against. Before any token is."""
        self._dummy = await unbroken(asyncio.to_thread(self._hasher.hash, self._random_bytes(SECRET_BYTES)))

    async def create(
        self,
        *,
        role: Role,
        tenant_id: str | None,
        label: str,
        created_by: str,
        life_days: int | None = None,
    ) -> NewToken:
        """Make a token. Raises `BadToken`, `TooManyTokens`, `Throttled`, `Unavailable`."""
        days = self._config.life_days if life_days is None else life_days
        self._check_request(role, tenant_id, label, days)
        token = ApiToken.from_random(self._random_bytes(ID_BYTES + SECRET_BYTES))
        async with self._place_in_line():
            hashed = await unbroken(asyncio.to_thread(lambda: self._hasher.hash(token.reveal())))
        now_ms = self._clocks.wall_ms()
        row = TokenRow(
            public_id=token.public_id,
            hash=hashed,
            role=role,
            tenant_id=tenant_id,
            label=label,
            created_by=created_by,
            created_ms=now_ms,
            expires_ms=now_ms + days * DAY_MS,
        )
        if not await self._store.add_token(row, self._config.per_tenant_max):
            whose = "operators have" if tenant_id is None else f"tenant {tenant_id} has"
            raise TooManyTokens(
                f"{whose} {self._config.per_tenant_max} API tokens, as many as are allowed: revoke one that nobody uses"
            )
        return NewToken(token, TokenInfo.of(row))

    async def list(
        self, *, tenant_id: str | None, after: str = "", limit: int = 100
    ) -> tuple[TokenInfo, ...]:
        """Tokens in the order of their ids, from the one after ``after``; of one tenant, or all."""
        rows = await self._store.tokens(tenant_id=tenant_id, after=after, limit=max(1, min(limit, PAGE_MAX)))
        return tuple(map(TokenInfo.of, rows))

    async def revoke(self, public_id: str, *, tenant_id: str | None, by: str) -> TokenInfo:
        """Revoke a token for good; once more does no harm. ``tenant_id``: it must be that tenant's. Raises `NotFound`."""
        row = None
        if PUBLIC_ID.fullmatch(public_id):
            row = await self._store.revoke_token(
                public_id, tenant_id=tenant_id, by=by, now_ms=self._clocks.wall_ms()
            )
            self._verified.forget(public_id)
        if row is None:
            # Not repeated: it may be a token that was pasted in place of its id.
            raise NotFound("no API token has that id: it is the part between the two underscores")
        return TokenInfo.of(row)

    async def authenticate(self, text: str, source: str) -> Principal:
        """Whose token it is. Raises `Unauthenticated`, `Throttled`, `Unavailable`.

        A token that was checked lately passes even where its source has to wait for others' failures.
        """
        token = ApiToken.parse(text)
        if isinstance(token, TokenFault):
            self._throttle.check(source, self._clocks.steady_ms())
            raise self._failure(source, token)
        digest = token.digest()
        row = await self._remembered(digest)
        if row is None:
            row = await self._checked(token, digest, source)
        if row.revoked_ms is not None:
            raise self._failure(source, "the API token was revoked")
        if self._clocks.wall_ms() >= row.expires_ms:
            raise self._failure(source, "the API token has expired")
        return Principal(subject_of(row), row.role, row.tenant_id, credential=row.public_id)

    async def _remembered(self, digest: bytes) -> TokenRow | None:
        """What the store says of a token that was checked lately; None: it has to be checked."""
        now_ms = self._clocks.steady_ms()
        known = self._verified.find(digest, now_ms)
        if known is None or known.fresh:
            return None if known is None else known.row
        row = await self._store.token(known.row.public_id)
        return row if self._verified.reread(digest, row, now_ms) else None

    async def _checked(self, token: ApiToken, digest: bytes, source: str) -> TokenRow:
        self._throttle.check(source, self._clocks.steady_ms())
        async with self._place_in_line():
            # Many requests with one new token come at once: the first one's check is all of theirs.
            known = self._verified.find(digest, self._clocks.steady_ms())
            if known is not None and known.fresh:
                return known.row
            # Others of this source may have failed while it waited.
            self._throttle.check(source, self._clocks.steady_ms())
            read_ms = self._clocks.steady_ms()
            row = await self._store.token(token.public_id)
            self.checks += 1
            # To its end even where the client hangs up: the thread goes on, and has the turn until then.
            fits = await unbroken(
                asyncio.to_thread(self._fits, self._dummy if row is None else row.hash, token)
            )
            if row is not None and fits:
                self._verified.fitted(digest, row, read_ms, self._clocks.steady_ms())
                return row
        raise self._failure(source, UNKNOWN)

    def _fits(self, hashed: str, token: ApiToken) -> bool:
        try:
            return self._hasher.verify(hashed, token.reveal())
        except (VerificationError, InvalidHashError):
            return False

    @asynccontextmanager
    async def _place_in_line(self) -> AsyncIterator[None]:
        """A turn for one hash."""
        if self._waiting >= WAITING_MAX:
            raise Throttled("too many API tokens are being checked", 1)
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turn.release()

    def _check_request(self, role: Role, tenant_id: str | None, label: str, days: int) -> None:
        if (role is Role.TENANT) != (tenant_id is not None):
            raise BadToken(
                "a token of the role tenant names its tenant, and one of the role operator names none"
            )
        if tenant_id is not None and not re.fullmatch(TENANT_ID_PATTERN, tenant_id):
            raise BadToken("a tenant id is 1 to 63 lower-case letters, digits and inner hyphens")
        if not (1 <= len(label) <= LABEL_CHARACTERS_MAX and label.isprintable() and label.strip() == label):
            raise BadToken(f"a label is 1 to {LABEL_CHARACTERS_MAX} printable characters: who uses the token")
        if without_tokens(label) != label:
            raise BadToken("a label is no token")
        if not 1 <= days <= self._config.life_max_days:
            raise BadToken(f"a token is good for 1 to {self._config.life_max_days} days")

    def _failure(self, source: str, text: str) -> Unauthenticated:
        self._throttle.failed(source, self._clocks.steady_ms())
        return Unauthenticated(text)
