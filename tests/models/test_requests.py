"""What the API takes and refuses, and the clients that it must serve: Pipecat's services and plain HTTP."""

from __future__ import annotations

import asyncio
import io
import os
import select
import signal
import subprocess
import sys
import wave
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soxr
from openai import AsyncOpenAI
from pipecat.frames.frames import TranscriptionFrame, TTSAudioRawFrame
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService

from mediaserver.models.engines import PIECE_SAMPLES, SPEECH_RATE_HZ, TRANSCRIPTION_RATE_HZ, cut
from mediaserver.models.process import EXIT_ADDRESS_IN_USE

TELEPHONE_RATE_HZ = 8_000
QUESTIONS = (
    "What are your opening hours on Saturday?",
    "I would like to book an appointment for next Tuesday.",
    "Can I speak to a human please?",
    "Do you offer emergency repairs at night?",
    "Could you take a message for the doctor?",
    "How much do you charge for a call out?",
    "My name is Sarah Johnson.",
    "Do you accept credit cards?",
)
READINGS = {"joe": 4, "heart": 1}
"""Joe says a sentence a little differently each time: one reading of the eight is 0 to 3 words wrong of 58, and rarely 6."""
MAX_WORD_ERROR_RATE = 0.08
"""Measured over twelve readings: 2.0 % for joe (the worst of them 5 %), none for heart; over 32 other questions 1.8 and 3.6 %."""


@pytest.fixture
async def http(model_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=model_url.removesuffix("/v1"), timeout=30) as client:
        yield client


@pytest.fixture
async def client(model_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key="unused", base_url=model_url, max_retries=0) as client:
        yield client


