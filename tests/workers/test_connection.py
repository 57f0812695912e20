"""One end of the socket between edge and worker: a peer that does not read, sends garbage, or runs out of memory."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mediaserver._native import MediaError
from mediaserver.telemetry.redaction import Redactor
from mediaserver.workers import worker
from mediaserver.workers.connection import MAX_UNSENT_OCTETS, Connection
from mediaserver.workers.far_link import MAX_QUEUED_MS, FarMediaLink
from mediaserver.workers.messages import Message, OpenCall, Ping, Play
from mediaserver.workers.worker_settings import EXIT_NO_MEMORY

CHUNK = bytes(1_000_000)


async def _end(of: socket.socket) -> tuple[Connection, asyncio.Future[str], list[Message]]:
    lost, got = asyncio.get_running_loop().create_future(), list[Message]()
    of.setblocking(False)
    connection = await Connection.open(of, lambda _, message: got.append(message), lost.set_result)
    return connection, lost, got


async def test_a_peer_that_does_not_read_is_given_up_within_the_bound() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        connection, lost, _ = await _end(ours)
        sent = 0
        while not lost.done():
            connection.send(1, Play(1, 24_000, CHUNK))
            sent += len(CHUNK)
            await asyncio.sleep(0)
            assert sent < 2 * MAX_UNSENT_OCTETS
        assert lost.result() == "it does not read"
        connection.send(1, Ping(1))  # Nothing comes of it.


async def test_a_peer_that_sends_garbage_is_given_up_with_the_reason() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        _, lost, got = await _end(ours)
        theirs.send(b"\x09\x00\x00\x00" + bytes([250]) + bytes(8))
        assert "no message has the kind 250" in await asyncio.wait_for(lost, 5)
        assert not got


async def test_a_peer_that_ends_is_told_once() -> None:
    ours, theirs = socket.socketpair()
    connection, lost, _ = await _end(ours)
    theirs.close()
    assert "closed" in await asyncio.wait_for(lost, 5)
    connection.close("again")


async def test_a_call_that_takes_the_memory_takes_its_worker_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a process that ran out of memory cannot be relied on: it ends, and the edge goes on with others."""
    ended: list[int] = []

    def no_memory(_: str) -> None:
        raise MemoryError

    monkeypatch.setattr(worker, "load_context", no_memory)
    monkeypatch.setattr("os._exit", ended.append)
    call = worker._Call(1, OpenCall("{}", "", 0), lambda *_: None, Redactor())
    await call.run(None)  # type: ignore[arg-type] # it does not come so far
    assert ended == [EXIT_NO_MEMORY]


def test_speech_beyond_what_the_engine_would_queue_is_refused_as_the_engine_does() -> None:
    sent: list[Message] = []
    link = FarMediaLink(sent.append, 0)
    second = bytes(48_000)
    for _ in range(MAX_QUEUED_MS // 1000):
        link.play(second, 24_000, link.next_mark())
    with pytest.raises(MediaError, match="110 s of speech"):
        link.play(second, 24_000, link.next_mark())
    assert len(sent) == MAX_QUEUED_MS // 1000
