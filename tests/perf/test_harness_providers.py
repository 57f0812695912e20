"""The simulated providers: what they draw, what they say, how they fail."""

from __future__ import annotations

import asyncio
import io
import random
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from perf.audio import LINE_RATE_HZ, decode
from perf.harness.http import BODY_MAX, Connection
from perf.harness.latency import PRESETS, Fault, Latency, Scenario, Stage
from perf.harness.providers import SimulatedProviders
from perf.harness.recognition import Recogniser
from perf.harness.speech import Sentence, Spoken, assemble
from perf.results import percentile
from tests.perf.test_harness_speech import babble


def test_a_distribution_has_its_median_and_its_tail() -> None:
    draws = random.Random(3)
    latency = Latency.parse("80,250")
    samples = [latency.draw_ms(draws) for _ in range(20_000)]
    assert percentile(samples, 50) == pytest.approx(80, rel=0.03)
    assert percentile(samples, 99) == pytest.approx(250, rel=0.08)
    assert {Latency.parse("80").draw_ms(draws) for _ in range(10)} == {80.0}


@pytest.mark.parametrize("text", ["", "fast", "-1", "80,40", "0,10", "nan", "1,inf"])
def test_what_is_no_distribution_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - float's own words, or ours
        Latency.parse(text)


@given(st.sampled_from(sorted(PRESETS)))
def test_a_scenario_survives_its_json(name: str) -> None:
    assert Scenario.from_document(PRESETS[name].document()) == PRESETS[name]


@pytest.mark.parametrize(
    "document",
    [
        {"sst": {}},
        {"stt": {"latencies": "1"}},
        {"llm": {"error": 0.6, "hang": 0.5}},
        {"tts": {"reset": -0.1}},
    ],
)
def test_a_scenario_with_a_mistake_in_it_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"not known|shares"):
        Scenario.from_document(document)


def test_faults_come_as_often_as_they_are_asked_for() -> None:
    stage, draws = Stage(error=0.1, hang=0.05, reset=0.2, garbage=0.01), random.Random(1)
    drawn = [stage.draw(draws)[1] for _ in range(20_000)]
    for fault in Fault:
        assert drawn.count(fault) / len(drawn) == pytest.approx(getattr(stage, fault.value), abs=0.01)


SPOKEN = assemble(Sentence("x", ("Are you open", "on Friday?"), (300,)), [babble(1, 1.0), babble(2, 0.7)])


def recording(spoken: Spoken) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((1, 2, LINE_RATE_HZ, 0, "NONE", ""))
        wav.writeframes(decode(spoken.codes).astype("<i2").tobytes())
    return file.getvalue()


@asynccontextmanager
async def serving(scenario: Scenario) -> AsyncIterator[tuple[str, SimulatedProviders]]:
    loop = asyncio.get_running_loop()
    providers = SimulatedProviders(scenario, Recogniser([SPOKEN]), loop.time, loop.call_later)
    server = await loop.create_server(lambda: Connection(providers.serve), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", providers


@asynccontextmanager
async def client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key="x", base_url=f"{url}/v1", max_retries=0, timeout=5) as opened:
        yield opened


async def test_the_openai_client_gets_what_it_asks_for() -> None:
    async with (
        serving(Scenario(token_ms=1, replies=("Number {n}, yes.",))) as (url, providers),
        client(url) as api,
    ):
        heard = await api.audio.transcriptions.create(model="m", file=("a.wav", recording(SPOKEN)))
        assert heard.text == "Are you open on Friday?"
        question: ChatCompletionUserMessageParam = {"role": "user", "content": heard.text}
        stream = await api.chat.completions.create(model="m", messages=[question], stream=True)
        words = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(words) == "Number 00001, yes."
        whole = await api.chat.completions.create(model="m", messages=[question])
        assert whole.choices[0].message.content == "Number 00002, yes."
        async with api.audio.speech.with_streaming_response.create(
            model="m", voice="alloy", input="x" * 20, response_format="pcm"
        ) as response:
            pcm = b"".join([piece async for piece in response.iter_bytes()])
        assert len(pcm) == 24_000 * 2 * 1.2
        assert np.abs(np.frombuffer(pcm, "<i2")).max() > 4_000
        assert providers.counts["stt"] == 1
        assert providers.counts["llm"] == 2


async def test_each_fault_is_what_its_name_says() -> None:
    request = {"stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with httpx.AsyncClient(timeout=0.3) as http:
        async with serving(Scenario(llm=Stage(error=1))) as (url, _):
            assert (await http.post(f"{url}/v1/chat/completions", json=request)).status_code == 500
        async with serving(Scenario(llm=Stage(garbage=1))) as (url, _):
            assert b"data:" not in (await http.post(f"{url}/v1/chat/completions", json=request)).content
        async with serving(Scenario(llm=Stage(reset=1))) as (url, _):
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                await http.post(f"{url}/v1/chat/completions", json=request)
        async with serving(Scenario(llm=Stage(hang=1))) as (url, providers):
            with pytest.raises(httpx.ReadTimeout):
                await http.post(f"{url}/v1/chat/completions", json=request)
            assert providers.counts["llm hang"] == 1


async def test_bad_requests_are_answered_and_the_next_one_too() -> None:
    async with serving(Scenario()) as (url, _), httpx.AsyncClient() as http:
        for path, body in [
            ("/v1/chat/completions", b"{"),
            ("/v1/chat/completions", b"[]"),
            ("/v1/audio/transcriptions", b"no wav"),
            ("/v1/audio/speech", b'{"input": "x", "response_format": "mp3"}'),
        ]:
            assert (await http.post(url + path, content=body)).status_code == 400
        assert (await http.get(f"{url}/v1/models")).status_code == 404
        assert (await http.get(f"{url}/stats")).json()["counts"]["bad request"] == 4


@given(st.binary(max_size=300), st.integers(0, 120))
def test_no_octets_break_the_http_reader(octets: bytes, at: int) -> None:
    class Transport:
        written, open = b"", True

        def write(self, data: bytes) -> None:
            self.written += data

        def close(self) -> None:
            self.open = False

        abort = close

    request = b"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    for sent in (octets, request[:at] + octets + request[at:], request + b"%d" % BODY_MAX):
        transport = Transport()
        served: list[str] = []
        connection = Connection(lambda exchange, served=served: served.append(exchange.path))  # type: ignore[misc]
        connection.connection_made(transport)  # type: ignore[arg-type]
        for piece in (sent[: len(sent) // 2], sent[len(sent) // 2 :]):
            connection.data_received(piece)
        assert len(served) <= 1, "one at a time"
