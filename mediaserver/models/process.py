"""Starts the model process, watches over it, restarts it with a growing pause, and ends it."""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from mediaserver.errors import StartupError

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 5.0
POLL_S = 0.05
MAX_RESTART_PAUSE_S = 30.0
EXIT_MISSING_PACKAGE = 3
EXIT_ADDRESS_IN_USE = 4
MAX_LOGGED_BYTES = 1_000
"""Of what the process says at a time."""
PLACE_OR_TYPE = re.compile(r' +File "[^"]+", line \d+, in \w+|[A-Za-z_][\w.]*(?:Error|Exception|Interrupt)\b')
"""The lines of a traceback that have nobody's words in them, as far as they have none."""


class ModelProcess:
    """The child process. Its port stays the same over restarts, so that its URL does."""

    def __init__(self, *, voices: Sequence[str] = ("joe",), start_timeout_s: float = START_TIMEOUT_S) -> None:
        self._voices = tuple(voices)
        self._start_timeout_s = start_timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0
        self._watcher: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def base_url(self) -> str:
        """The root of its API."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def ready(self) -> bool:
        """Whether it was warm once and runs."""
        return self._port != 0 and self._process is not None and self._process.returncode is None

    def begin(self) -> None:
        """Start it without waiting: it loads while the caller does something else until `start`."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._launch(), name="model-start")

    async def start(self) -> None:
        """Start it and wait until it is warm; raises `StartupError` with what it said."""
        self.begin()
        assert self._starting is not None
        await self._starting
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="model-process")

    async def close(self) -> None:
        """End it: politely, then by force."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
            if not self._starting.cancelled():
                self._starting.exception()  # told to `start`, or to nobody who waits
            self._starting = None
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
            self._watcher = None
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _launch(self) -> None:
        with tempfile.TemporaryDirectory(prefix="mediaserver-models-") as directory:
            port_file = Path(directory) / "port"
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mediaserver.models",
                "--end-with-stdin",
                "--port",
                str(self._port),
                "--port-file",
                str(port_file),
                "--voices",
                *self._voices,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                # A Ctrl-C in the terminal is the node's to deal with: calls that it lets go on need their models.
                start_new_session=True,
            )
            self._process = process
            try:
                async with asyncio.timeout(self._start_timeout_s):
                    while not port_file.exists():
                        if process.returncode is not None:
                            raise StartupError(await _last_words(process))
                        await asyncio.sleep(POLL_S)
            except TimeoutError:
                process.kill()
                await process.wait()
                raise StartupError(
                    f"the model process was not ready within {self._start_timeout_s:.0f} s"
                ) from None
            self._port = int(port_file.read_text())

    async def _watch(self) -> None:
        """Restart it whenever it ends."""
        pause_s = 0.0
        while True:
            process = self._process
            assert process is not None
            assert process.stderr is not None
            began = asyncio.get_running_loop().time()
            while said := await process.stderr.read(4096):
                logger.warning("model process: {}", fit_to_log(said))
            status = await process.wait()
            ran_s = asyncio.get_running_loop().time() - began
            pause_s = 0.0 if ran_s > MAX_RESTART_PAUSE_S else min(MAX_RESTART_PAUSE_S, 2 * pause_s + 0.5)
            logger.error("model process ended with status {}; restarting in {} s", status, pause_s)
            await asyncio.sleep(pause_s)
            self.restarts += 1
            try:
                await self._launch()
            except (StartupError, OSError, ValueError) as error:
                # Not even an odd failure (no memory for a process, garbage in a file) ends the watching.
                logger.error("model process did not start again: {}", error)


def fit_to_log(said: bytes) -> str:
    """The places and types of errors in what the process said; the rest, which may be a caller's words, as a number of lines."""
    lines = said[-MAX_LOGGED_BYTES:].decode("utf-8", "replace").splitlines()
    kept = [match[0].strip() for line in lines if (match := PLACE_OR_TYPE.match(line))]
    others = len(lines) - len(kept)
    return " | ".join(kept + ([f"{others} more lines"] if others else []))


async def _last_words(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = (await process.stderr.read(4096)).decode("utf-8", "replace").strip()
    last = said.splitlines()[-1] if said else "it said nothing"
    if process.returncode in (EXIT_MISSING_PACKAGE, EXIT_ADDRESS_IN_USE):
        return last.removeprefix("models: ")
    return f"the model process ended with status {process.returncode}: {last}"
