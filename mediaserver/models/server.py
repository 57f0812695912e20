"""The HTTP API of the model process, in the shape of OpenAI's audio endpoints."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Final, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from mediaserver.models.engines import TRANSCRIPTION_RATE_HZ, Synthesizer, Transcriber, Transcript
from mediaserver.models.pool import PoolError, QueueFull, Rank, WorkPool
from mediaserver.models.recording import RecordingError, read_wav, wav_stream_header

T = TypeVar("T")

OPENAI_VOICES: Final = frozenset(
    {
        "alloy",
        "ash",
        "ballad",
        "cedar",
        "coral",
        "echo",
        "fable",
        "marin",
        "nova",
        "onyx",
        "sage",
        "shimmer",
        "verse",
    }
)
"""OpenAI's names, which its clients insist on: they stand for the default voice here."""
MAX_FORM_FIELDS = 20
MAX_FIELD_BYTES = 16 * 1024
UPLOAD_TIMEOUT_S = 10.0
CLIENT_CLOSED_REQUEST = 499
"""Nobody reads it: the client has gone."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for."""

    max_audio_bytes: int = 4 * 1024 * 1024
    max_json_bytes: int = 64 * 1024
    max_audio_s: float = 60.0
    max_input_characters: int = 2_000
    max_prompt_characters: int = 2_000
    max_waiting: int = 32
    """Requests of one kind that may wait for a worker; the next gets 429."""
    workers: int = 2
    timeout_s: float = 30.0
    """For one transcription, or for one sentence of speech."""
    max_response_s: float = 300.0
    """For a whole response: a client that stops reading gives its place up."""


class ApiError(Exception):
    """An error in the shape of OpenAI's."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    def response(self) -> JSONResponse:
        """The response to send."""
        headers = {"Retry-After": "1"} if self.status in (429, 503) else None
        error = {"message": str(self), "type": self.kind, "param": None, "code": None}
        return JSONResponse({"error": error}, self.status, headers)


class SpeechRequest(BaseModel):
    """Body of POST /v1/audio/speech. `instructions` and the like are taken and have no effect."""

    model_config = ConfigDict(extra="ignore")

    model: str
    input: Annotated[str, Field(min_length=1)]
    voice: str = "alloy"
    response_format: str = "pcm"
    speed: Annotated[float, Field(ge=0.25, le=4.0, allow_inf_nan=False)] = 1.0


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """What POST /v1/audio/transcriptions asks for."""

    body: bytes
    prompt: str
    response_format: str


@dataclass(frozen=True, slots=True)
class Models:
    """What the process serves. The first voice is the default."""

    transcriber: Transcriber
    voices: Mapping[str, Synthesizer]
    limits: Limits


def make_app(models: Models) -> FastAPI:
    """The application; the models are loaded and warm."""
    app = FastAPI(title="embedded models", docs_url=None, redoc_url=None, openapi_url=None)
    limits = models.limits
    hearing, speaking = (
        WorkPool(name, workers=limits.workers, max_waiting=limits.max_waiting, timeout_s=limits.timeout_s)
        for name in ("hearing", "speaking")
    )

    _tell_errors(app)

    @app.get("/healthz")
    async def healthz() -> dict[str, object]:
        pools = {"hearing": hearing, "speaking": speaking}
        report = {name: {"taken": pool.taken, **asdict(pool.counters)} for name, pool in pools.items()}
        return {"status": "ok", **report}

    @app.get("/v1/models")
    async def list_models() -> dict[str, object]:
        names = ["tiny.en", *models.voices]
        entries = [{"id": name, "object": "model", "created": 0, "owned_by": "embedded"} for name in names]
        return {"object": "list", "data": entries}

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        with hearing.place():
            asked = await _in_time(_transcription_request(request, limits))
            work = hearing.run(lambda: _hear(models, asked))
            transcript, duration_s = await _while_connected(request, work)
        return _transcript(transcript, asked.response_format, duration_s)

    @app.post("/v1/audio/speech")
    async def speech(request: Request) -> Response:
        asked = await _in_time(_speech_request(request, limits))
        pieces = _voice(models, asked).synthesize(asked.input, asked.speed)
        speaking.take()
        try:
            first = await _while_connected(request, speaking.run(lambda: next(pieces, b"")))
        except BaseException:
            speaking.leave()
            raise
        return SpokenResponse(speaking, first, pieces, asked.response_format, limits.max_response_s)

    return app


def _tell_errors(app: FastAPI) -> None:
    """Give every error that a request can cause the shape of OpenAI's."""

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RecordingError)
    async def recording_error(_: Request, error: RecordingError) -> Response:
        return ApiError(error.status, str(error)).response()

    @app.exception_handler(PoolError)
    async def pool_error(_: Request, error: PoolError) -> Response:
        if isinstance(error, QueueFull):
            return ApiError(429, str(error), "rate_limit_error").response()
        return ApiError(503, str(error), "server_error").response()

    @app.exception_handler(ClientDisconnect)
    async def left_while_sending(_: Request, __: ClientDisconnect) -> Response:
        return ApiError(CLIENT_CLOSED_REQUEST, "the client has gone").response()


async def _in_time(reading: Awaitable[T]) -> T:
    """What is read from the body; a client that sends it too slowly keeps no place."""
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            return await reading
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {UPLOAD_TIMEOUT_S:g} s") from None


