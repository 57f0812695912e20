"""``python -m mediaserver.models``: load, warm up, serve, and end with the parent.

Exit status 3: a model package is missing; the one line on stderr names it. 4: the address cannot be bound. 5: the
parent died and an orderly end took too long.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import uvicorn
import uvloop

from mediaserver.errors import StartupError
from mediaserver.models.engines import (
    TRANSCRIPTION_RATE_HZ,
    HibariHeart,
    PiperJoe,
    Synthesizer,
    WhisperTiny,
)
from mediaserver.models.process import EXIT_ADDRESS_IN_USE, EXIT_MISSING_PACKAGE
from mediaserver.models.server import Limits, Models, make_app

ORDERLY_END_S = 5.0
"""After the parent's end; then the process ends without order."""
EXIT_ABANDONED = 5
MAX_THREADS = 2
"""Per inference. More hardly shortens one of these small models, and several callers are served at once."""
VOICES: dict[str, Callable[..., Synthesizer]] = {"joe": PiperJoe, "heart": HibariHeart}
WARM_UP_PROMPT = "Hello."


def main() -> int:
    """Run the process; returns only when it could not serve."""
    began = time.monotonic()
    options = _options()
    lifeline = _Lifeline() if options.end_with_stdin else None
    # Read by the libraries when they are first imported or first compute: no network, and no spinning OpenMP threads.
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    try:
        models = load(Limits(workers=options.workers, max_waiting=options.max_waiting), options.voices)
    except StartupError as error:
        print(f"models: {error}", file=sys.stderr)
        return EXIT_MISSING_PACKAGE
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((options.host, options.port))
        except OSError as error:
            print(f"models: {options.host} port {options.port}: {error.strerror}", file=sys.stderr)
            return EXIT_ADDRESS_IN_USE
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(models, listener, options, began, lifeline))
            # An inference cannot be interrupted, and the interpreter would wait for those whose clients are gone.
            os._exit(0)


def _options() -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="python -m mediaserver.models", description=__doc__)
    parser.add_argument("--host", type=_loopback, default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path, help="written once requests are served")
    parser.add_argument("--workers", type=_positive, default=min(4, cores), help="at once, of each kind")
    parser.add_argument("--max-waiting", type=_positive, default=32, help="more requests get 429")
    parser.add_argument("--voices", nargs="+", default=["joe"], choices=VOICES)
    parser.add_argument("--end-with-stdin", action="store_true", help="end when stdin is closed")
    return parser.parse_args()


def _loopback(text: str) -> str:
    """The API knows no keys, so it is never offered to a network."""
    if not ipaddress.ip_address(text).is_loopback:
        raise argparse.ArgumentTypeError(f"{text} is not a loopback address")
    return text


def _positive(text: str) -> int:
    if not 1 <= int(text) <= 1_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 1000")
    return int(text)


def load(limits: Limits, voices: list[str]) -> Models:
    """Load what is asked for and run each model once, so that the first caller does not pay for it."""
    threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
    loaded = {name: VOICES[name](threads=threads) for name in voices}
    transcriber = WhisperTiny(threads=threads, workers=limits.workers)
    transcriber.transcribe(np.zeros(TRANSCRIPTION_RATE_HZ, dtype=np.float32), WARM_UP_PROMPT)
    for synthesizer in loaded.values():
        for _ in synthesizer.synthesize(WARM_UP_PROMPT, 1.0):
            pass
    return Models(transcriber, loaded, limits)


class _Server(uvicorn.Server):
    """uvicorn that says when it serves."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


async def _serve(
    models: Models,
    listener: socket.socket,
    options: argparse.Namespace,
    began: float,
    lifeline: _Lifeline | None,
) -> None:
    def ready() -> None:
        port = listener.getsockname()[1]
        print(
            f"models: ready on {options.host} port {port} after {time.monotonic() - began:.1f} s", flush=True
        )
        if options.port_file is not None:
            # Written aside and renamed: whoever sees the file can read it whole.
            partial = options.port_file.with_suffix(".partial")
            partial.write_text(str(port))
            partial.replace(options.port_file)

    config = uvicorn.Config(
        make_app(models), log_level="warning", lifespan="off", timeout_graceful_shutdown=2
    )
    server = _Server(config, ready)
    if lifeline is not None:
        lifeline.tell(server)
    await server.serve(sockets=[listener])


class _Lifeline:
    """The parent holds the other end of our stdin: when it dies, however it dies, the pipe closes, and we end.

    A thread watches, because the loop may not run yet (the models load) or no longer (it hangs).
    """

    def __init__(self) -> None:
        self._server: uvicorn.Server | None = None
        self._cut = threading.Event()
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def tell(self, server: uvicorn.Server) -> None:
        """Let ``server`` end in order when the parent is gone."""
        self._server = server
        server.should_exit = self._cut.is_set()

    def _watch(self) -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        self._cut.set()
        if self._server is not None:
            self._server.should_exit = True  # uvicorn looks ten times a second
        time.sleep(ORDERLY_END_S)
        os._exit(EXIT_ABANDONED)


if __name__ == "__main__":
    sys.exit(main())