def _wav(pcm: bytes, rate_hz: int) -> bytes:
    container = io.BytesIO()
    with wave.open(container, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(rate_hz)
        recording.writeframes(pcm)
    return container.getvalue()


def _over_the_telephone(pcm: bytes) -> bytes:
    """300 to 3400 Hz, 8 kHz, companded to the 8 bits of G.711 (the continuous law of section 3) and back."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    narrow = soxr.resample(samples, SPEECH_RATE_HZ, TELEPHONE_RATE_HZ)
    spectrum = np.fft.rfft(narrow)
    frequency_hz = np.fft.rfftfreq(len(narrow), 1 / TELEPHONE_RATE_HZ)
    spectrum[(frequency_hz < 300) | (frequency_hz > 3_400)] = 0
    band = np.fft.irfft(spectrum, len(narrow))
    band *= 0.4 / np.max(np.abs(band))
    companded = np.round(np.sign(band) * np.log1p(255 * np.abs(band)) / np.log(256) * 127) / 127
    expanded = np.sign(companded) * np.expm1(np.abs(companded) * np.log(256)) / 255
    return _wav((expanded * 32767).astype("<i2").tobytes(), TELEPHONE_RATE_HZ)


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def _word_errors(said: str, heard: str) -> int:
    """Levenshtein's distance in words."""
    reference, hypothesis = _words(said), _words(heard)
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


async def _spoken(client: AsyncOpenAI, voice: str, text: str) -> bytes:
    speech = await client.audio.speech.create(model="tts-1", voice=voice, input=text, response_format="pcm")
    return speech.content


@pytest.mark.parametrize("voice", ["joe", "heart"])
async def test_callers_on_the_telephone_are_understood(client: AsyncOpenAI, voice: str) -> None:
    errors = 0
    for question in QUESTIONS * READINGS[voice]:
        audio = _over_the_telephone(await _spoken(client, voice, question))
        heard = await client.audio.transcriptions.create(
            model="tiny.en", file=("call.wav", audio), language="en"
        )
        errors += _word_errors(question, heard.text)
    said = READINGS[voice] * sum(len(_words(question)) for question in QUESTIONS)
    assert errors / said <= MAX_WORD_ERROR_RATE


async def test_pipecats_own_services_work(model_url: str) -> None:
    tts = OpenAITTSService(api_key="unused", base_url=model_url, sample_rate=SPEECH_RATE_HZ)
    tts._sample_rate = SPEECH_RATE_HZ  # what a StartFrame would set
    frames = [frame async for frame in tts.run_tts("When is the dentist available?", "context")]
    assert all(isinstance(frame, TTSAudioRawFrame) for frame in frames)
    pcm = b"".join(frame.audio for frame in frames if isinstance(frame, TTSAudioRawFrame))
    for model in ("whisper-1", "gpt-transcribe"):
        stt = OpenAISTTService(
            api_key="unused",
            base_url=model_url,
            include_prob_metrics=True,
            settings=OpenAISTTService.Settings(model=model),
        )
        heard = [frame async for frame in stt.run_stt(_wav(pcm, SPEECH_RATE_HZ))]
        assert isinstance(heard[0], TranscriptionFrame)
        assert "dentist" in heard[0].text.lower()
        await stt._client.close()
    await tts._client.close()


async def test_the_details_of_a_transcript(client: AsyncOpenAI) -> None:
    audio = _wav(await _spoken(client, "heart", "Do you do teeth whitening?"), SPEECH_RATE_HZ)
    details = await client.audio.transcriptions.create(
        model="whisper-1", file=("q.wav", audio), response_format="verbose_json", prompt="Dentist. Teeth."
    )
    assert details.segments is not None
    segment = details.segments[0]
    assert details.text == segment.text
    assert "teeth whitening" in details.text.lower()
    assert segment.no_speech_prob < 0.5
    assert -1.5 < segment.avg_logprob < 0
    assert 1.0 < details.duration < 5.0


async def test_a_bare_wav_file_and_plain_text(client: AsyncOpenAI, http: httpx.AsyncClient) -> None:
    audio = _wav(await _spoken(client, "heart", "Do you accept credit cards?"), SPEECH_RATE_HZ)
    answer = await http.post(
        "/v1/audio/transcriptions",
        params={"response_format": "text", "language": "en-US"},
        content=audio,
        headers={"content-type": "audio/wav"},
    )
    assert answer.status_code == 200
    assert "credit cards" in answer.text.lower()
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("kind", ["noise", "hum", "nothing"])
@pytest.mark.parametrize("seconds", [0.05, 1.0, 3.0])
async def test_what_is_no_speech_has_no_words(client: AsyncOpenAI, kind: str, seconds: float) -> None:
    count = int(TELEPHONE_RATE_HZ * seconds)
    samples = {
        "noise": 0.02 * np.random.default_rng(1).standard_normal(count),
        "hum": 0.02 * np.sin(2 * np.pi * 100 * np.arange(count) / TELEPHONE_RATE_HZ),
        "nothing": np.zeros(count),
    }[kind]
    audio = _wav((samples * 32767).astype("<i2").tobytes(), TELEPHONE_RATE_HZ)
    heard = await client.audio.transcriptions.create(model="tiny.en", file=("noise.wav", audio))
    assert heard.text == ""


async def test_a_caller_who_repeats_a_question_is_heard(client: AsyncOpenAI) -> None:
    audio = _wav(await _spoken(client, "heart", "Do you accept credit cards? " * 4), SPEECH_RATE_HZ)
    heard = await client.audio.transcriptions.create(model="tiny.en", file=("again.wav", audio))
    assert heard.text.lower().count("credit cards") >= 2


async def test_words_after_thirty_seconds_are_heard(client: AsyncOpenAI) -> None:
    pcm = await _spoken(client, "heart", "I need to cancel my appointment.")
    pause = bytes(32 * SPEECH_RATE_HZ * 2 - len(pcm))
    last = await _spoken(client, "heart", "Do you accept credit cards?")
    audio = _wav(pcm + pause + last, SPEECH_RATE_HZ)
    heard = await client.audio.transcriptions.create(model="tiny.en", file=("long.wav", audio))
    assert "cancel my appointment" in heard.text.lower()
    assert "credit cards" in heard.text.lower()


def test_long_recordings_are_cut_in_a_pause() -> None:
    samples = np.ones(PIECE_SAMPLES * 2, dtype=np.float32)
    pause_at = PIECE_SAMPLES - 2 * TRANSCRIPTION_RATE_HZ
    samples[pause_at : pause_at + TRANSCRIPTION_RATE_HZ] = 0
    pieces = list(cut(samples))
    assert sum(map(len, pieces)) == len(samples)
    assert all(len(piece) <= PIECE_SAMPLES for piece in pieces)
    assert pause_at <= len(pieces[0]) <= pause_at + TRANSCRIPTION_RATE_HZ


@pytest.mark.parametrize(
    ("options", "status", "word"),
    [
        ({"language": "de"}, 400, "English"),
        ({"response_format": "srt"}, 400, "srt"),
        ({"prompt": "x" * 3_000}, 400, "prompt"),
    ],
)
async def test_transcription_options_that_are_refused(
    http: httpx.AsyncClient, options: dict[str, str], status: int, word: str
) -> None:
    audio = _wav(bytes(8_000), TELEPHONE_RATE_HZ)
    answer = await http.post(
        "/v1/audio/transcriptions", data={"model": "m", **options}, files={"file": ("a.wav", audio)}
    )
    assert answer.status_code == status
    assert word in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "request_parts", "status", "word"),
    [
        ("transcriptions", {"data": {"model": "m"}, "files": {"other": ("a", b"x")}}, 400, "file"),
        (
            "transcriptions",
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            400,
            "form",
        ),
        ("transcriptions", {"content": bytes(8 * 1024 * 1024)}, 413, "larger"),
        ("transcriptions", {"content": _wav(bytes(61 * 16_000), 8_000)}, 413, "60 s"),
        ("speech", {"content": b"{"}, 400, "JSON"),
        ("speech", {"content": b'{"model":"m","input":"  ","voice":"joe"}'}, 400, "nothing to say"),
        ("speech", {"content": bytes(100_000)}, 413, "larger"),
        ("speech", {"content": b'{"model":"tts-1","input":"a","voice":"hal"}'}, 400, "joe, heart"),
    ],
)
async def test_bodies_that_are_refused(
    http: httpx.AsyncClient, path: str, request_parts: dict[str, Any], status: int, word: str
) -> None:
    answer = await http.post(f"/v1/audio/{path}", **request_parts)
    assert answer.status_code == status
    assert word in answer.json()["error"]["message"]


