"""What requests are counted as: by the provider's own figures, by ours, and not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from pipecat.processors.aggregators.llm_context import LLMContext

from mediaserver.pipeline.services import (
    Embedded,
    ProviderAccess,
    model_repliers,
    synthesizer,
    transcriber,
)
from mediaserver.providers.connections import ProviderClient
from mediaserver.providers.openai_api import MAX_TOKENS, ChatUsage, _chunk_of
from mediaserver.providers.utterance import BYTES_PER_MS, TRAILING_SILENCE_MS, Utterance
from mediaserver.workers.messages import UsageTold, WireError, decode, encode
from mediaserver.workers.usage_told import COUNT_MAX, told_of_usage, usage_of
from perf.live_stt import LiveStt
from perf.simulators import Behaviour, Script, running
from tenancy import ResolvedProvider
from tenancy.spending import Usage
from vault.resolver import Origin

Spent = list[tuple[str, str, Usage]]


@asynccontextmanager
async def asked(script: Script) -> AsyncIterator[tuple[ResolvedProvider, ProviderAccess, Spent]]:
    spent: Spent = []
    with running(script) as url:
        async with ProviderClient() as http:
            access = ProviderAccess(
                Embedded(url), http, spent=lambda service, name, usage: spent.append((service, name, usage))
            )
            yield ResolvedProvider("openai", Origin.TENANT, "test", url, "m", "key"), access, spent


PROMPT = "You answer the telephone of a bakery."
CONTEXT = [{"role": "user", "content": "Do you have rolls?"}]


async def reply(provider: ResolvedProvider, access: ProviderAccess, pieces: int = 100) -> str:
    (model,) = model_repliers((provider,), access, PROMPT)
    said = ""
    async with aclosing(model.reply(LLMContext([*CONTEXT]))) as answer:  # type: ignore[list-item] # plain messages
        async for piece in answer:
            said += piece
            pieces -= 1
            if not pieces:
                break
    return said


async def test_a_model_s_own_figures_count() -> None:
    async with asked(Script(usage=(1_234, 56))) as (provider, access, spent):
        await reply(provider, access)
        assert spent == [("llm", provider.name, Usage(1_234, 0, 56))]


async def test_a_model_that_does_not_say_is_estimated_and_marked_so() -> None:
    answer = "We have rolls."
    async with asked(Script(replies=[answer])) as (provider, access, spent):
        await reply(provider, access)
    tokens = -(-(len(PROMPT) + len("Do you have rolls?")) // 4)
    assert spent == [("llm", provider.name, Usage(tokens, 0, -(-len(answer) // 4), estimated=True))]


async def test_an_answer_that_is_given_up_counts_as_far_as_it_came() -> None:
    script = Script(replies=["One, " + "two, " * 50], usage=(10, 10), chat=Behaviour(gap_ms=20))
    async with asked(script) as (provider, access, spent):
        said = await reply(provider, access, pieces=1)
    ((_, _, usage),) = spent
    assert usage.estimated
    assert -(-len(said) // 4) <= usage.output_tokens < 50


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_a_refused_request_costs_nothing(status: int) -> None:
    refuses = Behaviour(status=status)
    script = Script(chat=refuses, speech=refuses, transcription=refuses)
    async with asked(script) as (provider, access, spent):
        with pytest.raises(Exception, match="HTTP"):
            await reply(provider, access)
        with pytest.raises(Exception, match="HTTP"):
            async for _ in synthesizer(provider, access, "alloy", 1.0).speak("Hello."):
                pass
        with pytest.raises(Exception, match="HTTP"):
            async for _ in transcriber(provider, access).transcribe(Utterance(1, bytes(3_200), 3_200)):
                pass
        assert spent == []


async def test_speech_counts_its_characters_and_audio_and_transcription_its_audio() -> None:
    async with asked(Script()) as (provider, access, spent):
        pcm = b"".join(
            [piece async for piece in synthesizer(provider, access, "alloy", 1.0).speak("Hello there.")]
        )
        heard = Utterance(1, bytes(32 * 500), 32 * 500)
        async for _ in transcriber(provider, access).transcribe(heard):
            pass
    assert spent == [
        ("tts", provider.name, Usage(characters=12, audio_ms=len(pcm) // 48)),
        ("stt", provider.name, Usage(audio_ms=500 + TRAILING_SILENCE_MS + 1)),
    ]


async def test_a_request_that_is_cancelled_before_its_answer_counts() -> None:
    async with asked(Script(transcription=Behaviour(hang=True))) as (provider, access, spent):

        async def ask() -> None:
            async for _ in transcriber(provider, access).transcribe(Utterance(1, bytes(32_000), 32_000)):
                pass

        asking = asyncio.create_task(ask())
        await asyncio.sleep(0.2)
        asking.cancel()
        await asyncio.wait([asking])
        assert [(service, usage.audio_ms) for service, _, usage in spent] == [("stt", 1_201)]


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (b'{"usage":{"prompt_tokens":7,"completion_tokens":3}}', ChatUsage(7, 0, 3)),
        (
            b'{"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":5}}}',
            ChatUsage(7, 5, 3),
        ),
        (
            b'{"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":50}}}',
            ChatUsage(7, 7, 3),
        ),
        (b'{"usage":null}', None),
        (b'{"usage":[]}', None),
        (b'{"usage":{"prompt_tokens":true,"completion_tokens":3}}', None),
        (b'{"usage":{"prompt_tokens":-1,"completion_tokens":3}}', None),
        (b'{"usage":{"prompt_tokens":1e3,"completion_tokens":3}}', None),
        (b'{"usage":{"prompt_tokens":%d,"completion_tokens":3}}' % (MAX_TOKENS + 1), None),
        (b'{"usage":{"prompt_tokens":7}}', None),
        (b"[]", None),
    ],
)
def test_what_an_answer_says_of_its_use_is_believed_within_reason(
    told: bytes, usage: ChatUsage | None
) -> None:
    assert _chunk_of(told) == ("", usage)


def test_use_crosses_from_a_worker_as_it_was() -> None:
    usage = Usage(1, 1, 3, 4, 5, estimated=True)
    _, message = decode(memoryview(encode(7, told_of_usage("llm", "p", usage))[4:]))
    assert isinstance(message, UsageTold)
    assert usage_of(message) == ("llm", "p", usage)
    assert usage_of(told_of_usage("tts", "p", Usage(characters=10**12)))[2].characters == COUNT_MAX
    with pytest.raises(WireError, match="out of its range"):
        usage_of(UsageTold("llm", "p", -1, 0, 0, 0, 0, estimated=False))
    with pytest.raises(WireError, match="no such service"):
        usage_of(UsageTold("x", "p", 1, 0, 0, 0, 0, estimated=False))


class _OneWord:
    """Hears the same, whatever is said."""

    def hear(self, pcm: bytes) -> None: ...

    def words(self) -> str:
        return "rolls"


async def test_a_recogniser_that_listens_counts_the_audio_that_went_out_and_what_was_sent_again() -> None:
    spent: Spent = []
    server = LiveStt(_OneWord)
    async with server.serving() as url, ProviderClient() as http:
        access = ProviderAccess(
            Embedded("http://127.0.0.1:9/v1"), http, spent=lambda *told: spent.append(told)
        )
        provider = ResolvedProvider("deepgram", Origin.TENANT, "test", url, "nova-3", "key")
        listener = transcriber(provider, access)
        listener.open()
        pcm = bytes(BYTES_PER_MS * 500)

        async def words(said: bytes) -> None:
            async for _ in listener.transcribe(Utterance(1, said, len(said))):
                pass

        listener.hear(1, pcm, len(pcm))
        await words(pcm)
        assert [usage for _, _, usage in spent] == [Usage(audio_ms=500)]
        await words(pcm * 2)
        assert [usage for _, _, usage in spent] == [Usage(audio_ms=500)] * 2
        await server.hang_up()
        # The next connection has heard nothing: all of the utterance goes out again.
        await words(pcm * 3)
        assert sum(usage.audio_ms for _, _, usage in spent) == 1_000 + 1_500
        await listener.close()
        assert sum(usage.audio_ms for _, _, usage in spent) == 2_500
    assert {told[:2] for told in spent} == {("stt", provider.name)}
