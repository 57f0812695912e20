"""Provider simulators: OpenAI's chat, transcription and speech APIs with scripted words, delays and faults.

They stand in for cloud providers in tests and benchmarks, in a thread with an event loop of its own or as a process
(``python -m perf.simulators --port N``), and say in their responses what a provider would say: right shapes, right
streaming, made-up content.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from perf.provider_faults import Fault, answer_with, protocol_with

SPEECH_RATE_HZ = 24_000
TONE_HZ = 440
MAX_HEARD = 64
"""Utterances that are known again when they have grown."""
MS_PER_CHARACTER = 60


@dataclass(slots=True)
class Behaviour:
    """What one simulated API does; change it while it runs."""

    delay_ms: float = 0.0
    """Before the first byte of the answer."""
    status: int = 200
    """An error status refuses every request."""
    error_code: str | None = None
    """The code in the body of a refusal."""
    retry_after: str | None = None
    """The header of a refusal."""
    hang: bool = False
    """Accept and stay silent."""
    break_off_after: int | None = None
    """Drop the connection after this many pieces of a streamed answer."""
    gap_ms: float = 0.0
    """Between the pieces of a streamed answer."""
    fault: Fault | None = None
    """What it does instead of answering."""


@dataclass(slots=True)
class Script:
    """The simulated provider's words and faults."""

    transcripts: list[str] = field(default_factory=lambda: ["What are your opening hours?"])
    """Transcripts of utterances in turn; the last one repeats. An utterance that is sent again, grown, keeps its own."""
    replies: list[str] = field(default_factory=lambda: ["We are open from nine to five."])
    """Replies in turn; the last one repeats."""
    transcription: Behaviour = field(default_factory=Behaviour)
    chat: Behaviour = field(default_factory=Behaviour)
    speech: Behaviour = field(default_factory=Behaviour)
    chats_seen: list[list[dict[str, object]]] = field(default_factory=list)
    """The messages of each chat request, newest last; 100 at most."""
    spoken: list[str] = field(default_factory=list)
    """The text of each speech request, newest last; 100 at most."""
    usage: tuple[int, int] | None = None
    """Tokens that a chat says it was given and has answered with, where the request asks; None: it does not say."""
    requests: dict[str, int] = field(default_factory=dict)
    _transcribed: int = 0
    _heard: list[tuple[bytes, int]] = field(default_factory=list)
    """The audio that was transcribed last, without the silence at its end, and the number of its utterance."""
    _replied: int = 0

    def resets_connections(self) -> bool:
        """Whether connections are reset as they come, whichever API they are for."""
        return Fault.RESET_AT_ACCEPT in (self.transcription.fault, self.chat.fault, self.speech.fault)

    def transcript_of(self, body: bytes) -> str:
        """The transcript of the utterance in a request."""
        data = body.find(b"data", body.find(b"RIFF")) + 4
        pcm = body[data + 4 : data + 4 + int.from_bytes(body[data : data + 4], "little")].rstrip(b"\0")
        grown = next(
            (old for old in reversed(self._heard) if old[0] and pcm.startswith(old[0]) and pcm != old[0]),
            None,
        )
        if grown is not None:
            self._heard.remove(grown)
            number = grown[1]
        else:
            self._transcribed += 1
            number = self._transcribed
        self._heard.append((pcm, number))
        del self._heard[:-MAX_HEARD]
        return self.transcripts[min(number, len(self.transcripts)) - 1]

    def next_reply(self) -> str:
        """The next reply."""
        self._replied += 1
        return self.replies[min(self._replied, len(self.replies)) - 1]


