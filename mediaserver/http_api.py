"""HTTP on the node: its status, and what other parts add to it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from mediaserver.errors import StartupError
from sipbridge.uri import bracketed

BACKLOG = 128
"""Connections that wait to be accepted."""

StatusSource = Callable[[], dict[str, object]]


def make_app(*routers: APIRouter) -> FastAPI:
    """An application of ``routers``."""
    app = FastAPI(title="AI receptionist media server", docs_url=None, redoc_url=None, openapi_url=None)
    for router in routers:
        app.include_router(router)
    return app


def make_operator_app(status: StatusSource, *routers: APIRouter) -> FastAPI:
    """The application for the operator: counters of the node with the names of its tenants, and what ``routers`` add."""
    app = make_app(*routers)

    @app.get("/status")
    async def node_status() -> dict[str, object]:
        """Counters of the node, for people and scripts."""
        return status()

    return app


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the node decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """An HTTP listener as a part of the node. ``setting``: what names its port in the node's configuration."""

    def __init__(self, app: FastAPI | ASGIApp, host: str, port: int, setting: str = "http.port") -> None:
        self._host = host
        self._port = port
        self._setting = setting
        self._socket: socket.socket | None = None
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                interface="asgi3",
                timeout_graceful_shutdown=2,
                # By default it believes whoever connects from the loopback interface; who is believed is configured
                # (`http.trusted_proxies`).
                proxy_headers=False,
            )
        )

    @property
    def port(self) -> int:
        """The port that is bound."""
        if self._socket is None:
            return self._port
        return int(self._socket.getsockname()[1])

    def bind(self) -> None:
        """Take the port; raises `StartupError` when somebody else has it."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._host, self._port))
        except OSError as error:
            listener.close()
            raise StartupError(
                f"HTTP cannot listen on {bracketed(self._host)}:{self._port}: {error.strerror}. "
                f"Stop what uses the port, or set {self._setting} in the node's configuration."
            ) from error
        self._socket = listener

    def listen(self) -> None:
        """Let requests come; they wait for `serve`."""
        if self._socket is not None:
            self._socket.listen(BACKLOG)

    async def serve(self) -> None:
        """Serve until `stop`."""
        if self._socket is None:
            self.bind()
        assert self._socket is not None
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Ask `serve` to return."""
        self._server.should_exit = True

    def close(self) -> None:
        """Give the port back, where `serve` has not: whoever has connected is told so."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
