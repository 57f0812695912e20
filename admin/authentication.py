"""`admin.ports.Authenticator`: by what a token looks like, an API token or a JWT."""

from __future__ import annotations

from typing import Final

from admin.api_tokens import ApiTokens
from admin.claims import TOKEN_CHARACTERS_MAX, looks_like_jwt
from admin.clocks import Clocks
from admin.errors import Unauthenticated
from admin.jwt_tokens import JwtTokens
from admin.principals import Principal
from admin.throttle import LoginThrottle
from admin.tokens import PREFIX

HOW: Final = f"send 'Authorization: Bearer TOKEN', where TOKEN is an API token ({PREFIX}…) or a JWT of a configured issuer"


class Authentication:
    """Finds out who asks."""

    def __init__(self, tokens: ApiTokens, issued: JwtTokens, throttle: LoginThrottle, clocks: Clocks) -> None:
        self._tokens = tokens
        self._issued = issued
        self._throttle = throttle
        self._clocks = clocks

    async def authenticate(self, authorization: str | None, source: str) -> Principal:
        """See `admin.ports.Authenticator`. Raises `Forbidden` as well: a good JWT that gives no role here."""
        if authorization is None:
            # Nothing was tried: no failure is counted.
            raise Unauthenticated(f"nobody can do this without a token: {HOW}")
        scheme, _, text = authorization.partition(" ")
        text = text.strip(" ")
        if scheme.lower() == "bearer" and len(text) <= TOKEN_CHARACTERS_MAX:
            if text.startswith(PREFIX):
                return await self._tokens.authenticate(text, source)
            if looks_like_jwt(text):
                return await self._issued.authenticate(text, source)
        self._throttle.check(source, self._clocks.steady_ms())
        self._throttle.failed(source, self._clocks.steady_ms())
        raise Unauthenticated(f"what was sent is no token of a kind that is known here: {HOW}")
