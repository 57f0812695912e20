"""What several packages of tests share and is dear to make: a warm model process, a spoken question."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from loguru import logger

from mediaserver.softphone.speech import Utterance, synthesise

START_TIMEOUT_S = 120

# How long an example takes is the machine's business and no property of the code; what fails says how to repeat it.
settings.register_profile("no deadline", deadline=None, print_blob=True)
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """What a test does to the log of its process ends with it: its stream may be one that pytest closes."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logger.remove()
    logger.configure(extra={}, patcher=lambda _: None)
    logger.add(sys.stderr)


@pytest.fixture(scope="session")
def model_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API root of a running model process with both voices."""
    port_file = tmp_path_factory.mktemp("models") / "port"
    process = subprocess.Popen(
        [sys.executable, "-m", "mediaserver.models", "--end-with-stdin", "--port-file", str(port_file),
         "--voices", "joe", "heart", "--max-waiting", "2"],
        stdin=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    try:
        yield f"http://127.0.0.1:{_wait(process, port_file)}/v1"
    finally:
        process.stdin.close()
        assert process.wait(timeout=15) == 0


def _wait(process: subprocess.Popen[bytes], port_file: Path) -> int:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not port_file.exists():
        assert process.poll() is None, f"the model process ended with {process.returncode}"
        assert time.monotonic() < deadline, "the model process did not become ready"
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
    return int(port_file.read_text())


@pytest.fixture(scope="session")
def question() -> Utterance:
    """Free speech of about two seconds."""
    return asyncio.run(synthesise("What are your opening hours on Friday?"))
