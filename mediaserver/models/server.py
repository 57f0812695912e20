"""The HTTP API of the model process, in the shape of OpenAI's audio endpoints."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import numpy as np
import soxr
from fastapi import FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from mediaserver.models.engines import TRANSCRIPTION_RATE_HZ, Samples, Synthesizer, Transcriber

T = TypeVar("T")
WAV_HEADER_UNKNOWN_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for."""

    max_audio_bytes: int = 4 * 1024 * 1024
    max_audio_s: float = 60.0
    max_input_characters: int = 2_000
    max_waiting: int = 32
    """Requests of one kind that may wait for a worker; the next gets 429."""
    workers: int = 2
    timeout_s: float = 30.0


class ApiError(Exception):
    """An error in the shape of OpenAI's."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    def response(self) -> JSONResponse:
        """The response to send."""
        headers = {"Retry-After": "1"} if self.status == 429 else None
        return JSONResponse({"error": {"message": str(self), "type": self.kind}}, self.status, headers)


class SpeechRequest(BaseModel):
    """Body of POST /v1/audio/speech. OpenAI's own voice names stand for the model's voice."""

    model_config = ConfigDict(extra="ignore")

    model: str
    input: Annotated[str, Field(min_length=1)]
    voice: str = "alloy"
    response_format: str = "pcm"
    speed: Annotated[float, Field(ge=0.25, le=4.0)] = 1.0


@dataclass(slots=True)
class Pool:
    """Worker threads of one kind with a bounded queue before them."""

    limits: Limits
    waiting: int = 0
    refused: int = 0
    _threads: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(self.limits.workers)

    def admit(self) -> None:
        """Take a place in the queue; raises `ApiError` 429 when there is none."""
        if self.waiting >= self.limits.workers + self.limits.max_waiting:
            self.refused += 1
            raise ApiError(429, "the model's queue is full", "rate_limit_error")
        self.waiting += 1

    async def run(self, work: Callable[[], T]) -> T:
        """Compute in a worker, within the time limit."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                return await loop.run_in_executor(self._threads, work)
        except TimeoutError:
            raise ApiError(503, f"not done within {self.limits.timeout_s:.0f} s", "server_error") from None

    def leave(self) -> None:
        """Give the place back."""
        self.waiting -= 1


@dataclass(slots=True)
class Models:
    """What the process serves."""

    transcriber: Transcriber
    voices: Mapping[str, Synthesizer]
    limits: Limits


def make_app(models: Models) -> FastAPI:
    """The application; the models are loaded and warm."""
    app = FastAPI(title="embedded models", docs_url=None, redoc_url=None)
    hearing = Pool(models.limits)
    speaking = Pool(models.limits)

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return ApiError(400, f"{place}: {first['msg']}").response()

    @app.get("/healthz")
    async def healthz() -> dict[str, object]:
        return {"status": "ok", "hearing": hearing.waiting, "speaking": speaking.waiting}

    @app.get("/v1/models")
    async def list_models() -> dict[str, object]:
        names = ["tiny.en", *models.voices]
        return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(
        file: Annotated[UploadFile, File()],
        model: Annotated[str, Form()] = "tiny.en",  # noqa: ARG001 - one model, whatever it is called
        prompt: Annotated[str, Form()] = "",
        response_format: Annotated[str, Form()] = "json",
    ) -> Response:
        hearing.admit()
        try:
            samples = read_wav(await file.read(models.limits.max_audio_bytes + 1), models.limits)
            text = await hearing.run(lambda: models.transcriber.transcribe(samples, prompt))
        finally:
            hearing.leave()
        return _transcript(text, response_format)

    @app.post("/v1/audio/speech")
    async def speech(request: SpeechRequest) -> Response:
        synthesizer = _voice(models, request)
        speaking.admit()
        pieces = synthesizer.synthesize(request.input, request.speed)
        try:
            first = await speaking.run(lambda: next(pieces, b""))
        except BaseException:
            speaking.leave()
            raise
        return StreamingResponse(
            _stream(speaking, first, pieces, wav=request.response_format == "wav"),
            media_type="audio/wav" if request.response_format == "wav" else "audio/pcm",
        )

    return app


def _transcript(text: str, response_format: str) -> Response:
    match response_format:
        case "text":
            return PlainTextResponse(text)
        case "json":
            return JSONResponse({"text": text})
        case "verbose_json":
            return JSONResponse({"text": text, "language": "english", "task": "transcribe", "segments": []})
        case _:
            raise ApiError(400, f"response_format {response_format!r} is none of json, text, verbose_json")


def _voice(models: Models, request: SpeechRequest) -> Synthesizer:
    if len(request.input) > models.limits.max_input_characters:
        raise ApiError(400, f"input is longer than {models.limits.max_input_characters} characters")
    if request.response_format not in ("pcm", "wav"):
        raise ApiError(400, f"response_format {request.response_format!r} is none of pcm, wav")
    voice = models.voices.get(request.voice) or models.voices.get(request.model)
    if voice is None:
        names = ", ".join(models.voices)
        raise ApiError(400, f"neither model {request.model!r} nor voice {request.voice!r} is one of {names}")
    return voice


async def _stream(pool: Pool, first: bytes, pieces: Iterator[bytes], *, wav: bool) -> AsyncIterator[bytes]:
    """The pieces as they are made; a client that leaves ends the work at the next sentence."""
    try:
        if wav:
            yield _wav_header()
        piece = first
        while piece:
            yield piece
            piece = await pool.run(lambda: next(pieces, b""))
    finally:
        pool.leave()


def _wav_header() -> bytes:
    """A header for a stream whose length is not known yet."""
    container = io.BytesIO()
    with wave.open(container, "wb") as header:
        header.setnchannels(1)
        header.setsampwidth(2)
        header.setframerate(24_000)
    unknown = WAV_HEADER_UNKNOWN_LENGTH.to_bytes(4, "little")
    raw = container.getvalue()
    return raw[:4] + unknown + raw[8:40] + unknown


def read_wav(body: bytes, limits: Limits) -> Samples:
    """The left channel of a 16-bit PCM WAV file at `TRANSCRIPTION_RATE_HZ`; raises `ApiError`."""
    if len(body) > limits.max_audio_bytes:
        raise ApiError(413, f"the file is larger than {limits.max_audio_bytes} bytes")
    try:
        with wave.open(io.BytesIO(body), "rb") as recording:
            rate_hz, channels = recording.getframerate(), recording.getnchannels()
            if recording.getsampwidth() != 2:
                raise ApiError(400, "only 16-bit PCM WAV files can be transcribed")
            raw = recording.readframes(recording.getnframes())
    except (wave.Error, EOFError) as error:
        raise ApiError(400, f"the file is no PCM WAV file: {error}") from error
    if not 4_000 <= rate_hz <= 192_000:
        raise ApiError(400, f"a sample rate of {rate_hz} Hz is not between 4000 and 192000")
    whole = len(raw) // (2 * channels) * 2 * channels
    samples = np.frombuffer(raw[:whole], dtype="<i2").reshape(-1, channels)[:, 0].astype(np.float32) / 32768
    if len(samples) > limits.max_audio_s * rate_hz:
        raise ApiError(413, f"the audio is longer than {limits.max_audio_s:.0f} s")
    if rate_hz != TRANSCRIPTION_RATE_HZ:
        samples = soxr.resample(samples, rate_hz, TRANSCRIPTION_RATE_HZ)
    return samples.astype(np.float32)