async def test_a_body_of_unknown_length_is_cut_off(http: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield bytes(8_192)

    answer = await http.post("/v1/audio/speech", content=endless())
    assert answer.status_code == 413


async def test_an_announced_wav_file_is_one(client: AsyncOpenAI) -> None:
    speech = await client.audio.speech.create(
        model="joe", voice="alloy", input="Hello there.", response_format="wav"
    )
    assert speech.response.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(speech.content)) as recording:
        assert recording.getframerate() == SPEECH_RATE_HZ
        assert len(recording.readframes(10 * SPEECH_RATE_HZ)) == len(speech.content) - 44


async def test_the_first_sentence_goes_out_before_the_last_is_made(
    client: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    sentences = 30
    before = (await http.get("/healthz")).json()["speaking"]["done"]
    async with client.audio.speech.with_streaming_response.create(
        model="joe",
        voice="alloy",
        input="We are open from eight until six. " * sentences,
        response_format="pcm",
    ) as response:
        chunks = response.iter_bytes(4_800)
        assert len(await anext(chunks)) == 4_800
        made = (await http.get("/healthz")).json()["speaking"]["done"] - before
        rest = [len(chunk) async for chunk in chunks]
    after = (await http.get("/healthz")).json()["speaking"]["done"] - before
    assert 1 <= made < sentences // 2
    assert after == sentences + 1  # the last piece says that there is none
    assert sum(rest) > sentences * SPEECH_RATE_HZ * 2


async def test_brackets_are_read_as_text(client: AsyncOpenAI) -> None:
    plain = await _spoken(client, "joe", "We are open on Monday.")
    odd = await _spoken(client, "joe", "We are [[ open ]] on Monday.")
    assert 0.5 < len(odd) / len(plain) < 2.0


async def test_models_and_health(http: httpx.AsyncClient, client: AsyncOpenAI) -> None:
    assert [model.id async for model in await client.models.list()] == ["tiny.en", "joe", "heart"]
    assert (await http.get("/healthz")).json()["status"] == "ok"


async def test_clients_that_leave_give_their_places_back(
    client: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    text = "Please hold the line while I look for your appointment. " * 30
    before = (await http.get("/healthz")).json()["speaking"]

    async def leave_early() -> None:
        async with client.audio.speech.with_streaming_response.create(
            model="joe", voice="alloy", input=text, response_format="pcm"
        ) as response:
            async for _ in response.iter_bytes(1_000):
                return

    async def never_waits() -> None:
        with pytest.raises(openai.APITimeoutError):
            await client.with_options(timeout=0.01).audio.speech.create(
                model="joe", voice="alloy", input=text, response_format="pcm"
            )

    await asyncio.gather(leave_early(), leave_early(), never_waits(), never_waits())
    async with asyncio.timeout(10):
        while (now := (await http.get("/healthz")).json()["speaking"])["taken"] > 0:
            pass
    # Nearly all of the 4 x 30 sentences were never made.
    assert now["done"] - before["done"] < 40


async def test_a_recording_whose_caller_left_is_not_transcribed(
    client: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    """Two workers begin two of the four; the two that wait are dropped."""
    audio = _wav(await _spoken(client, "heart", "Do you accept credit cards? " * 24), SPEECH_RATE_HZ)
    before = (await http.get("/healthz")).json()["hearing"]

    async def leave() -> None:
        with pytest.raises(openai.APITimeoutError):
            await client.with_options(timeout=0.2).audio.transcriptions.create(
                model="tiny.en", file=("long.wav", audio)
            )

    await asyncio.gather(*(leave() for _ in range(4)))
    async with asyncio.timeout(15):
        while (now := (await http.get("/healthz")).json()["hearing"])["taken"] > 0:
            pass
    assert now["dropped"] - before["dropped"] == 4
    assert now["done"] == before["done"]


def test_it_listens_on_loopback_only() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mediaserver.models", "--host", "0.0.0.0"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "not a loopback address" in result.stderr


def test_an_address_in_use_is_named(model_url: str) -> None:
    port = str(httpx.URL(model_url).port)
    result = subprocess.run(
        [sys.executable, "-m", "mediaserver.models", "--port", port],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == EXIT_ADDRESS_IN_USE
    assert result.stderr.strip().splitlines()[-1] == f"models: 127.0.0.1 port {port}: Address already in use"


def test_it_ends_when_its_parent_is_killed() -> None:
    script = """
import asyncio
from mediaserver.models.process import ModelProcess
async def main():
    models = ModelProcess()
    await models.start()
    print(models._process.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = os.pidfd_open(int(parent.stdout.readline()))
    try:
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        ended, _, _ = select.select([child], [], [], 15)
        assert ended
    finally:
        os.close(child)


def test_it_ends_with_its_parent_even_when_its_loop_hangs() -> None:
    script = """
import sys, time
from mediaserver.models import __main__ as program
program.ORDERLY_END_S = 0.2
program.load = lambda *_: time.sleep(60)
sys.argv = ["models", "--end-with-stdin"]
program.main()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 5
