"""JWTs of configured issuers: whose they are, and which of them are denied.

PyJWT verifies signature, issuer and audience; the times are `admin.claims`' to check, against a clock that is given. What has to
be remembered (tokens that are good once, denials) is in the store, so that nodes which share one agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jwt
from jwt import PyJWK
from jwt.exceptions import (
    InvalidAudienceError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from admin.claims import NAME_CHARACTERS_MAX, Identity, announced, identity
from admin.clocks import Clocks
from admin.errors import AdminError, NotFound, Unauthenticated, Unavailable
from admin.jwks import KeySource
from admin.principals import Principal
from admin.store import AdminStore, Use
from admin.throttle import LoginThrottle
from config.admin import MAX_LEEWAY_S, MAX_LIFE_S, IssuerConfig

USED_MAX: Final = 100_000
"""Tokens that are good once and not expired, of all issuers."""
DENIED_MAX: Final = 100_000
CLOCKS_APART_MS: Final = 600_000
"""How far the clocks of two nodes may be apart: so much longer than needed is remembered what was used."""
_REQUIRED: Final = ("iss", "aud", "sub", "exp", "iat")


class DenyListFull(AdminError):  # noqa: N818
    """No more can be denied; each denial goes when no token that it is about can be good any more."""

    status = 409
    kind = "deny_list_full"


class JwtTokens:
    """The configured issuers' tokens."""

    def __init__(
        self,
        store: AdminStore,
        issuers: Sequence[IssuerConfig],
        sources: Mapping[str, KeySource],
        throttle: LoginThrottle,
        clocks: Clocks,
    ) -> None:
        """``sources``: the keys of each issuer, by its name."""
        self._store = store
        self._issuers = {each.issuer: each for each in issuers}
        self._sources = sources
        self._throttle = throttle
        self._clocks = clocks

    async def aclose(self) -> None:
        """End what fetches keys."""
        for source in self._sources.values():
            await source.aclose()

    async def authenticate(self, text: str, source: str) -> Principal:
        """Whose token it is. Raises `Unauthenticated`, `Forbidden`, `Throttled`, `Unavailable`."""
        self._throttle.check(source, self._clocks.steady_ms())
        try:
            return await self._verified(text)
        except Unauthenticated:
            self._throttle.failed(source, self._clocks.steady_ms())
            raise

    async def deny_token(self, issuer: str, token_id: str) -> None:
        """Refuse the token with this ``jti`` from now on. Raises `NotFound`, `DenyListFull`."""
        self._issuer(issuer, token_id)
        now_ms = self._clocks.wall_ms()
        denied = await self._store.deny_token(
            _token_hash(issuer, token_id), until_ms=now_ms + _FORGOTTEN_MS, now_ms=now_ms, size_max=DENIED_MAX
        )
        if not denied:
            raise DenyListFull(f"{DENIED_MAX} tokens are denied, as many as are remembered")

    async def deny_subject(self, issuer: str, subject: str) -> None:
        """Refuse all tokens of a subject that were issued until now. Raises `NotFound`, `DenyListFull`.

        As the issuer's clock may be ahead of ours by its leeway, those of the next moments are refused as well.
        """
        leeway_ms = self._issuer(issuer, subject).leeway_s * 1000
        now_ms = self._clocks.wall_ms()
        denied = await self._store.deny_subject(
            _subject_hash(issuer, subject),
            before_ms=now_ms + leeway_ms,
            until_ms=now_ms + _FORGOTTEN_MS,
            now_ms=now_ms,
            size_max=DENIED_MAX,
        )
        if not denied:
            raise DenyListFull(f"{DENIED_MAX} subjects are denied, as many as are remembered")

    def _issuer(self, issuer: str, name: str) -> IssuerConfig:
        if issuer not in self._issuers:
            raise NotFound(f"no such issuer; configured are: {', '.join(self._issuers) or 'none'}")
        if not 1 <= len(name) <= NAME_CHARACTERS_MAX:
            raise NotFound(f"a jti and a subject are 1 to {NAME_CHARACTERS_MAX} characters")
        return self._issuers[issuer]

    async def _verified(self, text: str) -> Principal:
        said = announced(text)
        issuer = self._issuers.get(said.issuer)
        if issuer is None:
            raise Unauthenticated("the token's issuer is none that this node believes")
        if said.algorithm not in issuer.algorithms:
            allowed = ", ".join(issuer.algorithms)
            raise Unauthenticated(f"the token's algorithm is not allowed for its issuer; allowed: {allowed}")
        keys = await self._sources[issuer.issuer].keys_for(said)
        claims = _claims(text, keys, said.algorithm, issuer)
        found = identity(claims, issuer, self._clocks.wall_ms())
        await self._check_denials(issuer, found)
        if issuer.one_use:
            await self._use_up(issuer, found)
        return Principal(
            found.subject, found.role, found.tenant_id, issuer.issuer, credential=found.token_id or ""
        )

    async def _check_denials(self, issuer: IssuerConfig, found: Identity) -> None:
        token = None if found.token_id is None else _token_hash(issuer.issuer, found.token_id)
        denials = await self._store.denials(token, _subject_hash(issuer.issuer, found.subject))
        if denials.token or (denials.before_ms is not None and found.issued_ms < denials.before_ms):
            raise Unauthenticated("the token was revoked")

    async def _use_up(self, issuer: IssuerConfig, found: Identity) -> None:
        assert found.token_id is not None, "identity() asked for it"
        use = await self._store.use_once(
            _token_hash(issuer.issuer, found.token_id),
            until_ms=found.expires_ms + issuer.leeway_s * 1000 + CLOCKS_APART_MS,
            now_ms=self._clocks.wall_ms(),
            size_max=USED_MAX,
        )
        if use is Use.AGAIN:
            raise Unauthenticated("the token was used before, and its issuer's tokens are good once")
        if use is Use.FULL:
            raise Unavailable(f"{USED_MAX} tokens that are good once are remembered, and no more can be")


_FORGOTTEN_MS: Final = (MAX_LIFE_S + 2 * MAX_LEEWAY_S) * 1000 + CLOCKS_APART_MS
"""After that, no token that was issued before a denial can be good any more."""


def _claims(text: str, keys: Sequence[PyJWK], algorithm: str, issuer: IssuerConfig) -> dict[str, Any]:
    """The claims of a token that one of the keys signed, for us."""
    why = "the token cannot be read"
    for key in keys:
        try:
            return jwt.decode(
                text,
                key,
                algorithms=[algorithm],
                audience=issuer.audience,
                issuer=issuer.issuer,
                options={
                    "require": list(_REQUIRED),
                    "verify_exp": False,  # these three by `admin.claims`
                    "verify_nbf": False,
                    "verify_iat": False,
                    "enforce_minimum_key_length": True,
                },
            )
        except InvalidSignatureError:
            why = "the token's signature is not its issuer's: it was changed, or made by somebody else"
        except InvalidAudienceError:
            why = "the token is for somebody else: its audience (aud) is not this node's"
            break
        except MissingRequiredClaimError as error:
            why = f"the token has no {error.claim}"
            break
        except (PyJWTError, ValueError, TypeError, RecursionError):
            pass
    # Apart from the library's errors, which may quote the token.
    raise Unauthenticated(why)


def _token_hash(issuer: str, token_id: str) -> bytes:
    return hashlib.sha256(json.dumps(["token", issuer, token_id]).encode()).digest()


def _subject_hash(issuer: str, subject: str) -> bytes:
    return hashlib.sha256(json.dumps(["subject", issuer, subject]).encode()).digest()
