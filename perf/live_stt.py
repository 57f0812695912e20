"""A simulated recogniser that listens, with Deepgram's live interface (``GET /v1/listen`` as a web socket).

Audio comes as binary messages; ``Finalize`` is answered by a result for what has not been answered yet, after the delay and with
the fault that are drawn for it. ``KeepAlive`` keeps a connection open that would otherwise be closed after `IDLE_S`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum
from typing import Protocol

import orjson
from aiohttp import WSMessage, WSMsgType, web

RATE_HZ = 16_000
BYTES_PER_S = RATE_HZ * 2
IDLE_S = 10.0
"""As Deepgram: NET-0001 after ten seconds without audio or ``KeepAlive``."""
MAX_CONNECTIONS = 4_000
MAX_ANSWERS = 1_000
"""Outstanding on a connection; past it the client has gone wrong, and the connection ends with an error."""
IDLE_CODE = 1011


class LiveFault(Enum):
    """What a connection, or a question on it, meets instead of an answer."""

    REFUSED = "refused"
    """The handshake is answered with 401."""
    DEAF = "deaf"
    """The handshake is never answered."""
    HANG = "hang"
    RESET = "reset"
    GARBAGE = "garbage"
    ERROR = "error"
    """An error as a message."""
    UNMARKED = "unmarked"
    """The result does not say that it answers ``Finalize``."""
    CUT = "cut"
    """The last 200 ms are not covered, and no further result comes."""


class Ear(Protocol):
    """What recognises on one connection."""

    def hear(self, pcm: bytes) -> None:
        """More audio."""
        ...

    def words(self) -> str:
        """The words of what was heard since the last call."""
        ...


Draw = Callable[[], tuple[float, LiveFault | None]]
"""The delay in ms and the fault of the next answer, or of a handshake."""


def no_fault() -> tuple[float, LiveFault | None]:
    """At once, and right."""
    return 0.0, None


class LiveStt:
    """The server's application."""

    def __init__(self, ear: Callable[[], Ear], answer: Draw = no_fault, handshake: Draw = no_fault) -> None:
        self._ear = ear
        self.answer = answer
        self.handshake = handshake
        self.counts: Counter[str] = Counter()
        self.authorizations: list[str] = []
        """Of the last handshakes."""
        self.application = web.Application()
        self.application.router.add_get("/v1/listen", self._listen)
        self.sockets: set[web.WebSocketResponse] = set()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve on a port of 127.0.0.1; the root."""
        runner = web.AppRunner(self.application, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            await self.hang_up()
        finally:
            await runner.cleanup()

    async def until(self, reached: Callable[[LiveStt], bool]) -> None:
        """Wait for something that connections, their messages or their ends bring about."""
        while not reached(self):
            self._news.clear()
            await self._news.wait()

    async def hang_up(self) -> None:
        """Close every connection, as a server that is deployed anew does."""
        for socket in list(self.sockets):
            await socket.close()

    def count(self, what: str) -> None:
        """Something happened."""
        self.counts[what] += 1
        self._news.set()

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        self.count("handshakes")
        self.authorizations = [*self.authorizations[-99:], request.headers.get("Authorization", "")]
        delay_ms, fault = self.handshake()
        await asyncio.sleep(delay_ms / 1000)
        if fault is LiveFault.REFUSED or len(self.sockets) >= MAX_CONNECTIONS:
            return web.json_response({"err_code": "INVALID_AUTH"}, status=401)
        if fault is LiveFault.DEAF:
            await asyncio.sleep(3600)
        socket = web.WebSocketResponse(receive_timeout=IDLE_S, compress=False, timeout=0.5)
        await socket.prepare(request)
        self.sockets.add(socket)
        try:
            await _Conversation(request, socket, self._ear(), self).run()
        finally:
            self.sockets.discard(socket)
            self._news.set()
        return socket


class _Conversation:
    """One connection."""

    def __init__(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        ear: Ear,
        server: LiveStt,
    ) -> None:
        self._request = request
        self._socket = socket
        self._ear = ear
        self._server = server
        self._heard = 0
        self._answered = 0
        """Bytes of audio."""
        self._answers: asyncio.Queue[tuple[float, bytes, LiveFault | None]] = asyncio.Queue(MAX_ANSWERS)

    async def run(self) -> None:
        answering = asyncio.create_task(self._answer())
        try:
            while True:
                message = await self._socket.receive()
                if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                    return
                if self._take(message):
                    return
        except TimeoutError:
            self._server.count("idle")
            await self._socket.close(code=IDLE_CODE, message=b"NET-0001")
        finally:
            answering.cancel()
            await asyncio.wait([answering])

    def _take(self, message: WSMessage) -> bool:
        """Whether the connection is to end."""
        if message.type is WSMsgType.BINARY:
            self._heard += len(message.data)
            self._ear.hear(message.data)
            return False
        kind = orjson.loads(message.data).get("type")
        self._server.count(str(kind))
        if kind == "Finalize":
            delay_ms, fault = self._server.answer()
            due_s = asyncio.get_running_loop().time() + delay_ms / 1000
            self._answers.put_nowait((due_s, self._result(fault), fault))
        return bool(kind == "CloseStream")

    def _result(self, fault: LiveFault | None) -> bytes:
        heard = self._heard - (BYTES_PER_S // 5 if fault is LiveFault.CUT else 0)
        heard = max(heard, self._answered)
        begins, self._answered = self._answered, heard
        document: dict[str, object] = {
            "type": "Results",
            "channel_index": [0, 1],
            "start": begins / BYTES_PER_S,
            "duration": (heard - begins) / BYTES_PER_S,
            "is_final": True,
            "speech_final": False,
            "channel": {"alternatives": [{"transcript": self._ear.words(), "confidence": 0.99}]},
        }
        if fault not in (LiveFault.UNMARKED, LiveFault.CUT):
            document["from_finalize"] = True
        return orjson.dumps(document)

    async def _answer(self) -> None:
        while True:
            due_s, result, fault = await self._answers.get()
            await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
            match fault:
                case LiveFault.HANG:
                    continue
                case LiveFault.RESET:
                    if (transport := self._request.transport) is not None:
                        transport.abort()
                    return
                case LiveFault.GARBAGE:
                    result = b'{"type": "Results", "is_final": true, "start": "zero"}'
                case LiveFault.ERROR:
                    result = b'{"type": "Error", "description": "simulated"}'
            await self._socket.send_str(result.decode())
