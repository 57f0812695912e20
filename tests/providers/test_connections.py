"""The shared client: warm connections are found, dead ones are replaced once, bodies are bounded."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import cast

import aiohttp
import pytest
from yarl import URL

from mediaserver.providers.asking import ProviderCare
from mediaserver.providers.connections import (
    MAX_ANSWER_BYTES,
    MAX_WARMING,
    WARM_EVERY_S,
    ConnectionWarmer,
    ProviderClient,
)
from mediaserver.providers.failures import AnswerMalformed, AnswerTooLarge
from mediaserver.providers.openai_api import OpenAIApi
from mediaserver.providers.stats import ProviderStats
from perf.simulators import Script, running
from tests.providers.stages import CANARY, WAV, CallStages, provider

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n" + b'{"text": "word"}'


class Peer:
    """A server that counts connections and requests; ``serve`` decides what each request gets."""

    def __init__(self, serve: Callable[[Peer, asyncio.StreamWriter, bytes], Awaitable[bool]]) -> None:
        self._serve = serve
        self.connections = 0
        self.requests: list[bytes] = []
        self.url = ""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                self.requests.append(head + body)
                if not await self._serve(self, writer, head):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def peer(
    serve: Callable[[Peer, asyncio.StreamWriter, bytes], Awaitable[bool]],
) -> AsyncIterator[Peer]:
    one = Peer(serve)
    server = await asyncio.start_server(one.connected, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield one


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    cast(asyncio.Transport, writer.transport).abort()


async def answering(_: Peer, writer: asyncio.StreamWriter, __: bytes) -> bool:
    writer.write(OK)
    return True


def dying_on(*numbers: int) -> Callable[[Peer, asyncio.StreamWriter, bytes], Awaitable[bool]]:
    """A server whose connection dies on the requests of these numbers, counted from 1."""

    async def serve(one: Peer, writer: asyncio.StreamWriter, _: bytes) -> bool:
        if len(one.requests) in numbers:
            reset(writer)
            return False
        writer.write(OK)
        return True

    return serve


async def transcribe(client: ProviderClient, url: str) -> str:
    return await OpenAIApi(client, url, CANARY).transcribe("m", WAV, "en")


async def test_a_dead_pooled_connection_costs_one_retry_with_the_whole_request() -> None:
    stats = ProviderStats()
    client = ProviderClient(stats)
    async with peer(dying_on(2)) as one:
        assert [await transcribe(client, one.url) for _ in range(2)] == ["word"] * 2
        assert (one.connections, len(one.requests)) == (2, 3)
        assert one.requests[1].count(WAV) == one.requests[2].count(WAV) == 1
        await client.aclose()
    assert stats.snapshot().dead_connections_retried == 1


async def test_a_second_death_is_a_failure() -> None:
    stats = ProviderStats()
    client = ProviderClient(stats)
    async with peer(dying_on(2, 3)) as one:
        await transcribe(client, one.url)
        with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await transcribe(client, one.url)
        assert len(one.requests) == 3
        await client.aclose()
    assert stats.snapshot().dead_connections_retried == 1


async def test_a_death_on_a_new_connection_is_not_retried() -> None:
    client = ProviderClient()
    async with peer(dying_on(1)) as one:
        with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await transcribe(client, one.url)
        assert len(one.requests) == 1
        await client.aclose()


async def test_the_operators_proxy_is_used_and_no_credentials_but_the_tenants(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with peer(answering) as proxy, peer(answering) as direct:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with ProviderClient() as client:
            assert await transcribe(client, "http://provider.invalid/v1") == "word"
            assert await transcribe(client, direct.url) == "word"
    assert proxy.requests[0].startswith(b"POST http://provider.invalid/v1/audio/transcriptions ")
    assert len(proxy.requests) == len(direct.requests) == 1
    for request in (*proxy.requests, *direct.requests):
        assert f"Authorization: Bearer {CANARY}".encode() in request
        assert b"Basic" not in request


async def test_a_warmed_connection_is_the_one_that_the_call_uses() -> None:
    stats = ProviderStats()
    client = ProviderClient(stats)

    async def serve(_: Peer, writer: asyncio.StreamWriter, head: bytes) -> bool:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n" if head[:4] == b"HEAD" else OK)
        return True

    async with peer(serve) as one:
        warmer = ConnectionWarmer(client, stats)
        bare = one.url
        warmer.warm([bare, bare.replace("http://", "http://user:secret@"), bare + "/other"])
        await warmer.settled()
        assert await transcribe(client, one.url) == "word"
        assert (one.connections, len(one.requests)) == (1, 2)
        assert b"uthorization" not in one.requests[0]
        await warmer.close()
        await client.aclose()
    snapshot = stats.snapshot()
    assert (snapshot.connections_warmed, snapshot.warmings_failed, snapshot.warmings_spared) == (1, 0, 2)


async def test_warming_is_bounded_and_its_failures_are_nobodys_business(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stats = ProviderStats()
    client = ProviderClient(stats)
    now_s = 0.0

    async def silent(*_: object) -> bool:
        await asyncio.sleep(10)
        return False

    monkeypatch.setattr("mediaserver.providers.connections.WARM_TIMEOUT_S", 0.05)
    async with peer(silent) as one:
        warmer = ConnectionWarmer(client, stats, lambda: now_s)
        warmer.warm([one.url, "http://127.0.0.1:1/v1", "http://[broken", "http://127.0.0.1:2/v1"])
        await warmer.settled()
        assert (stats.warmings_failed, stats.warmings_spared) == (4, 0)
        now_s = WARM_EVERY_S
        warmer.warm([one.url] * 100)
        warmer.warm(f"http://127.0.0.1:{port}/" for port in range(1, 101))
        await warmer.close()
        assert stats.warmings_spared == 99 + 100 - (MAX_WARMING - 1)
        await client.aclose()


async def test_bodies_have_a_limit_packed_ones_are_refused() -> None:
    client = ProviderClient()

    async def endless(_: Peer, writer: asyncio.StreamWriter, head: bytes) -> bool:
        if b"/packed" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx")
            return True
        assert b"accept-encoding: identity" in head.lower()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * MAX_ANSWER_BYTES))
        for _block in range(2 * MAX_ANSWER_BYTES // 65_536):
            writer.write(bytes(65_536))
            await writer.drain()
        return True

    async with peer(endless) as one:
        async with client.request("GET", one.url, {}) as answer:
            with pytest.raises(AnswerTooLarge):
                await answer.read()
        with pytest.raises(AnswerMalformed):
            async with client.request("GET", one.url + "/packed", {}):
                pass
        await client.aclose()


async def test_a_call_warms_the_providers_that_it_will_ask() -> None:
    """From a warmed pool, the three stages of a call open nothing."""
    stats = ProviderStats()
    client = ProviderClient(stats)
    script = Script(transcripts=["word"])
    with running(script) as url:
        async with Doorman(url) as door:
            warmer = ConnectionWarmer(client, stats)
            warmer.warm([door.url])
            await warmer.settled()
            assert door.connections == 1
            call = CallStages([provider(door.url, "m")], client, ProviderCare.fresh())
            assert (await call.hear())[0] == "word"
            await call.reply()
            await call.speak()
            assert door.connections == 1
            await client.aclose()


class Doorman:
    """Passes connections on to another server, and counts them."""

    def __init__(self, url: str) -> None:
        self._behind = URL(url)
        self.url = url
        self.connections = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Doorman:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = str(self._behind.with_port(self._server.sockets[0].getsockname()[1]))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        behind_reader, behind_writer = await asyncio.open_connection(self._behind.host, self._behind.port)
        await asyncio.gather(_carry(reader, behind_writer), _carry(behind_reader, writer))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
