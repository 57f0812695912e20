"""The three requests of OpenAI's API that a call makes: a chat completion in pieces, a transcription, speech.

The SDK is not used for them: with its HTTP stack it was half of a call worker's time (`ARCHITECTURE.md`, section 12), most of that
for types that nobody reads here. What an answer holds is a stranger's, and is checked where it is read.
"""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import orjson
from yarl import URL

from mediaserver.providers.connections import Answer, ProviderClient
from mediaserver.providers.event_stream import EventStream
from mediaserver.providers.failures import (
    REFUSAL_BYTES_MAX,
    AnswerMalformed,
    AnswerRefused,
    refusal_code,
    retry_after_s,
)

LAST_EVENT = b"[DONE]"
DRAIN_S = 0.05
"""For the end of a body whose last event has come: with it the connection can be used again."""
REFUSAL_S = 0.1
"""For the body of a 429, whose code tells haste from an empty account; the caller waits meanwhile."""
MAX_TOKENS = 10_000_000
"""Of one answer; what says more is not believed."""
KEY_STATUSES = frozenset({401, 402, 403, 429})
"""What is said about the key, and for how long."""
NO_AUDIO = (
    "text/",
    "application/json",
    "application/xml",
    "application/problem",
    "image/",
    "video/",
    "multipart/",
)


@dataclass(frozen=True, slots=True)
class ChatUsage:
    """What a chat completion says it has used."""

    input_tokens: int
    cached_input_tokens: int
    """Those of them that were kept from before."""
    output_tokens: int


class OpenAIApi:
    """An API in the shape of OpenAI's, with one tenant's key."""

    def __init__(self, http: ProviderClient, root: str, key: str) -> None:
        self._http = http
        self._root, authorization = _address(root, key)
        self._headers = {"Authorization": authorization}
        self._json_headers = {"Authorization": authorization, "Content-Type": "application/json"}

    async def chat(
        self, body: Mapping[str, object], on_usage: Callable[[ChatUsage], object] = lambda _: None
    ) -> AsyncGenerator[str, None]:
        """The text of a chat completion, in deltas that are not empty. ``body`` is the request, which asks for a stream.

        ``on_usage`` is told what the answer says it has used, each time that it does; the last counts.

        Raises:
            AnswerRefused: another status than 200.
            AnswerMalformed: an event that is no JSON, or says that the model failed.
            AnswerTooLarge: an event or the whole goes past its limit.
        """
        events = EventStream()
        async with (
            self._answer("/chat/completions", self._json_headers, orjson.dumps(body)) as answer,
            aclosing(answer.pieces()) as pieces,
        ):
            async for piece in pieces:
                for event in events.feed(piece):
                    if event == LAST_EVENT:
                        await _drain(pieces)
                        return
                    text, usage = _chunk_of(event)
                    if usage is not None:
                        on_usage(usage)
                    if text:
                        yield text

    async def transcribe(self, model: str, wav: bytes, language: str) -> str:
        """The words of a recording; raises what `chat` raises."""
        fields = {"model": model, "language": language, "response_format": "json"}
        kind, form = _form(fields, wav)
        headers = {**self._headers, "Content-Type": kind}
        async with self._answer("/audio/transcriptions", headers, form) as answer:
            told = _json(await answer.read())
        text = told.get("text") if isinstance(told, dict) else None
        if not isinstance(text, str):
            raise AnswerMalformed("an answer without a transcript")
        return text

    async def speech(self, body: Mapping[str, object]) -> AsyncGenerator[bytes, None]:
        """The audio of a text, as it comes. ``body`` is the request.

        Raises:
            AnswerRefused: another status than 200.
            AnswerMalformed: an answer of a kind that is no audio.
            AnswerTooLarge: it goes past the limit of any answer.
        """
        async with self._answer("/audio/speech", self._json_headers, orjson.dumps(body)) as answer:
            if answer.kind.startswith(NO_AUDIO):
                raise AnswerMalformed("an answer that is no audio")
            async with aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    yield piece

    @asynccontextmanager
    async def _answer(self, path: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[Answer]:
        async with self._http.request("POST", self._root + path, headers, body) as answer:
            if not 200 <= answer.status < 300:
                raise await _refusal(answer)
            yield answer


async def _refusal(answer: Answer) -> AnswerRefused:
    """The refusal with what it says besides its status, where the next request depends on it."""
    if answer.status not in KEY_STATUSES:
        return AnswerRefused(answer.status)
    code = None
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        code = refusal_code(await answer.beginning(REFUSAL_BYTES_MAX, REFUSAL_S))
    return AnswerRefused(answer.status, code, retry_after_s(answer.retry_after))


def _address(root: str, key: str) -> tuple[str, str]:
    """The root without a user and a password in it, and what to authorize with: those, or else the key (RFC 6750)."""
    try:
        url = URL(root)
    except ValueError:
        return root, f"Bearer {key}"  # The request will say what is wrong with it.
    if url.user is None and url.password is None:
        return root.rstrip("/"), f"Bearer {key}"
    basic = b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode("ascii")
    return str(url.with_user(None)).rstrip("/"), f"Basic {basic}"


def _form(fields: Mapping[str, str], wav: bytes) -> tuple[str, bytes]:
    """The content type and the body of a form with a recording (RFC 7578)."""
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="audio.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    return (
        f"multipart/form-data; boundary={boundary}",
        b"".join(["".join(parts).encode(), wav, f"\r\n--{boundary}--\r\n".encode()]),
    )


async def _drain(pieces: AsyncGenerator[bytes, None]) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            async for _ in pieces:
                pass
    except TimeoutError:
        pass  # The connection is closed with the answer.


def _json(text: bytes) -> object:
    try:
        told: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise AnswerMalformed("no JSON") from None
    return told


def _chunk_of(event: bytes) -> tuple[str, ChatUsage | None]:
    """The text in a chunk of a chat completion, and what it says of the use. Anything may stand anywhere; what has no text has none."""
    chunk = _json(event)
    if not isinstance(chunk, dict):
        return "", None
    if chunk.get("error"):
        raise AnswerMalformed("an error in place of a chunk")
    choices = chunk.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    delta = first.get("delta") if isinstance(first, dict) else None
    content = delta.get("content") if isinstance(delta, dict) else None
    return content if isinstance(content, str) else "", _usage_of(chunk.get("usage"))


def _usage_of(told: object) -> ChatUsage | None:
    """The use of tokens as the API has it; None for anything else."""
    if not isinstance(told, dict):
        return None
    given, answered = _count(told.get("prompt_tokens")), _count(told.get("completion_tokens"))
    if given is None or answered is None:
        return None
    details = told.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return ChatUsage(given, min(cached or 0, given), answered)


def _count(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MAX_TOKENS else None
