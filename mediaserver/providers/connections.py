"""Connections to providers: one pool for a process, warm before a call needs them, and not trusted to be alive.

A pooled connection may have died unnoticed: a load balancer closed it a moment ago, or a router forgot it. The first shows
as an end of the connection before any byte of the answer, and the request is sent once more on a connection of its own.
The second shows as silence; the kernel is told to notice it (`DEAD_PEER_MS`), and the stage's budget ends the wait.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from importlib.util import find_spec
from typing import Any
from urllib.request import getproxies

import httpx2
from openai import DefaultAsyncHttpxClient

from mediaserver.providers.failures import AnswerMalformed, AnswerTooLarge
from mediaserver.providers.stats import ProviderStats

MAX_PROVIDER_CONNECTIONS = 1_000
MAX_IDLE_CONNECTIONS = 100
KEEPALIVE_S = 50.0
"""Less than the 60 s after which common load balancers close an idle connection."""
DEAD_PEER_MS = 2_000
"""Data that the peer's kernel has not acknowledged for so long ends the connection (TCP_USER_TIMEOUT, RFC 5482)."""
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Of any answer: two minutes of speech are 5.8 MB."""
WARM_EVERY_S = 30.0
WARM_TIMEOUT_S = 1.0
MAX_WARMING = 32
MAX_ORIGINS = 1_024


def _socket_options() -> list[tuple[int, int, int]]:
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (
        ("TCP_USER_TIMEOUT", DEAD_PEER_MS),
        ("TCP_KEEPIDLE", 10),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
    ):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _client_options(trusted: ssl.SSLContext, *, idle_connections: int) -> dict[str, Any]:
    http2 = find_spec("h2") is not None
    limits = httpx2.Limits(
        max_connections=MAX_PROVIDER_CONNECTIONS,
        max_keepalive_connections=idle_connections,
        keepalive_expiry=KEEPALIVE_S,
    )
    options: dict[str, Any] = {"verify": trusted, "limits": limits, "http2": http2}
    if "all" not in getproxies():
        # As a mount, so that the operator's HTTP(S)_PROXY still has its say: a transport would switch that off.
        options["mounts"] = {"all://": httpx2.AsyncHTTPTransport(**options, socket_options=_socket_options())}
    return options


class ProviderClient(DefaultAsyncHttpxClient):
    """The HTTP client of a process for all its providers; close it with the process.

    A client of its own for each call would open its connections anew in the middle of the caller's turn, and leave them
    to the garbage collector. Keys are not in it: each request carries its own.
    """

    def __init__(self, stats: ProviderStats | None = None) -> None:
        trusted = httpx2.create_ssl_context()
        super().__init__(
            **_client_options(trusted, idle_connections=MAX_IDLE_CONNECTIONS),
            # A body that grows when it is unpacked has no bound; speech and short texts gain nothing from packing.
            headers={"Accept-Encoding": "identity"},
        )
        self._stats = stats or ProviderStats()
        self._fresh = httpx2.AsyncClient(**_client_options(trusted, idle_connections=0))

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """Send a request; once more on a fresh connection where a pooled one turns out dead.

        Raises:
            AnswerTooLarge: the body goes past `MAX_ANSWER_BYTES`; also while it is read.
            AnswerMalformed: the body is packed although that was not asked for.
        """
        opened = False

        async def trace(event: str, _: object) -> None:
            nonlocal opened
            opened = opened or event.endswith((".connect_tcp.started", ".connect_unix_socket.started"))

        request.extensions = {**request.extensions, "trace": trace}
        try:
            response = await super().send(request, stream=True, **options)
        except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
            # RFC 9110 9.2.2 lets a client repeat what the server cannot have answered. A provider may bill the lost
            # request; a caller who waits for nothing is dearer.
            if opened:
                raise
            self._stats.dead_connections_retried += 1
            response = await self._fresh.send(request, stream=True, **options)
        try:
            _bound(response)
            if not stream:
                await response.aread()
        except BaseException:
            await response.aclose()
            raise
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        await super().aclose()
        await self._fresh.aclose()


def _bound(response: httpx2.Response) -> None:
    """Give the answer's body its limit, before any of it is read."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise AnswerMalformed("a packed body", request=response.request)
    body = response.stream
    assert isinstance(body, httpx2.AsyncByteStream)
    response.stream = _BoundedStream(body, response.request)


class _BoundedStream(httpx2.AsyncByteStream):
    """A body that ends in an error where it goes past its limit."""

    def __init__(self, body: httpx2.AsyncByteStream, request: httpx2.Request) -> None:
        self._body = body
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = 0
        chunks = aiter(self._body)
        try:
            async for chunk in chunks:
                taken += len(chunk)
                if taken > MAX_ANSWER_BYTES:
                    raise AnswerTooLarge(f"more than {MAX_ANSWER_BYTES} bytes", request=self._request)
                yield chunk
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    async def aclose(self) -> None:
        await self._body.aclose()


class ConnectionWarmer:
    """Opens connections to a call's providers while the call is being answered.

    One request without a key and without a body to each origin that was not warmed for `WARM_EVERY_S`; what it says is of
    no interest, the connection that it leaves in the pool is.
    """

    def __init__(
        self, http: httpx2.AsyncClient, stats: ProviderStats, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._http = http
        self._stats = stats
        self._clock = clock
        self._warmed_at: OrderedDict[tuple[str, str, int | None], float] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def warm(self, base_urls: Iterable[str]) -> None:
        """Begin to open what is missing; returns at once."""
        now = self._clock()
        for base_url in base_urls:
            try:
                url = httpx2.URL(base_url)
            except httpx2.InvalidURL:
                continue
            origin = (url.scheme, url.host, url.port)
            if now - self._warmed_at.get(origin, -WARM_EVERY_S) < WARM_EVERY_S:
                self._stats.warmings_spared += 1
                continue
            if len(self._tasks) >= MAX_WARMING:
                self._stats.warmings_spared += 1
                continue
            self._warmed_at[origin] = now
            self._warmed_at.move_to_end(origin)
            if len(self._warmed_at) > MAX_ORIGINS:
                self._warmed_at.popitem(last=False)
            # A root may have a user and a password in it, which are for the call's own requests.
            bare = url.copy_with(username=None, password=None, query=None, fragment=None)
            task = asyncio.get_running_loop().create_task(self._open(bare), name="provider-warming")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self, url: httpx2.URL) -> None:
        try:
            async with asyncio.timeout(WARM_TIMEOUT_S):
                request = self._http.build_request("HEAD", url)
                await self._http.send(request, follow_redirects=False)
                self._stats.connections_warmed += 1
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError):
            self._stats.warmings_failed += 1

    async def settled(self) -> None:
        """Wait for what is under way, `WARM_TIMEOUT_S` at most."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """End what is under way."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
