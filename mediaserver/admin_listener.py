"""The admin API's listener in a node.

A store of the API's that cannot be opened keeps no call from being answered: the listener says 503, and tries again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Final

from fastapi import FastAPI
from loguru import logger
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from admin.app import make_admin_app
from admin.errors import AdminError
from admin.opening import AdminParts, open_admin
from admin.problems import ProblemDetails
from admin.services import Services
from config.node import NodeConfig
from mediaserver.configuring.dry_run import dry_run_on
from mediaserver.configuring.reachability import unreachable
from mediaserver.http_api import HttpServer
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import ADMIN_ANSWERS
from mediaserver.webrtc.proxies import source_behind
from tenancy import Registry
from tenancy.database import unbroken
from tenancy.keys import TenantKeys
from tenancy.lifecycle import Lifecycle
from tenancy.spending import unpriced

CLOSE_S: Final = 10.0
"""For requests that are under way when the node stops."""
RETRY_S: Final = 10.0
"""Between two attempts to open the API's store."""


class AdminListener:
    """Binds with the node's other ports, is given the node's tenants when they are there, and lets requests come last."""

    def __init__(self, config: NodeConfig, environ: Mapping[str, str], meters: Meters) -> None:
        """``config`` has an ``admin`` section."""
        assert config.admin is not None, "a node without the section has no listener"
        self._config = config
        self._environ = environ
        self._host = config.admin.host
        self._meters = meters
        self._trusted = tuple(ip_network(each) for each in config.http.trusted_proxies)
        self._server = HttpServer(self._answer, config.admin.host, config.admin_port, "admin.port")
        self._registry: Registry | None = None
        self._keys: TenantKeys | None = None
        self._on_changed: Callable[[str], None] = lambda _: None
        self._parts: AdminParts | None = None
        self._app: FastAPI | None = None
        self._opening = asyncio.Lock()
        self._retry_at = 0.0
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._closed = False
        self.fault = ""
        """Why the API cannot be used; empty: it can."""

    @property
    def host(self) -> str:
        """The address that it listens on."""
        return self._host

    @property
    def port(self) -> int:
        """The port that is bound."""
        return self._server.port

    def bind(self) -> None:
        """Take the port. Raises `StartupError`."""
        self._server.bind()

    async def open(
        self, registry: Registry, keys: TenantKeys | None, on_changed: Callable[[str], None]
    ) -> None:
        """Work on a node's tenants from now on; ``on_changed`` is told whose next call may be another's."""
        self._registry, self._keys, self._on_changed = registry, keys, on_changed
        async with self._opening:
            await self._try()
        self._server.listen()

    async def serve(self) -> None:
        """Serve until `stop`."""
        await self._server.serve()

    def stop(self) -> None:
        """Ask `serve` to return."""
        self._server.stop()

    async def aclose(self) -> None:
        """Let what was begun come to its end, for `CLOSE_S` at most, and let go of the API's store and of the port.

        A change is carried out even where its client is gone; the node's stores are closed after this.
        """
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._quiet.wait()
        except TimeoutError:
            logger.error("{} requests of the admin API are cut off: they take too long", self._under_way)
        async with self._opening:
            parts, self._parts, self._app, self._registry = self._parts, None, None, None
            if parts is not None:
                await parts.aclose()
        self._server.close()

    def status(self) -> dict[str, object]:
        """For the node's own."""
        return {"port": self.port, "usable": self._app is not None, "fault": self.fault}

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None and asyncio.get_running_loop().time() >= self._retry_at:
            async with self._opening:
                await self._try()
        if self._app is not None and not self._closed:
            await self._counted(self._app, scope, receive, send)
        elif scope["type"] == "http":
            await _unavailable().response(uuid.uuid4().hex)(scope, receive, send)

    async def _counted(self, app: FastAPI, scope: Scope, receive: Receive, send: Send) -> None:
        """A request that is waited for: uvicorn cancels it, and what it has begun goes on (`unbroken`)."""
        self._under_way += 1
        self._quiet.clear()
        try:
            await app(scope, receive, send)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._quiet.set()

    async def _try(self) -> None:
        if self._app is not None or self._registry is None or self._closed:
            return
        self._retry_at = asyncio.get_running_loop().time() + RETRY_S
        try:
            # As a whole, though who asks hangs up: half opened, nobody would close it.
            parts = self._parts = await unbroken(open_admin(self._config, self._environ))
        except AdminError as error:
            self.fault = str(error)
            logger.error("the admin API cannot be used, calls are answered all the same: {}", error)
            return
        self.fault = ""
        self._app = make_admin_app(self._services(self._registry, parts))

    def _services(self, registry: Registry, parts: AdminParts) -> Services:
        config, environ = self._config, self._environ
        loop = asyncio.get_running_loop()

        async def changed(tenant_id: str) -> None:
            self._on_changed(tenant_id)

        return Services(
            node=config,
            registry=registry,
            lifecycle=Lifecycle(
                registry.store,
                dry_run=dry_run_on(config, environ),
                unpriced=lambda tenant: unpriced(tenant.providers, config.providers, environ),
            ),
            vault=None if self._keys is None else self._keys.vault,
            authenticator=parts.authenticator,
            tokens=parts.tokens,
            audit=parts.audit,
            idempotency=parts.idempotency,
            limiter=parts.limiter,
            reachability=lambda tenant: unreachable(tenant, config.providers, environ),
            steady_ms=lambda: round(loop.time() * 1000),
            on_changed=changed,
            count=self._count,
            source=self._source,
        )

    def _count(self, action: str, status: int) -> None:
        self._meters.inc(ADMIN_ANSWERS, action, f"{status // 100}xx")

    def _source(self, request: Request) -> str:
        peer = request.client.host if request.client is not None else "unknown"
        return source_behind(peer, request.headers.getlist("x-forwarded-for"), self._trusted)


def _unavailable() -> ProblemDetails:
    wait = {"Retry-After": str(round(RETRY_S))}
    return ProblemDetails(503, "unavailable", "the admin API's store cannot be used now", headers=wait)
