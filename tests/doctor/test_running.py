"""The doctor beside a node that runs: in this process, and as an operator runs both."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import orjson

from mediaserver.doctor.checks import Status
from mediaserver.doctor.command import examine_node
from mediaserver.softphone.speech import Utterance
from perf.simulators import Script, running
from tests.sim import forked
from tests.sim.command import operator_root, serve
from tests.sim.node import RunningNode, running_node


def free_ports(count: int) -> int:
    """The first of so many in a row that nobody has at the moment."""
    for first in range(21_000, 60_000, 17):
        held = []
        try:
            for port in range(first, first + count):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    held.append(socket.socket(socket.AF_INET, kind))
                    held[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        else:
            return first
        finally:
            for each in held:
                each.close()
    raise AssertionError("no port is free")


async def look(node: RunningNode) -> dict[str, Any]:
    return {each.name: each for each in await examine_node(node.node._config, {})}


async def test_a_node_that_runs_is_asked_and_what_it_measured_outlives_it(
    tmp_path: Path, question: Utterance
) -> None:
    first = free_ports(3)
    async with running_node(tmp_path, sip_port=first, http_port=first + 1, slots=1) as node:
        found = await look(node)
        assert found["node"].status is Status.OK
        assert (found["node"].figures["pid"], found["node"].figures["slots"]) == (os.getpid(), 1)
        assert found["nodes"].figures["here"] == [os.getpid()]
        for port in ("SIP port", "HTTP port", "operator port"):
            assert found[port].status is Status.OK
            assert found[port].measured.endswith("held by the node")
        assert found["shared.db"].status is found["tenants' files"].status is Status.OK
        assert found["gate: nodes"].measured == "nothing was measured in the last 60 min"
        during: list[dict[str, Any]] = []
        calling = asyncio.create_task(node.call(question))
        async with asyncio.timeout(20):
            while node.node.calls[0] == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        during.append(await look(node))
        await asyncio.sleep(1.1)  # Calls are looked at once a second.
        assert (await calling).answered
        assert during[0]["node"].status is Status.WARNING, "its one slot is taken"
        assert during[0]["node"].figures["active_calls"] == 1
        node.node._ready = False
        node.node._switchboard.drain()  # type: ignore[union-attr] # it runs
        draining = (await look(node))["node"]
        assert (draining.status, "not ready: not_draining" in draining.measured) == (Status.WARNING, True)
        config = node.node._config
    after = {each.name: each for each in await examine_node(config, {})}
    assert after["node"].measured.startswith("none runs")
    assert after["nodes"].figures["here"] == []
    calls = after["gate: concurrency"]
    assert calls.figures["peak"] == 1.0, "the call took all of the slots"
    assert calls.figures["exceeded_minutes"] in (1, 2)
    assert (calls.status, calls.figures["reached"]) == (Status.OK, False)
    assert after["gate: cross_tenant"].figures["latest"] is not None


async def doctor(directory: Path, *options: str) -> tuple[int | None, str]:
    done = await forked.start("doctor", "--config", directory / "node.yaml", *options)
    return done.returncode, done.stdout.decode()


async def test_an_operator_finds_the_second_node_and_the_one_that_was_killed(tmp_path: Path) -> None:
    with running(Script()) as url:
        first = await serve(tmp_path, url, "--workers", "0")
        try:
            await operator_root(first)
            status, said = await doctor(tmp_path, "--json")
            document = orjson.loads(said)
            checks = {each["name"]: each for each in document["checks"]}
            assert not [each for each in document["checks"] if each["status"] == "error"]
            assert status == {"ok": 0, "warning": 1}[document["status"]]
            assert checks["node"]["figures"]["pid"] == first.pid
            second = await serve(tmp_path, url, "--workers", "0")
            try:
                await operator_root(second)
                status, said = await doctor(tmp_path)
                assert status == 2
                assert f"have {tmp_path / 'data'} open: process {first.pid}, process {second.pid}" in said
            finally:
                second.kill()
                await second.wait()
            status, said = await doctor(tmp_path)
            assert status in (0, 1), said
            assert f"process {second.pid}" not in said
        finally:
            first.terminate()
            await first.wait()
        status, said = await doctor(tmp_path)
        assert status == 1, said
        assert f"none runs on {tmp_path / 'data'}" in said
