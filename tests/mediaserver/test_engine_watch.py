"""A node whose media engine has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest

from mediaserver import node as node_module
from tests.sim.node import running_node


async def test_a_node_without_its_engine_is_not_ready_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "ENGINE_WATCH_S", 0.02)
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