def tone(text: str) -> bytes:
    """A tone as long as the text would take to say."""
    samples = SPEECH_RATE_HZ * max(200, len(text) * MS_PER_CHARACTER) // 1000
    period = SPEECH_RATE_HZ // TONE_HZ
    one = [int(8_000 * math.sin(2 * math.pi * step / period)) for step in range(period)]
    cycle = struct.pack(f"<{period}h", *one)
    return (cycle * (samples // period + 1))[: samples * 2]


async def _behave(behaviour: Behaviour) -> Response | None:
    """Do what the behaviour says before an answer; a response refuses the request."""
    if behaviour.hang:
        await asyncio.sleep(3_600)
    if behaviour.delay_ms:
        await asyncio.sleep(behaviour.delay_ms / 1000)
    if behaviour.status != 200:
        error = {"message": "simulated", "type": "simulated", "code": behaviour.error_code}
        headers = {} if behaviour.retry_after is None else {"Retry-After": behaviour.retry_after}
        return JSONResponse({"error": error}, behaviour.status, headers)
    return None


def make_app(script: Script) -> FastAPI:
    """The simulated provider as an ASGI application."""
    app = FastAPI()

    def count(api: str) -> None:
        script.requests[api] = script.requests.get(api, 0) + 1

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        count("transcriptions")
        text = script.transcript_of(await request.body())
        refused = await _behave(script.transcription)
        if refused is None and (fault := script.transcription.fault) is not None:
            return await answer_with(fault, request, "application/json", lambda: _whole({"text": text}))
        return refused or JSONResponse({"text": text})

    @app.post("/v1/audio/speech")
    async def speech(request: Request) -> Response:
        count("speech")
        document = orjson.loads(await request.body())
        script.spoken = [*script.spoken[-99:], str(document["input"])]
        refused = await _behave(script.speech)
        if refused is None and (fault := script.speech.fault) is not None:
            said = tone(str(document["input"]))
            return await answer_with(fault, request, "audio/pcm", lambda: _pieces(said, Behaviour()))
        return refused or StreamingResponse(
            _pieces(tone(str(document["input"])), script.speech), media_type="audio/pcm"
        )

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        count("chat")
        document = orjson.loads(await request.body())
        script.chats_seen.append(document["messages"])
        del script.chats_seen[:-100]
        refused = await _behave(script.chat)
        if refused is None and (fault := script.chat.fault) is not None:
            reply = script.next_reply()
            return await answer_with(fault, request, "text/event-stream", lambda: _deltas(reply, Behaviour()))
        asked = document.get("stream_options") or {}
        usage = script.usage if asked.get("include_usage") else None
        return refused or StreamingResponse(
            _deltas(script.next_reply(), script.chat, usage), media_type="text/event-stream"
        )

    return app


async def _whole(document: dict[str, object]) -> AsyncIterator[bytes]:
    yield orjson.dumps(document)


async def _pieces(pcm: bytes, behaviour: Behaviour) -> AsyncIterator[bytes]:
    size = SPEECH_RATE_HZ * 2 // 5
    for number, start in enumerate(range(0, len(pcm), size)):
        if number == behaviour.break_off_after:
            raise ConnectionResetError("simulated")
        await asyncio.sleep(behaviour.gap_ms / 1000 if number else 0)
        yield pcm[start : start + size]


async def _deltas(
    text: str, behaviour: Behaviour, usage: tuple[int, int] | None = None
) -> AsyncIterator[bytes]:
    for number, word in enumerate(text.split(" ")):
        if number == behaviour.break_off_after:
            raise ConnectionResetError("simulated")
        await asyncio.sleep(behaviour.gap_ms / 1000 if number else 0)
        yield _chunk({"content": word if number == 0 else " " + word}, None)
    yield _chunk({}, "stop")
    if usage is not None:
        given, answered = usage
        yield _event(
            choices=[],
            usage={"prompt_tokens": given, "completion_tokens": answered, "total_tokens": sum(usage)},
        )
    yield b"data: [DONE]\n\n"


def _chunk(delta: dict[str, str], finish: str | None) -> bytes:
    return _event(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


def _event(**fields: object) -> bytes:
    document = {
        "id": "chatcmpl-simulated",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "simulated",
        **fields,
    }
    return b"data: " + orjson.dumps(document) + b"\n\n"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def running(script: Script) -> Iterator[str]:
    """Serve the script from a thread; yields the API's base URL."""
    # With the protocol named asyncio sets TCP_NODELAY: without, Nagle and delayed ACKs add 40 ms to a streamed answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)  # Whoever comes before the server has started waits.
    server = _Server(
        uvicorn.Config(
            make_app(script),
            http=protocol_with(script.resets_connections),
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m perf.simulators", description=__doc__)
    parser.add_argument("--port", type=int, default=9090)
    parser.add_argument("--stt-ms", type=float, default=0.0)
    parser.add_argument("--llm-ms", type=float, default=0.0)
    parser.add_argument("--tts-ms", type=float, default=0.0)
    options = parser.parse_args()
    script = Script(
        transcription=Behaviour(options.stt_ms),
        chat=Behaviour(options.llm_ms),
        speech=Behaviour(options.tts_ms),
    )
    uvicorn.run(
        make_app(script),
        http=protocol_with(script.resets_connections),
        host="127.0.0.1",
        port=options.port,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
