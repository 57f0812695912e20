"""A node's login, for JWTs of a provider that runs."""

from __future__ import annotations

import pytest

from admin.api_tokens import ApiTokens
from admin.authentication import Authentication
from admin.errors import Unauthenticated
from admin.jwks import KeySource
from admin.jwt_tokens import JwtTokens
from admin.principals import Principal
from admin.sql_store import SqlStore
from admin.throttle import LoginThrottle
from config.admin import ApiTokensConfig, IssuerConfig, RateLimit
from tests.admin.issuer import (
    AUDIENCE,
    Issuer,
)
from tests.admin.turned import Turned

HERE = "192.0.2.1"


def config(issuer: Issuer, **fields: object) -> IssuerConfig:
    values: dict[str, object] = {
        "issuer": issuer.url,
        "audience": AUDIENCE,
        "algorithms": ("RS256", "PS256", "ES256", "EdDSA"),
        "operator_role": "admin",
        "tenant_role": "shop",
        "timeout_ms": 2_000,
    }
    return IssuerConfig.model_validate(values | fields)


class Node:
    """A node's login, for JWTs."""

    def __init__(self, store: SqlStore, turned: Turned, *issuers: IssuerConfig, burst: int = 1_000) -> None:
        self.turned = turned
        self.throttle = LoginThrottle(RateLimit(per_minute=60, burst=burst))
        self.sources = {each.issuer: KeySource(each, turned.clocks.steady_ms) for each in issuers}
        self.issued = JwtTokens(store, issuers, self.sources, self.throttle, turned.clocks)
        tokens = ApiTokens(store, ApiTokensConfig(), self.throttle, turned.clocks, bytes)
        self.login = Authentication(tokens, self.issued, self.throttle, turned.clocks)

    async def who(self, token: str) -> Principal:
        return await self.login.authenticate(f"Bearer {token}", HERE)

    async def takes(self, token: str) -> bool:
        return (await self.who(token)).subject != ""

    async def refused(self, token: str) -> str:
        with pytest.raises(Unauthenticated) as caught:
            await self.who(token)
        text = str(caught.value)
        assert caught.value.__cause__ is None
        for part in token.split("."):
            assert len(part) < 8 or part not in text
        return text
