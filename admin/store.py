"""What the admin API keeps: tokens, what is known of JWTs, answers to repeat, and the audit trail.

Every method may raise `admin.errors.Unavailable`, which names the place; nothing is half done then. Times are milliseconds
since 1970 (UTC).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Protocol

from admin.audit import Head
from admin.idempotency import KeyUse
from admin.ports import Deed, Entry, KeptAnswer
from admin.principals import Role

PAGE_MAX: Final = 1_000
"""Rows that one call returns at most."""
TOKENS_STAY_MS: Final = 400 * 86_400_000
"""How long a token is listed after it has expired."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token, as its hash."""

    public_id: str
    hash: str = field(repr=False)
    """Argon2id, in the form that argon2 itself writes (PHC string)."""
    role: Role
    tenant_id: str | None
    label: str
    created_by: str
    created_ms: int
    expires_ms: int
    revoked_ms: int | None = None
    revoked_by: str | None = None


class Use(Enum):
    """What came of using something that is good once."""

    FIRST = auto()
    AGAIN = auto()
    FULL = auto()
    """No more can be remembered; nothing was."""


@dataclass(frozen=True, slots=True)
class Denials:
    """What is known against a JWT."""

    token: bool
    """It was denied itself."""
    before_ms: int | None
    """Its subject's tokens that were issued before are denied."""


class AdminStore(Protocol):
    """One node's, or that of several which share a database."""

    @property
    def place(self) -> str:
        """What errors call it."""

    async def close(self) -> None:
        """Let go of it; later calls raise `Unavailable`."""

    # -- API tokens

    async def add_token(self, row: TokenRow, active_max: int) -> bool:
        """Add one; False, and nothing is added: as many of its tenant's (or of operators') are good at ``created_ms``."""

    async def token(self, public_id: str) -> TokenRow | None:
        """One token."""

    async def tokens(self, *, tenant_id: str | None, after: str, limit: int) -> tuple[TokenRow, ...]:
        """Tokens in the order of their public ids, from the one after ``after``; of one tenant, or all."""

    async def revoke_token(
        self, public_id: str, *, tenant_id: str | None, by: str, now_ms: int
    ) -> TokenRow | None:
        """Revoke one, for good; None: there is none, or not this tenant's. One that is revoked stays as it is."""

    # -- JWTs, by hashes of 32 bytes

    async def use_once(self, token_hash: bytes, *, until_ms: int, now_ms: int, size_max: int) -> Use:
        """Remember it until then; what is over is forgotten."""

    async def denials(self, token_hash: bytes | None, subject_hash: bytes) -> Denials:
        """What is known against it; None: it has no ``jti``."""

    async def deny_token(self, token_hash: bytes, *, until_ms: int, now_ms: int, size_max: int) -> bool:
        """Deny one; False: the list is full."""

    async def deny_subject(
        self, subject_hash: bytes, *, before_ms: int, until_ms: int, now_ms: int, size_max: int
    ) -> bool:
        """Deny a subject's tokens issued before; an earlier denial is never shortened. False: the list is full."""

    # -- idempotency

    async def begin_key(
        self,
        key: bytes,
        owner: bytes,
        new: KeyUse,
        judge: Callable[[KeyUse | None], KeptAnswer | None],
        keys_max: int,
    ) -> KeptAnswer | None:
        """Ask ``judge`` about what is there, alone; where it returns None, put ``new`` in its place.

        What ``judge`` raises passes through, and nothing is changed. Raises `Throttled` for more than ``keys_max`` of one owner.
        """

    async def finish_key(self, key: bytes, claim: bytes, answer: KeptAnswer) -> bool:
        """Keep the answer; False, and nothing is changed: the key is not this claim's any more."""

    async def abandon_key(self, key: bytes, claim: bytes) -> bool:
        """Free the key, if it is this claim's and has no answer."""

    async def forget_keys(self, now_ms: int) -> int:
        """Delete what is kept no longer, of owners who came back no more; returns how many."""

    # -- audit

    async def append(self, deed: Deed) -> Head:
        """Chain a `normal` deed; returns the new head."""

    async def entries(self, *, tenant_id: str | None, after: int, limit: int) -> tuple[Entry, ...]:
        """Entries above ``after``, in order; of one tenant, or all."""

    async def ends(self) -> tuple[Head, int]:
        """The head, and the highest sequence that any entry has, as of one moment."""
