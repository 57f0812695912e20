"""How a provider can go wrong, on the wire: resets, silence, half-open connections, and answers that are none.

`Fault` names them; `answer_with` commits one in place of an answer. Resets are real ones (RST, by SO_LINGER of zero), for
which uvicorn's protocol has to hand its transport to the application: `protocol_with` makes one that does.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Any, cast

import orjson
from fastapi import Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

NOISE_BYTES = 3 * 1024 * 1024
ENORMOUS_BYTES = 64 * 1024 * 1024
BLOCK_BYTES = 64 * 1024
FOREVER_S = 3_600
SEGMENT_S = 0.02
"""Between what is sent and the reset after it, so that the peer sees both."""


class Fault(StrEnum):
    """What a provider does instead of its work."""

    RESET_AT_ACCEPT = "reset_at_accept"
    """Of every connection, whatever it would have asked for."""
    RESET_BEFORE_ANSWER = "reset_before_answer"
    RESET_AFTER_HEADERS = "reset_after_headers"
    RESET_IN_ANSWER = "reset_in_answer"
    SILENT = "silent"
    """Takes the request and never answers."""
    HEADERS_THEN_SILENT = "headers_then_silent"
    SILENT_IN_ANSWER = "silent_in_answer"
    MALFORMED = "malformed"
    """Half a JSON document, or events that hold none."""
    WRONG_SHAPE = "wrong_shape"
    """JSON with other things in it than there should be."""
    WRONG_KIND = "wrong_kind"
    """A web page, with status 200."""
    NOISE = "noise"
    """Random bytes under the right content type."""
    ENORMOUS = "enormous"
    """The right beginning, and no end."""
    PACKED = "packed"
    """A short body that is enormous when unpacked."""
    REPEATS_REQUEST = "repeats_request"
    """401, and an error text with everything that was sent, the key included."""


def protocol_with(resets_all: Callable[[], bool]) -> type[H11Protocol]:
    """Uvicorn's HTTP protocol, whose requests know their transport as ``state.transport``."""

    class FaultyProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
            super().connection_made(transport)
            self.app_state = {**self.app_state, "transport": transport}
            if resets_all():
                reset(transport)

    return FaultyProtocol


def reset(transport: asyncio.Transport) -> None:
    """End a connection with RST."""
    sock = cast(socket.socket, transport.get_extra_info("socket"))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def answer_with(
    fault: Fault, request: Request, kind: str, right: Callable[[], AsyncIterator[bytes]]
) -> Response:
    """Commit the fault. ``kind`` is the content type and ``right`` the body, in pieces, of the answer that was due."""
    transport = cast(asyncio.Transport, request.state.transport)
    match fault:
        case Fault.RESET_BEFORE_ANSWER | Fault.RESET_AT_ACCEPT | Fault.SILENT:
            if fault is Fault.SILENT:
                await asyncio.sleep(FOREVER_S)
            reset(transport)
            return Response()
        case Fault.RESET_AFTER_HEADERS | Fault.HEADERS_THEN_SILENT:
            return StreamingResponse(_nothing(fault, transport), media_type=kind)
        case Fault.RESET_IN_ANSWER | Fault.SILENT_IN_ANSWER:
            return StreamingResponse(_beginning(right(), fault, transport), media_type=kind)
        case Fault.ENORMOUS:
            return StreamingResponse(_endless(kind), media_type=kind)
        case Fault.REPEATS_REQUEST:
            sent = [f"{name}: {value}" for name, value in request.headers.items()]
            return JSONResponse({"error": {"message": "\n".join(sent), "code": sent[-1]}}, 401)
        case _:
            return _made_up(fault, kind)


def _made_up(fault: Fault, kind: str) -> Response:
    events = kind == "text/event-stream"
    if fault is Fault.WRONG_KIND:
        return HTMLResponse("<html><body>Welcome to our gateway</body></html>")
    if fault is Fault.MALFORMED:
        return Response(
            b'data: {"choices": [{"delta"\n\n' if events else b'{"text": "When ar', media_type=kind
        )
    if fault is Fault.WRONG_SHAPE:
        shapes: list[Any] = [{"choices": "none"}, {"choices": [5]}, {"choices": [{"delta": "text"}]}, 7, None]
        if events:
            return Response(b"".join(b"data: %b\n\n" % orjson.dumps(one) for one in shapes), media_type=kind)
        return JSONResponse({"text": {"words": shapes}})
    if fault is Fault.NOISE:
        return Response(random.Random(5).randbytes(NOISE_BYTES + 1), media_type=kind)
    packed = gzip.compress(bytes(ENORMOUS_BYTES // 4), 1)
    return Response(packed, media_type=kind, headers={"Content-Encoding": "gzip"})


async def _nothing(fault: Fault, transport: asyncio.Transport) -> AsyncIterator[bytes]:
    await _end(fault, transport)
    yield b""


async def _beginning(
    right: AsyncIterator[bytes], fault: Fault, transport: asyncio.Transport
) -> AsyncIterator[bytes]:
    """Half of the first piece where there is one alone, else the first two."""
    pieces = [piece async for piece in right]
    if len(pieces) < 3:
        yield pieces[0][: len(pieces[0]) // 2]
    else:
        yield pieces[0]
        yield pieces[1]
    await _end(fault, transport)


async def _end(fault: Fault, transport: asyncio.Transport) -> None:
    if fault in (Fault.HEADERS_THEN_SILENT, Fault.SILENT_IN_ANSWER):
        await asyncio.sleep(FOREVER_S)
    await asyncio.sleep(SEGMENT_S)
    reset(transport)


async def _endless(kind: str) -> AsyncIterator[bytes]:
    if kind == "text/event-stream":
        block = b'data: {"choices": [{"index": 0, "delta": {"content": "%b"}}]}\n\n' % (b"and then " * 100)
    elif kind == "application/json":
        yield b'{"text": "'
        block = b"and then " * (BLOCK_BYTES // 9)
    else:
        block = bytes(BLOCK_BYTES)
    for _ in range(ENORMOUS_BYTES // len(block)):
        yield block
        await asyncio.sleep(0)  # So that a peer that has had enough is noticed.
