"""Simulated providers as a process: ``python -m perf.harness.providers --speech FOLDER [--script FILE | --preset NAME]``.

OpenAI's chat completions (streamed or whole), batch transcription and streamed speech, and Deepgram's live transcription, with
the delays and faults of a `Scenario`. Prints the port of the first and the root of the second. ``GET /stats`` counts requests and faults, and says how late answers were since it was last asked; ``PUT /scenario`` changes the scenario while it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import struct
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from random import Random
from zlib import crc32

import orjson
import uvloop

from perf.harness import http
from perf.harness.http import Connection, Exchange
from perf.harness.latency import PRESETS, Fault, Scenario, Stage
from perf.harness.live_recognition import LIVE_FAULTS, RecognisingEar
from perf.harness.recognition import Recogniser, wav_in
from perf.harness.speech import read
from perf.live_stt import LiveFault, LiveStt

SPEECH_RATE_HZ = 24_000
TONE_HZ = 440
MS_PER_CHARACTER = 60
PIECE_MS = 200
GARBAGE = bytes(range(128, 256)) * 4
TEXT_MAX = 10_000
HEAD_SEEN = 200
RESET_AFTER_S = 0.02
LATE_KEPT = 100_000


class SimulatedProviders:
    """The APIs: what each request is answered, and when."""

    def __init__(
        self,
        scenario: Scenario,
        recogniser: Recogniser,
        clock: Callable[[], float],
        later: Callable[..., object],
    ) -> None:
        self._scenario = scenario
        self._recogniser = recogniser
        self._clock = clock
        self._later = later
        self._random = Random(scenario.seed)
        self._replied = 0
        self.counts: Counter[str] = Counter()
        self.live = LiveStt(lambda: RecognisingEar(recogniser, clock), self._live_answer)
        self.late_ms: deque[float] = deque(maxlen=LATE_KEPT)

    def serve(self, exchange: Exchange) -> None:
        """Answer a request, now or later."""
        routes = {
            ("POST", "/v1/audio/transcriptions"): self._transcription,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/audio/speech"): self._speech,
            ("GET", "/stats"): self._stats,
            ("PUT", "/scenario"): self._change,
        }
        route = routes.get((exchange.method, exchange.path))
        try:
            if route is None:
                exchange.end(http.whole(b"{}", b"404 Not Found"))
            else:
                route(exchange)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.counts["bad request"] += 1
            exchange.end(http.whole(orjson.dumps({"error": {"message": str(error)}}), b"400 Bad Request"))

    def _stats(self, exchange: Exchange) -> None:
        live = {f"live {name}": count for name, count in self.live.counts.items()}
        document = {"counts": {**self.counts, **live}, "late_ms": list(self.late_ms)}
        self.late_ms.clear()
        exchange.end(http.whole(orjson.dumps(document)))

    def _change(self, exchange: Exchange) -> None:
        self._scenario = Scenario.from_document(orjson.loads(exchange.body))
        exchange.end(http.whole(b"{}"))

    def _transcription(self, exchange: Exchange) -> None:
        samples, rate_hz = wav_in(exchange.body)
        text = self._recogniser.transcribe(samples, rate_hz)
        self.counts["stt without words"] += not text
        response = http.whole(orjson.dumps({"text": text}))
        self._answer(exchange, "stt", self._scenario.stt, iter(()), response)

    def _live_answer(self) -> tuple[float, LiveFault | None]:
        delay_ms, fault = self._scenario.stt.draw(self._random)
        return delay_ms, LIVE_FAULTS[fault] if fault is not None else None

    def _chat(self, exchange: Exchange) -> None:
        request = orjson.loads(exchange.body)
        replies = self._scenario.replies
        self._replied += 1
        # The same words get the same reply, but for its number.
        reply = replies[crc32(orjson.dumps(request["messages"][-1])) % len(replies)]
        reply = reply.replace("{n}", f"{self._replied:05}")
        if request.get("stream"):
            head = http.OK_CHUNKED % b"text/event-stream"
            pieces = _tokens(reply, self._scenario.token_ms / 1000)
        else:
            message = {"role": "assistant", "content": reply}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            document = {
                "id": "chatcmpl-simulated",
                "object": "chat.completion",
                "created": 0,
                "model": "simulated",
            }
            head = http.whole(orjson.dumps({**document, "choices": [choice]}))
            pieces = iter(())
        self._answer(exchange, "llm", self._scenario.llm, pieces, head)

    def _speech(self, exchange: Exchange) -> None:
        request = orjson.loads(exchange.body)
        text = str(request["input"])[:TEXT_MAX]
        if request.get("response_format", "pcm") != "pcm":
            raise ValueError("only response_format pcm")
        pace_s = PIECE_MS / 1000 / self._scenario.speech_rate
        pieces = ((pace_s, piece) for piece in spoken(max(200, len(text) * MS_PER_CHARACTER)))
        self._answer(exchange, "tts", self._scenario.tts, pieces, http.OK_CHUNKED % b"audio/pcm")

    def _answer(
        self, exchange: Exchange, name: str, stage: Stage, pieces: Iterator[tuple[float, bytes]], head: bytes
    ) -> None:
        """Answer with what the stage draws: now, or after its delay."""
        delay_ms, fault = stage.draw(self._random)
        self.counts[name] += 1
        if fault is not None:
            self.counts[f"{name} {fault.value}"] += 1
        answer = _Answer(exchange, pieces, head, fault, self._later)
        if delay_ms <= 0:
            answer.begin()
            return
        due_s = self._clock() + delay_ms / 1000

        def begin() -> None:
            self.late_ms.append(1000 * (self._clock() - due_s))
            answer.begin()

        self._later(delay_ms / 1000, begin)


class _Answer:
    """One response: the head, then the pieces, each followed by its own pause in seconds."""

    def __init__(
        self,
        exchange: Exchange,
        pieces: Iterator[tuple[float, bytes]],
        head: bytes,
        fault: Fault | None,
        later: Callable[..., object],
    ) -> None:
        self._exchange, self._pieces, self._head = exchange, pieces, head
        self._fault, self._later = fault, later
        self._streamed = b"chunked" in head[:HEAD_SEEN]

    def begin(self) -> None:
        """The first byte, or what comes in its place."""
        match self._fault:
            case Fault.HANG:
                return
            case Fault.ERROR:
                error = {"error": {"message": "simulated", "type": "server_error"}}
                self._exchange.end(http.whole(orjson.dumps(error), b"500 Internal Server Error"))
            case Fault.GARBAGE:
                self._exchange.end(http.whole(GARBAGE))
            case Fault.RESET if not self._streamed:
                self._exchange.reset()
            case _ if self._streamed:
                self._follow(self._head)
            case _:
                self._exchange.end(self._head)

    def _follow(self, before: bytes = b"") -> None:
        if self._exchange.gone:
            return
        octets = before
        for pause_s, piece in self._pieces:
            octets += piece
            if self._fault is Fault.RESET:
                self._exchange.write(octets)
                # When it has left.
                self._later(RESET_AFTER_S, self._exchange.reset)
                return
            if pause_s > 0:
                self._exchange.write(octets)
                self._later(pause_s, self._follow)
                return
        self._exchange.end(octets + http.LAST_CHUNK)


def _event(delta: dict[str, str], finish: str | None) -> bytes:
    document = {
        "id": "chatcmpl-simulated",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "simulated",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + orjson.dumps(document) + b"\n\n"


def _tokens(reply: str, pause_s: float) -> Iterator[tuple[float, bytes]]:
    for number, word in enumerate(reply.split(" ")):
        yield pause_s, http.chunk(_event({"content": word if number == 0 else " " + word}, None))
    yield 0.0, http.chunk(_event({}, "stop")) + http.chunk(b"data: [DONE]\n\n")


@lru_cache(maxsize=256)
def spoken(lasts_ms: int) -> tuple[bytes, ...]:
    """A tone of that length, in encoded chunks."""
    period = SPEECH_RATE_HZ // TONE_HZ
    cycle = struct.pack(
        f"<{period}h", *(int(8_000 * math.sin(2 * math.pi * step / period)) for step in range(period))
    )
    samples = SPEECH_RATE_HZ * lasts_ms // 1000
    pcm = (cycle * (samples // period + 1))[: samples * 2]
    size = SPEECH_RATE_HZ * 2 * PIECE_MS // 1000
    return tuple(http.chunk(pcm[at : at + size]) for at in range(0, len(pcm), size))


async def run(scenario: Scenario, speech: Path, port: int) -> None:
    """Serve until the process ends."""
    loop = asyncio.get_running_loop()
    providers = SimulatedProviders(scenario, Recogniser(read(speech)), loop.time, loop.call_later)
    server = await loop.create_server(lambda: Connection(providers.serve), "127.0.0.1", port, backlog=1024)
    async with providers.live.serving() as live_root:
        print(server.sockets[0].getsockname()[1], live_root, flush=True)
        await server.serve_forever()


def main() -> int:
    """Serve a scenario."""
    parser = argparse.ArgumentParser(prog="python -m perf.harness.providers", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--speech", type=Path, required=True, help="the folder that perf.harness.speech made")
    parser.add_argument("--script", type=Path, help="a scenario as JSON")
    parser.add_argument("--preset", choices=PRESETS, default="launch")
    options = parser.parse_args()
    scenario = PRESETS[options.preset]
    if options.script is not None:
        scenario = Scenario.from_document(orjson.loads(options.script.read_bytes()))
    uvloop.run(run(scenario, options.speech, options.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
