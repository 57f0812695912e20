"""The links of a call's chains that ask an API in the shape of OpenAI's, and what may pass for an answer of theirs."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

from pipecat.adapters.llm.services.open_ai_adapter import OpenAILLMAdapter
from pipecat.processors.aggregators.llm_context import LLMContext

from mediaserver.errors import FailureCause, ProviderFailed
from mediaserver.phrase_cache import PHRASE_RATE_HZ
from mediaserver.pipeline.pieces import AudioCutter, DeltaJoiner
from mediaserver.pipeline.providers import MAX_REPLY_CHARACTERS, MAX_TRANSCRIPT_CHARACTERS
from mediaserver.providers.breaker import BreakerKey
from mediaserver.providers.openai_api import ChatUsage, OpenAIApi
from mediaserver.providers.utterance import BYTES_PER_MS, Utterance
from tenancy.spending import Usage
from vault.resolver import KeyRef

MAX_REPLY_TOKENS = 200
BYTES_PER_S = PHRASE_RATE_HZ * 2
MAX_SENTENCE_S = 120
SPARE_S = 5.0
SLOWEST_S_PER_CHARACTER = 0.4
"""Figures and abbreviations take the longest: "1 000 000" is nine characters and a good second."""
CONTAINERS = (b"RIFF", b"OggS", b"fLaC", b"ID3", b'{"', b"<htm", b"<!DO")
"""How files begin that are no PCM; as samples they would be a loud noise."""
LONGEST_MARK = max(map(len, CONTAINERS))


CHARACTERS_PER_TOKEN = 4
"""Of English text, roughly (OpenAI's rule of thumb): for answers that do not say what they used."""
Count = Callable[[], Usage]


@contextmanager
def counted(spent: Callable[[Usage], None], usage: Count, begun: Callable[[], bool]) -> Iterator[None]:
    """Tell what a request has used when it is over, unless it failed before its answer had ``begun``.

    One that is given up counts: its provider works on it all the same.
    """
    try:
        yield
    except Exception:
        if begun():
            spent(usage())
        raise
    except BaseException:
        spent(usage())
        raise
    else:
        spent(usage())


def max_audio_bytes(text: str) -> int:
    """The longest speech that a text can be, generously: what goes on is noise."""
    return int(min(MAX_SENTENCE_S, SPARE_S + SLOWEST_S_PER_CHARACTER * len(text)) * BYTES_PER_S)


@dataclass(frozen=True, slots=True)
class OpenAITranscriber:
    """A transcription provider."""

    name: str
    api: OpenAIApi
    model: str
    breaker: BreakerKey
    last_resort: bool = False
    key_ref: KeyRef | None = None
    spent: Callable[[Usage], None] = lambda _: None

    async def transcribe(self, utterance: Utterance) -> AsyncGenerator[str, None]:
        """The words of an utterance, in one piece; empty when there are none."""
        wav = utterance.wav()
        audio = Usage(audio_ms=len(wav) // BYTES_PER_MS)
        with counted(self.spent, lambda: audio, lambda: False):
            text = await self.api.transcribe(self.model, wav, "en")
        if len(text) > MAX_TRANSCRIPT_CHARACTERS:
            raise ProviderFailed(self.name, "a transcript past its limit", FailureCause.TOO_LARGE)
        yield text.strip()

    def open(self) -> None:
        """It is asked for each utterance anew."""

    def hear(self, number: int, pcm: bytes, said_bytes: int) -> None:
        """It takes an utterance as a whole."""

    async def close(self) -> None:
        """There is nothing to close."""


@dataclass(frozen=True, slots=True)
class OpenAISynthesizer:
    """A synthesis provider."""

    name: str
    api: OpenAIApi
    model: str
    voice: str
    speed: float
    breaker: BreakerKey
    last_resort: bool = False
    key_ref: KeyRef | None = None
    spent: Callable[[Usage], None] = lambda _: None

    async def speak(self, text: str) -> AsyncGenerator[bytes, None]:
        """The sentence as 16-bit mono at `PHRASE_RATE_HZ`, in pieces of whole samples.

        Raises:
            ProviderFailed: what came is no speech, or too much of it.
        """
        asked = {
            "input": text,
            "model": self.model,
            "voice": self.voice,
            "response_format": "pcm",
            "speed": self.speed,
        }
        taken, limit = 0, max_audio_bytes(text)
        start, cutter = b"", AudioCutter()

        def used() -> Usage:
            return Usage(characters=len(text), audio_ms=taken * 1000 // BYTES_PER_S)

        with counted(self.spent, used, lambda: taken > 0):
            async with aclosing(self.api.speech(asked)) as pieces:
                async for piece in pieces:
                    if taken < LONGEST_MARK:
                        start += piece[:LONGEST_MARK]
                        if start.startswith(CONTAINERS):
                            raise ProviderFailed(self.name, "a file instead of samples", FailureCause.GARBAGE)
                    taken += len(piece)
                    if taken > limit:
                        why = f"more than {limit // BYTES_PER_S} s of audio for {len(text)} characters"
                        raise ProviderFailed(self.name, why, FailureCause.TOO_LARGE)
                    for chunk in cutter.feed(piece):
                        yield chunk
        if rest := cutter.rest():
            yield rest


@dataclass(slots=True)
class OpenAIReplier:
    """A language model."""

    name: str
    api: OpenAIApi
    model: str
    system_prompt: str
    breaker: BreakerKey | None
    last_resort: bool = False
    key_ref: KeyRef | None = None
    spent: Callable[[Usage], None] = lambda _: None
    _adapter: OpenAILLMAdapter = field(init=False, default_factory=OpenAILLMAdapter)
    """Pipecat's: from its context to the messages and tools of a request."""

    async def reply(self, context: LLMContext) -> AsyncGenerator[str, None]:
        """The model's text, in pieces that begin with a word.

        Raises:
            ProviderFailed: the reply goes past its limit.
        """
        joiner = DeltaJoiner()
        said = 0
        asked = await self._request(context)
        told: list[ChatUsage] = []

        def used() -> Usage:
            if told:
                last = told[-1]
                return Usage(last.input_tokens, last.cached_input_tokens, last.output_tokens)
            return Usage(_tokens_of(asked["messages"]), 0, _tokens(said), estimated=True)

        with counted(self.spent, used, lambda: said > 0 or bool(told)):
            async with aclosing(self.api.chat(asked, told.append)) as deltas:
                try:
                    async for delta in deltas:
                        text = delta if said else delta.lstrip()
                        said += len(text)
                        if said > MAX_REPLY_CHARACTERS:
                            raise ProviderFailed(self.name, "a reply past its limit", FailureCause.TOO_LARGE)
                        if text and (joined := joiner.feed(text, time.monotonic_ns() // 1_000_000)):
                            yield joined
                except Exception:
                    # A reply that breaks off is heard to where it broke.
                    if rest := joiner.rest():
                        yield rest
                    raise
        if rest := joiner.rest():
            yield rest

    async def _request(self, context: LLMContext) -> dict[str, object]:
        given = await self._adapter.get_llm_invocation_params(
            context, system_instruction=self.system_prompt, convert_developer_to_user=False
        )
        return {
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_completion_tokens": MAX_REPLY_TOKENS,
            "messages": given["messages"],
        }


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)


def _tokens_of(messages: object) -> int:
    """About how many tokens the messages of a request are."""
    if not isinstance(messages, list):
        return 0
    contents = (each.get("content") for each in messages if isinstance(each, dict))
    return _tokens(sum(len(each) for each in contents if isinstance(each, str)))
