"""Headless Chromium with a fake microphone, and a demo server with the embedded models for it to call."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soxr
from playwright.async_api import Browser, Page, async_playwright

from mediaserver._native import SpeechAudio
from mediaserver.softphone.listening import HEARD_RATE_HZ, Ear
from mediaserver.softphone.speech import SPEECH_RATE_HZ, Utterance, synthesise

QUESTION = "What are your opening hours on Friday?"
MICROPHONE_RATE_HZ = 48_000
BEFORE_QUESTION_S = 9.0
"""The fake microphone plays from the moment it is opened: this long, while connection and greeting take place."""
AFTER_QUESTION_S = 60.0
START_TIMEOUT_S = 120.0
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)
LISTEN_IN = (Path(__file__).parent / "listen_in.js").read_text()


@dataclass(frozen=True, slots=True)
class Server:
    """A running demo server."""

    http_port: int
    model_url: str

    @property
    def url(self) -> str:
        """Its root; localhost is where browsers give a microphone without TLS."""
        return f"http://127.0.0.1:{self.http_port}"


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory: pytest.TempPathFactory, model_url: str) -> Iterator[Server]:
    """``mediaserver serve`` with the demo tenants, on ports of its own."""
    directory = tmp_path_factory.mktemp("demo")
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mediaserver", "serve"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={
                **os.environ,
                "MEDIASERVER_SIP_HOST": "127.0.0.1",
                "MEDIASERVER_SIP_PORT": "0",
                "MEDIASERVER_HTTP_PORT": "0",
                "MEDIASERVER_MEDIA_HOST": "127.0.0.1",
                "MEDIASERVER_MEDIA_FIRST_PORT": "0",
                "MEDIASERVER_MODELS_URL": model_url,
                "MEDIASERVER_DATA_DIR": str(directory / "node"),
            },
        )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"HTTP\s+http://\S+?:(\d+)/", line):
                yield Server(int(found[1]), model_url)
                break
        else:
            pytest.fail(f"no server: {(directory / 'log').read_text()[-2000:]}")
    finally:
        process.terminate()
        process.stdout.close()
        assert process.wait(timeout=20) == 0, (directory / "log").read_text()[-2000:]


@pytest.fixture(scope="session")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the fake microphone hears: silence, the question, silence."""
    question: Utterance = asyncio.run(synthesise(QUESTION))
    speech = soxr.resample(np.frombuffer(question.pcm, dtype="<i2"), SPEECH_RATE_HZ, MICROPHONE_RATE_HZ)
    silences = [
        np.zeros(int(seconds * MICROPHONE_RATE_HZ), dtype="<i2")
        for seconds in (BEFORE_QUESTION_S, AFTER_QUESTION_S)
    ]
    path = tmp_path_factory.mktemp("microphone") / "question.wav"
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(MICROPHONE_RATE_HZ)
        recording.writeframes(np.concatenate((silences[0], speech, silences[1])).astype("<i2").tobytes())
    return path


@pytest.fixture
async def browser(microphone: Path) -> AsyncIterator[Browser]:
    """Debian's Chromium, whose microphone begins to play when it is opened."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium here: apt-get install chromium")
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=chromium,
            args=[*CHROMIUM_FLAGS, f"--use-file-for-fake-audio-capture={microphone}%noloop"],
        )
        yield running
        await running.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page that notes what it hears, and that breaks neither in its scripts nor against its own policy."""
    opened = await browser.new_page()
    complaints: list[str] = []
    opened.on(
        "console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None
    )
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    await opened.add_init_script(LISTEN_IN)
    yield opened
    assert not complaints


async def heard_words(page: Page, model_url: str, from_ms: float = 0) -> str:
    """What the page heard since a time of `performance.now`, in words."""
    samples = np.array(await page.evaluate("from => listenIn.samples(from)", from_ms), dtype=np.float32)
    heard = soxr.resample(samples, await page.evaluate("listenIn.rate"), HEARD_RATE_HZ)
    pcm = (np.clip(heard, -1, 1) * 32767).astype("<i2").tobytes()
    ear = Ear(model_url)
    try:
        ear.event(SpeechAudio(stream=0, media_ms=0, pcm=pcm))
        return await ear.transcribe()
    finally:
        await ear.close()
