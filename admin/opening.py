"""Everything behind the admin API's routes, as a node's configuration says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from admin.api_tokens import ApiTokens
from admin.audit_trail import StoredAuditTrail
from admin.authentication import Authentication
from admin.backings import open_admin_store
from admin.clocks import Clocks
from admin.idempotency_keys import IdempotencyKeys
from admin.jwks import KeySource
from admin.jwt_tokens import JwtTokens
from admin.rate import RateLimiter
from admin.store import AdminStore
from admin.throttle import LoginThrottle
from config.admin import AdminConfig
from config.node import NodeConfig


@dataclass(frozen=True, slots=True)
class AdminParts:
    """What the routes are given."""

    authenticator: Authentication
    tokens: ApiTokens
    issued: JwtTokens
    """JWTs; here to deny some."""
    audit: StoredAuditTrail
    idempotency: IdempotencyKeys
    limiter: RateLimiter
    store: AdminStore

    async def aclose(self) -> None:
        """Let go of everything."""
        await self.issued.aclose()
        await self.store.close()


async def open_admin(
    config: NodeConfig, environ: Mapping[str, str], clocks: Clocks | None = None
) -> AdminParts:
    """Open all of it; ``config.admin`` has to be there. Raises `Unavailable`."""
    assert config.admin is not None, "who opens the admin API looks whether there is one"
    store = await open_admin_store(config, environ)
    try:
        return await _parts(store, config.admin, Clocks() if clocks is None else clocks)
    except BaseException:
        await store.close()
        raise


async def _parts(store: AdminStore, config: AdminConfig, clocks: Clocks) -> AdminParts:
    throttle = LoginThrottle(config.failed_logins)
    tokens = ApiTokens(store, config.tokens, throttle, clocks, os.urandom)
    await tokens.prepare()
    sources = {each.issuer: KeySource(each, clocks.steady_ms) for each in config.issuers}
    issued = JwtTokens(store, config.issuers, sources, throttle, clocks)
    return AdminParts(
        authenticator=Authentication(tokens, issued, throttle, clocks),
        tokens=tokens,
        issued=issued,
        audit=StoredAuditTrail(store),
        idempotency=IdempotencyKeys(store, os.urandom),
        limiter=RateLimiter(config.rate_limit),
        store=store,
    )
