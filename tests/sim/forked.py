"""``mediaserver`` commands, each in a process of its own, which was forked from one that has loaded what they need.

As a person starts them, with arguments, environment, standard streams and an exit status; but loading Python's modules takes
seconds each time, and a test may need twenty commands. That a command starts by itself is `test_command`'s.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

import mediaserver.cli

TIMEOUT_S = 120
MAX_REQUEST_BYTES = 1 << 20
LOADED = (
    "anyio._backends._asyncio",
    "mediaserver.configuring.nobody",
    "mediaserver.configuring.running",
    "mediaserver.doctor.command",
    "mediaserver.keys_command",
    "mediaserver.pipeline.call_pipeline",
    "pydantic.v1",
)
"""What commands load when they are asked for."""
CHECKOUT = Path(__file__).parents[2]


def run(
    *arguments: object, stdin: bytes = b"", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run ``mediaserver`` with these arguments; ``environ`` is added to the test's own."""
    given = [str(argument) for argument in arguments]
    with (
        tempfile.TemporaryFile() as read,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        read.write(stdin)
        read.seek(0)
        files = [read.fileno(), out.fileno(), err.fileno()]
        status = _forker().run(given, {**os.environ, **(environ or {})}, files)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(given, status, out.read(), err.read())


async def start(
    *arguments: object, stdin: bytes = b"", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """As `run`, while the test's event loop goes on. One after the other: there is one process that forks."""
    return await asyncio.to_thread(run, *arguments, stdin=stdin, environ=environ)


class _Forker:
    """The process that forks, from the test's side."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_REQUEST_BYTES)
        self._socket.settimeout(TIMEOUT_S)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.sim.forked", str(other.fileno())],
                pass_fds=[other.fileno()],
                cwd=CHECKOUT,
            )
        atexit.register(self.close)

    def run(self, arguments: Sequence[str], environ: Mapping[str, str], files: Sequence[int]) -> int:
        request = orjson.dumps({"arguments": arguments, "environ": environ, "directory": str(Path.cwd())})
        socket.send_fds(self._socket, [request], files)
        answer = self._socket.recv(16)
        assert answer, "the process that forks has ended"
        return int(answer)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(TIMEOUT_S)


@functools.cache
def _forker() -> _Forker:
    return _Forker()


def _fork(peer: socket.socket) -> None:
    """Carry out requests until the test's process closes the socket."""
    for each in LOADED:
        importlib.import_module(each)
    while True:
        request, files, _flags, _address = socket.recv_fds(peer, MAX_REQUEST_BYTES, 3)
        if not request:
            return
        child = os.fork()
        if child == 0:
            status = 70  # EX_SOFTWARE
            try:
                peer.close()
                for number, file in enumerate(files):
                    os.dup2(file, number)
                    os.close(file)
                asked = orjson.loads(request)
                os.environ.clear()
                os.environ.update(asked["environ"])
                os.chdir(asked["directory"])
                status = mediaserver.cli.main(asked["arguments"])
            except SystemExit as refused:
                status = refused.code if isinstance(refused.code, int) else 1
            except BaseException:  # noqa: BLE001 - the child ends with it here and nowhere else
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        for file in files:
            os.close(file)
        _, ended = os.waitpid(child, 0)
        peer.send(str(os.waitstatus_to_exitcode(ended)).encode())


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given_peer:
        _fork(given_peer)
