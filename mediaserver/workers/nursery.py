"""The warmed parent of the call workers: it has imported what a pipeline needs, and does nothing but fork.

A worker that starts from nothing takes three to five seconds to import Pipecat; one that is forked from here takes milliseconds
and shares the parent's pages. The nursery runs no event loop, no thread and no tenant's code, so that a fork is safe.

    python -m mediaserver.workers.nursery FD

FD is a SOCK_SEQPACKET socket to the edge. ``ready`` says that everything is imported. The edge sends `WorkerSettings` with the
worker's end of a fresh socket pair; the answer is ``born PID``. When a worker ends, ``ended PID STATUS`` follows (negative: the
signal). When the edge closes the socket, the nursery ends; workers end with their own sockets.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import uvloop
from loguru import logger

from mediaserver.workers.worker_settings import EXIT_NO_MEMORY, WorkerSettings

WORKER_MODULE = "mediaserver.workers.worker"
"""With Pipecat and all that pipelines need behind it."""
AT_FIRST_USE = ("encodings.idna",)
"""What Python would import when a call's first request asks for an address."""
MAX_REQUEST_OCTETS = 65_536
OOM_SCORE = Path("/proc/self/oom_score_adj")
OOM_SCORE_ADJUSTMENT = 500
"""The kernel takes a worker before it takes the edge, whose media every call needs."""


def main(descriptor: int) -> None:
    """Fork workers until the edge is gone."""
    edge = socket.socket(fileno=descriptor)
    # What is logged while modules are imported (Pipecat greets) has no place in the node's log; each worker sets its own up.
    logger.remove()
    for module in AT_FIRST_USE:
        importlib.import_module(module)
    importlib.import_module(WORKER_MODULE).warm()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; the edge decides when its workers end
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # What is here now is never collected again: collecting would copy the shared pages into every worker.
    gc.collect()
    gc.freeze()
    edge.send(b"ready")
    while True:
        readable, _, _ = select.select([edge.fileno(), wake_read], [], [])
        if wake_read in readable:
            os.read(wake_read, 4096)
            _reap(edge)
        if edge.fileno() in readable and not _fork(edge, (wake_read, wake_write)):
            return


def _reap(edge: socket.socket) -> None:
    """Tell the edge whose end has come."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with suppress(OSError):
                edge.send(f"ended {pid} {os.waitstatus_to_exitcode(status)}".encode())


def _fork(edge: socket.socket, pipe: tuple[int, int]) -> bool:
    """Serve one request; False when the edge is gone."""
    text, descriptors, _, _ = socket.recv_fds(edge, MAX_REQUEST_OCTETS, 1)
    if not text:
        return False
    settings = WorkerSettings.from_json(text)
    worker_end = socket.socket(fileno=descriptors[0])
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        edge.close()
        for end in pipe:
            os.close(end)
        _become_worker(worker_end, settings)
    worker_end.close()
    edge.send(f"born {pid}".encode())
    return True


def _become_worker(sock: socket.socket, settings: WorkerSettings) -> None:
    """Never returns."""
    status = 1
    try:
        if settings.memory_mb:
            octets = settings.memory_mb * 1024 * 1024
            resource.setrlimit(resource.RLIMIT_DATA, (octets, octets))
        with suppress(OSError):
            OOM_SCORE.write_text(str(OOM_SCORE_ADJUSTMENT))
        uvloop.run(importlib.import_module(WORKER_MODULE).work(sock, settings))
        status = 0
    except MemoryError:
        status = EXIT_NO_MEMORY
    except BaseException as error:  # noqa: BLE001 - nothing may return into the nursery's loop
        sys.stderr.write(f"call worker failed: {type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(int(sys.argv[1]))
