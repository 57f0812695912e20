"""A call's connection to a recogniser that listens: the audio goes out as it is spoken, the words are asked for at a pause.

The shell of `live_transcript`. A connection may end at any time: what of the present utterance it had is sent again on the
next one, for whoever asks has all of the utterance's audio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

from mediaserver.providers.connections import ProviderClient
from mediaserver.providers.failures import AnswerMalformed, AnswerRefused, AnswerTooLarge, retry_after_s
from mediaserver.providers.live_transcript import GRACE_MS, LiveTranscript, Question
from mediaserver.providers.utterance import BYTES_PER_MS, Utterance

KEEPALIVE_S = 4.0
"""Deepgram ends a connection that it hears nothing of for 10 s, and asks for a word every 3 to 5."""
MAX_WAITING = 256
"""Messages that wait to be sent: a minute of speech. A connection that falls so far behind is given up."""
SILENT_MS = 1_000
"""A connection on which a question has waited for so long when it is given up is given up with it."""
FINALIZE = '{"type":"Finalize"}'
KEEPALIVE = '{"type":"KeepAlive"}'


class LiveListening:
    """One call's ears at one recogniser. `close` it with the call."""

    def __init__(self, http: ProviderClient, url: str, headers: Mapping[str, str]) -> None:
        self._http = http
        self._url = url
        self._headers = dict(headers)
        self._connection: _Connection | None = None
        self._sent_before_bytes = 0
        self._closed = False

    def open(self) -> None:
        """Begin to connect, so that the first words need not wait for it; returns at once."""
        if not self._closed and (self._connection is None or self._connection.over):
            self._connection = self._connect()

    def hear(self, number: int, pcm: bytes, said_bytes: int) -> None:
        """The next audio of utterance ``number``, as it is spoken, with which ``said_bytes`` of it are said; returns at once.

        What is not sent now is sent when the words are asked for.
        """
        if self._connection is not None and not self._connection.over:
            self._connection.hear(number, pcm, said_bytes)

    async def words(self, utterance: Utterance) -> str:
        """The words of an utterance as it stands. Raises what `failures.failure_of` knows."""
        if (connection := self._connection) is not None and not connection.over:
            try:
                return await connection.words(utterance)
            except (aiohttp.ClientError, OSError):
                # It was opened earlier, and has died since: that says nothing about the next.
                self._http.stats.dead_connections_retried += 1
        connection = self._connection = self._connect()
        return await connection.words(utterance)

    async def close(self) -> None:
        """End the connection."""
        self._closed = True
        if self._connection is not None:
            await self._connection.close()

    @property
    def sent_bytes(self) -> int:
        """Audio that went out, on all connections: what was sent again counts again."""
        present = 0 if self._connection is None else self._connection.gone_bytes
        return self._sent_before_bytes + present

    def _connect(self) -> _Connection:
        self._sent_before_bytes = self.sent_bytes
        return _Connection(self._http, self._url, self._headers)


@dataclass(slots=True)
class _Connection:
    """A connection, from its handshake on."""

    http: ProviderClient
    url: str
    headers: Mapping[str, str]
    over: bool = False
    gone_bytes: int = 0
    """Audio that went out."""
    _failure: Exception | None = None
    _transcript: LiveTranscript = field(default_factory=LiveTranscript)
    _waiting: asyncio.Queue[bytes | str] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _number: int | None = None
    """The utterance that is being sent."""
    _sent_bytes: int = 0
    """Of it."""
    _task: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="live-transcription")

    def hear(self, number: int, pcm: bytes, said_bytes: int) -> None:
        self._turn_to(number)
        if pcm and self._sent_bytes + len(pcm) == said_bytes:
            self._send_audio(pcm)

    async def words(self, utterance: Utterance) -> str:
        self._turn_to(utterance.number)
        if (missing := utterance.said_bytes - self._sent_bytes) > 0:
            self._send_audio(utterance.pcm[-missing:])
            self._sent_bytes = utterance.said_bytes
        question = self._transcript.ask(_now_ms())
        self._put(FINALIZE)
        try:
            return await self._answer(question)
        except asyncio.CancelledError:
            if _now_ms() >= question.asked_ms + SILENT_MS:
                self._give_up()
            raise

    async def close(self) -> None:
        self._give_up()
        await asyncio.wait([self._task])

    def _turn_to(self, number: int) -> None:
        if number != self._number:
            self._number, self._sent_bytes = number, 0
            self._transcript.begin()

    def _send_audio(self, pcm: bytes) -> None:
        self._sent_bytes += len(pcm)
        self._transcript.sent(len(pcm) / BYTES_PER_MS)
        self._put(pcm)

    def _give_up(self) -> None:
        self._end(TimeoutError())
        self._task.cancel()

    def _put(self, message: bytes | str) -> None:
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            # What is missing in the middle would be missing in the words: begin anew rather.
            self._give_up()

    def _end(self, failure: Exception) -> None:
        self.over = True
        if self._failure is None:
            self._failure = failure
        self._news.set()

    async def _answer(self, question: Question) -> str:
        while True:
            now_ms = _now_ms()
            if (text := self._transcript.words(question, now_ms)) is not None:
                return text
            if self._failure is not None:
                raise self._failure
            self._news.clear()
            grace_ms = question.asked_ms + GRACE_MS - now_ms
            try:
                async with asyncio.timeout(grace_ms / 1000 if grace_ms > 0 else None):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _run(self) -> None:
        try:
            async with self.http.websocket(self.url, self.headers) as socket:
                sending = asyncio.create_task(self._send(socket), name="live-transcription-audio")
                try:
                    await self._receive(socket)
                finally:
                    sending.cancel()
                    await asyncio.wait([sending])
            self._end(aiohttp.ServerDisconnectedError())
        except aiohttp.WSServerHandshakeError as error:
            asked = error.headers.get("Retry-After") if error.headers is not None else None
            self._end(AnswerRefused(error.status, retry_after_s=retry_after_s(asked)))
        except (aiohttp.ClientError, OSError, AnswerMalformed, AnswerTooLarge, ValueError) as error:
            self._end(error)
        finally:
            self._end(ConnectionAbortedError())

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.ERROR:
                raise AnswerMalformed("no web socket's frame")
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                self._transcript.feed(message.data)
                self._news.set()

    async def _send(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            try:
                async with asyncio.timeout(KEEPALIVE_S):
                    message = await self._waiting.get()
            except TimeoutError:
                message = KEEPALIVE
            try:
                if isinstance(message, bytes):
                    await socket.send_bytes(message)
                    self.gone_bytes += len(message)
                else:
                    await socket.send_str(message)
            except (aiohttp.ClientError, OSError) as error:
                self._end(error)
                await socket.close()
                return


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)
