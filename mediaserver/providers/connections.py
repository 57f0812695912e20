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
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from mediaserver.providers.failures import AnswerMalformed, AnswerTooLarge
from mediaserver.providers.stats import ProviderStats

MAX_PROVIDER_CONNECTIONS = 1_000
MAX_LIVE_CONNECTIONS = 2_000
"""Web sockets, which a call has for as long as it lasts."""
MAX_LIVE_MESSAGE_BYTES = 256 * 1024
LIVE_CLOSE_S = 0.5
"""For the closing handshake of a web socket."""
KEEPALIVE_S = 50.0
"""Less than the 60 s after which common load balancers close an idle connection."""
DEAD_PEER_MS = 2_000
"""Data that the peer's kernel has not acknowledged for so long ends the connection (TCP_USER_TIMEOUT, RFC 5482)."""
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Of any answer: two minutes of speech are 5.8 MB."""
MAX_REQUEST_S = 120.0
"""The last resort: the stages' budgets end requests long before."""
MAX_REDIRECTS = 3
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


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = address
    one = socket.socket(family, kind, protocol)
    for option in _socket_options():
        one.setsockopt(*option)
    return one


class Answer:
    """The head of an HTTP answer, and its body with a limit."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.kind = response.headers.get("Content-Type", "").strip().lower()
        """The media type, with its parameters; empty when none is given."""
        self.retry_after = response.headers.get("Retry-After")

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes.

        Raises:
            AnswerTooLarge: it goes past `MAX_ANSWER_BYTES`.
        """
        taken = 0
        async for piece in self._response.content.iter_any():
            taken += len(piece)
            if taken > MAX_ANSWER_BYTES:
                raise AnswerTooLarge(f"more than {MAX_ANSWER_BYTES} bytes")
            yield piece

    async def read(self) -> bytes:
        """The whole body; raises what `pieces` raises."""
        return b"".join([piece async for piece in self.pieces()])

    async def beginning(self, limit: int, wait_s: float) -> bytes:
        """What comes of the body within a time, up to about ``limit`` bytes."""
        taken = bytearray()
        try:
            async with asyncio.timeout(wait_s):
                async for piece in self._response.content.iter_any():
                    taken += piece
                    if len(taken) >= limit:
                        break
        except (aiohttp.ClientError, OSError):
            pass  # TimeoutError among them: what there is has to do.
        return bytes(taken)


class ProviderClient:
    """The HTTP client of a process for all its providers; close it with the process.

    A client of its own for each call would open its connections anew in the middle of the caller's turn, and leave them
    to the garbage collector. Keys are not in it: each request carries its own.
    """

    def __init__(self, stats: ProviderStats | None = None) -> None:
        self.stats = stats or ProviderStats()
        self._trusted = ssl.create_default_context()
        self._proxies = getproxies()
        """The operator's HTTP_PROXY and HTTPS_PROXY, by scheme. Not aiohttp's own ``trust_env``: that takes credentials from
        a .netrc file too, which would stand against the tenant's key."""
        self._pooled: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._live: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def request(
        self, method: str, url: str | URL, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncIterator[Answer]:
        """Send a request, once more on a fresh connection where a pooled one turns out dead; the answer's head.

        Raises:
            AnswerMalformed: the body is packed although that was not asked for.
            aiohttp.ClientError, OSError, TimeoutError, ValueError: as the client does.
        """
        opened = SimpleNamespace(new=False)
        options: dict[str, Any] = {"headers": headers, "data": body or None, "max_redirects": MAX_REDIRECTS}
        if self._proxies:
            options["proxy"] = self._proxy_of(URL(url))
        if self._pooled is None or self._fresh is None:
            self._pooled, self._fresh = self._session(), self._session(force_close=True)
        try:
            response = await self._pooled.request(method, url, trace_request_ctx=opened, **options)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError):
            # RFC 9110 9.2.2 lets a client repeat what the server cannot have answered. A provider may bill the lost
            # request; a caller who waits for nothing is dearer.
            if opened.new:
                raise
            self.stats.dead_connections_retried += 1
            response = await self._fresh.request(method, url, **options)
        async with response:
            # A body that grows when it is unpacked has no bound; speech and short texts gain nothing from packing.
            if response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity"):
                raise AnswerMalformed("a packed body")
            yield Answer(response)

    @asynccontextmanager
    async def websocket(
        self, url: str, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A web socket (RFC 6455) of its own, without compression.

        Raises:
            aiohttp.ClientError, OSError, ValueError: as the client does; `WSServerHandshakeError` with the status.
        """
        if self._live is None:
            self._live = self._session(limit=MAX_LIVE_CONNECTIONS, force_close=True)
        async with self._live.ws_connect(
            url,
            headers=headers,
            proxy=self._proxy_of(URL(url)),
            max_msg_size=MAX_LIVE_MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=LIVE_CLOSE_S),
        ) as live:
            yield live

    def _proxy_of(self, url: URL) -> str | None:
        """The proxy for an address; None where NO_PROXY has it, or there is none for its scheme."""
        if url.host is None or proxy_bypass(url.host):
            return None
        return self._proxies.get(url.scheme)

    def _session(
        self, *, limit: int = MAX_PROVIDER_CONNECTIONS, force_close: bool = False
    ) -> aiohttp.ClientSession:
        async def opens(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
            if context.trace_request_ctx is not None:
                context.trace_request_ctx.new = True

        traces = aiohttp.TraceConfig()
        traces.on_connection_create_start.append(opens)
        lasting: dict[str, Any] = {"force_close": True} if force_close else {"keepalive_timeout": KEEPALIVE_S}
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._trusted, limit=limit, socket_factory=_socket, **lasting),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=MAX_REQUEST_S),
            trace_configs=[traces],
        )

    async def aclose(self) -> None:
        """Close every connection."""
        for session in (self._pooled, self._fresh, self._live):
            if session is not None:
                await session.close()
        self._pooled = self._fresh = self._live = None

    async def __aenter__(self) -> ProviderClient:
        """As it is: connections are opened by requests."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self.aclose()


class ConnectionWarmer:
    """Opens connections to a call's providers while the call is being answered.

    One request without a key and without a body to each origin that was not warmed for `WARM_EVERY_S`; what it says is of
    no interest, the connection that it leaves in the pool is.
    """

    def __init__(
        self, http: ProviderClient, stats: ProviderStats, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._http = http
        self._stats = stats
        self._clock = clock
        self._warmed_at: OrderedDict[URL, float] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def warm(self, base_urls: Iterable[str]) -> None:
        """Begin to open what is missing; returns at once."""
        now = self._clock()
        for base_url in base_urls:
            try:
                # A root may have a user and a password in it, which are for the call's own requests.
                url = URL(base_url).with_user(None).with_query(None).with_fragment(None)
                origin = url.origin()
            except ValueError:
                self._stats.warmings_failed += 1
                continue
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
            task = asyncio.get_running_loop().create_task(self._open(url), name="provider-warming")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self, url: URL) -> None:
        try:
            async with asyncio.timeout(WARM_TIMEOUT_S), self._http.request("HEAD", url, {}):
                self._stats.connections_warmed += 1
        except (aiohttp.ClientError, AnswerMalformed, OSError, ValueError):
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
