"""``python -m mediaserver.models``: load, warm up, serve, and end with the parent.

Exit status 3: a model package is missing; the one line on stderr names it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path

import numpy as np
import uvicorn

from mediaserver.errors import StartupError
from mediaserver.models.engines import (
    TRANSCRIPTION_RATE_HZ,
    HibariHeart,
    PiperJoe,
    Synthesizer,
    WhisperTiny,
)
from mediaserver.models.server import Limits, Models, make_app

EXIT_MISSING_PACKAGE = 3


def main() -> int:
    """Run the process."""
    options = _options()
    try:
        models = load(Limits(workers=options.workers, max_waiting=options.max_waiting), options.voices)
    except StartupError as error:
        print(f"models: {error}", file=sys.stderr)
        return EXIT_MISSING_PACKAGE
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((options.host, options.port))
    asyncio.run(_serve(models, listener, options.port_file, watch_stdin=options.end_with_stdin))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mediaserver.models", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path, help="written once requests are served")
    parser.add_argument("--workers", type=int, default=max(1, min(4, os.cpu_count() or 1)))
    parser.add_argument("--max-waiting", type=int, default=32)
    parser.add_argument("--voices", nargs="*", default=["joe"], choices=["joe", "heart"])
    parser.add_argument("--end-with-stdin", action="store_true", help="end when stdin is closed")
    return parser.parse_args()


def load(limits: Limits, voices: list[str]) -> Models:
    """Load what is asked for and run each model once, so that the first caller does not pay for it."""
    makers: dict[str, type[PiperJoe] | type[HibariHeart]] = {"joe": PiperJoe, "heart": HibariHeart}
    loaded: dict[str, Synthesizer] = {name: makers[name]() for name in voices}
    transcriber = WhisperTiny(threads=max(1, min(4, os.cpu_count() or 1)))
    transcriber.transcribe(np.zeros(TRANSCRIPTION_RATE_HZ, dtype=np.float32), "")
    for synthesizer in loaded.values():
        for _ in synthesizer.synthesize("Hello.", 1.0):
            pass
    return Models(transcriber, loaded, limits)


class _Server(uvicorn.Server):
    """uvicorn that says when it serves."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, port_file: Path | None) -> None:
        super().__init__(config)
        self._listener = listener
        self._port_file = port_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._port_file is not None:
            # Written aside and renamed: whoever sees the file can read it whole.
            partial = self._port_file.with_suffix(".partial")
            partial.write_text(str(self._listener.getsockname()[1]))
            partial.replace(self._port_file)


async def _serve(
    models: Models, listener: socket.socket, port_file: Path | None, *, watch_stdin: bool
) -> None:
    server = _Server(
        uvicorn.Config(make_app(models), log_level="warning", lifespan="off", timeout_graceful_shutdown=2),
        listener,
        port_file,
    )
    loop = asyncio.get_running_loop()
    if watch_stdin:
        # The parent holds the other end: when it dies, however it dies, the pipe closes.
        loop.add_reader(sys.stdin.fileno(), _stdin_changed, server, loop)
    await server.serve(sockets=[listener])


def _stdin_changed(server: uvicorn.Server, loop: asyncio.AbstractEventLoop) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        server.should_exit = True


if __name__ == "__main__":
    sys.exit(main())
