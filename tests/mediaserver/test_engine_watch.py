"""A node whose media engine has ended."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx2
import pytest

from mediaserver import node_parts
from mediaserver._native import StreamFailed
from tests.mediaserver.test_confirmation import RawCaller
from tests.sim.node import running_node


async def test_a_node_without_its_engine_is_not_ready_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_parts, "ENGINE_WATCH_S", 0.02)
    async with running_node(tmp_path) as running:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{running.node.http_port}") as client:
            assert (await client.get("/readyz")).status_code == 200
            hub = running.node._hub
            assert hub is not None
            hub.engine.close()
            assert (await client.get("/readyz")).status_code == 503
        async with asyncio.timeout(10):
            await running.node._stop.wait()
        assert running.node.broken


async def test_the_calls_of_a_media_thread_that_failed_end_and_give_their_lease_back(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        hub = running.node._hub
        assert hub is not None
        caller = RawCaller(running, "unlucky")
        try:
            await caller.send("INVITE", caller.description())
            await caller.response(200)
            await caller.send("ACK")
            await caller.packets(5)
            for link in list(hub._links.values()):
                link.deliver(StreamFailed(stream=link.stream, reason="engine failed"))
            async with asyncio.timeout(10):
                loop = asyncio.get_running_loop()
                while not (bye := await loop.sock_recv(caller.sip, 4_096)).startswith(b"BYE "):
                    pass
                copied = re.findall(rb"(?m)^(?:Via|From|To|Call-ID|CSeq):.*\r\n", bye)
                answer = b"SIP/2.0 200 OK\r\n" + b"".join(copied) + b"Content-Length: 0\r\n\r\n"
                await loop.sock_sendto(caller.sip, answer, ("127.0.0.1", running.sip_port))
                await running.node.idle()
        finally:
            caller.close()
        snapshot = running.node.gate.snapshot()
        assert (snapshot.in_use, snapshot.double_releases, running.node.media_stats()["streams"]) == (0, 0, 0)
        assert all(running.node.ready().values())
