"""What the API's routes work on, and how they get at it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import Request

from admin.api_tokens import ApiTokens
from admin.errors import AdminError
from admin.ports import AuditTrail, Authenticator, Idempotency, Limiter
from admin.principals import Principal
from config.node import NodeConfig
from config.tenant import TenantConfig
from tenancy import Registry
from tenancy.lifecycle import Lifecycle
from tenancy.versions import Origin
from vault import Vault

Reachability = Callable[[TenantConfig], Awaitable[tuple[tuple[str, ...], tuple[str, ...]]]]
"""The roots of a configuration's providers that answer, and those that do not, with why."""


class NoVault(AdminError):  # noqa: N818
    """This node keeps no keys."""

    status = 409
    kind = "no_vault"


def _utc() -> datetime:
    return datetime.now(UTC)


async def _nobody(tenant_id: str) -> None:
    """Nobody wants to know of changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All of it. What only a media server can say or wants to know is given in."""

    node: NodeConfig
    registry: Registry
    lifecycle: Lifecycle
    """With the dry run by which versions are checked."""
    vault: Vault | None
    authenticator: Authenticator
    tokens: ApiTokens
    audit: AuditTrail
    idempotency: Idempotency
    limiter: Limiter
    reachability: Reachability
    steady_ms: Callable[[], int]
    now: Callable[[], datetime] = _utc
    on_changed: Callable[[str], Awaitable[None]] = _nobody
    """Told the tenant whose next call may be another's, after the change."""
    source: Callable[[Request], str] = lambda request: request.client.host if request.client else "local"
    """The address that a request is from: behind proxies that are trusted, the client's."""
    count: Callable[[str, int], object] = lambda _action, _status: None
    """Told each answer: the route's name and the status."""

    def origin(self, principal: Principal, reason: str) -> Origin:
        """Who changes a configuration now, and why. Raises `tenancy.ChangeRefused`."""
        return self.lifecycle.origin(principal.name, reason)

    def keys(self) -> Vault:
        """The vault. Raises `NoVault`."""
        if self.vault is None:
            raise NoVault("this node has no vault: its configuration has no vault section")
        return self.vault


def services_of(request: Request) -> Services:
    """The application's."""
    return cast(Services, request.app.state.services)


def principal_of(request: Request) -> Principal:
    """Who asks; `admin.guard` has found out."""
    return cast(Principal, request.state.principal)


In = Annotated[Services, Depends(services_of)]
Asking = Annotated[Principal, Depends(principal_of)]