async def _bounded(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body as it comes; raises `ApiError` 413 as soon as it is known to be too large."""
    too_large = ApiError(413, f"the body is larger than {limit} bytes")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise too_large
        yield chunk


async def _transcription_request(request: Request, limits: Limits) -> TranscriptionRequest:
    """Read a form with a file, as OpenAI's clients send it, or a bare WAV file with its options in the query."""
    stream = _bounded(request, limits.max_audio_bytes + MAX_FORM_FIELDS * MAX_FIELD_BYTES)
    options: Mapping[str, object] = request.query_params
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        form = await _form(request, stream)
        options = form
        try:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise ApiError(400, "file: the form has no file of this name")
            body = await file.read()
        finally:
            await form.close()
    else:
        body = b"".join([chunk async for chunk in stream])
    if len(body) > limits.max_audio_bytes:
        raise ApiError(413, f"the file is larger than {limits.max_audio_bytes} bytes")
    prompt = str(options.get("prompt") or "")
    if len(prompt) > limits.max_prompt_characters:
        raise ApiError(400, f"prompt is longer than {limits.max_prompt_characters} characters")
    language = str(options.get("language") or "en")
    if language.lower().replace("_", "-").split("-")[0] not in ("en", "english"):
        raise ApiError(400, f"language {language[:20]!r}: the embedded model understands English only")
    response_format = str(options.get("response_format") or "json")
    if response_format not in ("json", "text", "verbose_json"):
        raise ApiError(400, f"response_format {response_format[:20]!r} is none of json, text, verbose_json")
    return TranscriptionRequest(body, prompt, response_format)


async def _form(request: Request, stream: AsyncGenerator[bytes, None]) -> FormData:
    parser = MultiPartParser(
        request.headers, stream, max_files=1, max_fields=MAX_FORM_FIELDS, max_part_size=MAX_FIELD_BYTES
    )
    try:
        return await parser.parse()
    except (MultiPartException, KeyError) as error:
        # KeyError: the content type names no boundary.
        raise ApiError(400, f"the form cannot be read: {error}") from error


async def _speech_request(request: Request, limits: Limits) -> SpeechRequest:
    body = b"".join([chunk async for chunk in _bounded(request, limits.max_json_bytes)])
    try:
        asked = SpeechRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise ApiError(400, f"{place}: {first['msg']}") from error
    if len(asked.input) > limits.max_input_characters:
        raise ApiError(400, f"input is longer than {limits.max_input_characters} characters")
    if not asked.input.strip():
        raise ApiError(400, "input: there is nothing to say")
    if asked.response_format not in ("pcm", "wav"):
        raise ApiError(400, f"response_format {asked.response_format[:20]!r} is none of pcm, wav")
    return asked


def _hear(models: Models, asked: TranscriptionRequest) -> tuple[Transcript, float]:
    """The words of the request's file and its length in seconds; computes."""
    samples = read_wav(asked.body, models.limits.max_audio_s)
    return models.transcriber.transcribe(samples, asked.prompt), len(samples) / TRANSCRIPTION_RATE_HZ


def _voice(models: Models, asked: SpeechRequest) -> Synthesizer:
    """The voice by its own name, as voice or as model; an OpenAI name with an OpenAI model is the default voice."""
    for name in (asked.voice, asked.model):
        if name in models.voices:
            return models.voices[name]
    openai_model = asked.model.startswith(("tts-", "gpt-"))
    if openai_model and asked.voice in OPENAI_VOICES:
        return next(iter(models.voices.values()))
    names = ", ".join(models.voices)
    raise ApiError(
        400, f"neither model {asked.model[:40]!r} nor voice {asked.voice[:40]!r} is one of {names}"
    )


async def _while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is dropped when the client leaves. The request's body has been read."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(CLIENT_CLOSED_REQUEST, "the client has gone")
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _transcript(transcript: Transcript, response_format: str, duration_s: float) -> Response:
    if response_format == "text":
        return PlainTextResponse(transcript.text)
    if response_format == "json":
        return JSONResponse({"text": transcript.text})
    raw = transcript.text.encode()
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": duration_s,
        "text": transcript.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": transcript.score,
        "compression_ratio": len(raw) / len(zlib.compress(raw)),
        "no_speech_prob": transcript.no_speech,
    }
    return JSONResponse(
        {
            "task": "transcribe",
            "language": "english",
            "duration": duration_s,
            "text": transcript.text,
            "segments": [segment] if transcript.text else [],
        }
    )


class SpokenResponse(StreamingResponse):
    """Speech as it is made, sentence by sentence. It holds a place in the pool and gives it back however it ends."""

    def __init__(
        self, pool: WorkPool, first: bytes, pieces: Iterator[bytes], response_format: str, max_s: float
    ) -> None:
        self._pool = pool
        self._max_s = max_s
        wav = response_format == "wav"
        super().__init__(
            _spoken(pool, first, pieces, wav=wav), media_type="audio/wav" if wav else "audio/pcm"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._max_s):
                await super().__call__(scope, receive, send)
        finally:
            self._pool.leave()


async def _spoken(
    pool: WorkPool, first: bytes, pieces: Iterator[bytes], *, wav: bool
) -> AsyncIterator[bytes]:
    if wav:
        yield wav_stream_header()
    piece = first
    while piece:
        yield piece
        piece = await pool.run(lambda: next(pieces, b""), Rank.LATER)
