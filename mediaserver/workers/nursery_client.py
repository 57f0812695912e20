"""The edge's side of the nursery: starts it, asks it for workers, and hears of their ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable

from loguru import logger

from mediaserver.errors import StartupError
from mediaserver.workers.worker_settings import WorkerSettings

START_TIMEOUT_S = 60.0
BIRTH_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
MAX_MESSAGE_OCTETS = 4_096


class Nursery:
    """One nursery process. ``on_ended`` is told a worker's process id and exit status (negative: the signal)."""

    def __init__(self) -> None:
        self.on_ended: Callable[[int, int], None] = log_end
        """Told the process and the exit status of each worker that has ended."""
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._starting: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._births: deque[asyncio.Future[int]] = deque()

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def is_up(self) -> bool:
        """Whether workers can be asked for."""
        return self._control is not None and self._process is not None and self._process.returncode is None

    def begin(self) -> None:
        """Start it without waiting: it imports while the caller does something else until `start`."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._launch(), name="nursery-start")

    async def start(self) -> None:
        """Start it and wait until it has imported everything. Raises `StartupError`."""
        self.begin()
        assert self._starting is not None
        await self._starting

    async def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mediaserver.workers.nursery",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is the edge's to deal with
            )
        except OSError as error:
            ours.close()
            raise StartupError(f"the nursery of call workers cannot be started: {error}") from error
        finally:
            theirs.close()
        self._control = ours
        asyncio.get_running_loop().add_reader(ours, self._read)
        try:
            await asyncio.wait_for(self._ready.wait(), START_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            raise StartupError(
                f"the nursery of call workers was not ready within {START_TIMEOUT_S:.0f} s"
            ) from None
        if not self.is_up:
            raise StartupError("the nursery of call workers ended while it started; its last words are above")

    async def fork(self, settings: WorkerSettings) -> tuple[int, socket.socket]:
        """A fresh worker: its process id and the edge's end of its socket. Raises `OSError`."""
        if self._control is None:
            raise ConnectionError("the nursery has ended")
        ours, theirs = socket.socketpair()
        born = asyncio.get_running_loop().create_future()
        try:
            self._births.append(born)
            socket.send_fds(self._control, [settings.to_json()], [theirs.fileno()])
            pid = await asyncio.wait_for(born, BIRTH_TIMEOUT_S)
        except TimeoutError:
            ours.close()
            raise ConnectionError(f"the nursery bore no worker within {BIRTH_TIMEOUT_S:.0f} s") from None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            if born in self._births:
                self._births.remove(born)
        ours.setblocking(False)
        return pid, ours

    def _read(self) -> None:
        assert self._control is not None
        try:
            message = self._control.recv(MAX_MESSAGE_OCTETS)
        except BlockingIOError:
            return
        except OSError as error:
            logger.error("the nursery's socket broke: {}", error)
            message = b""
        word, *numbers = message.decode("ascii", "replace").split() or [""]
        match word, numbers:
            case "ready", []:
                self._ready.set()
            case "born", [pid] if self._births:
                born = self._births.popleft()
                if not born.done():
                    born.set_result(int(pid))
            case "ended", [pid, status]:
                self.on_ended(int(pid), int(status))
            case _:
                self._lost()

    def _lost(self) -> None:
        """The nursery has ended. Its workers live on; there will be no further ones."""
        if self._control is None:
            return
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = None
        self._ready.set()
        while self._births:
            born = self._births.popleft()
            if not born.done():
                born.set_exception(ConnectionError("the nursery has ended"))

    async def close(self) -> None:
        """End it. Workers end with their own sockets."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
            if not self._starting.cancelled():
                self._starting.exception()  # told to `start`, or to nobody who waits
            self._starting = None
        self._lost()
        process, self._process = self._process, None
        if process is None:
            return
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def log_end(pid: int, status: int) -> None:
    """The nursery reaped a worker. Its socket says the same; this says why."""
    if status < 0:
        logger.info("call worker {} was ended by {}", pid, signal.Signals(-status).name)
    elif status:
        logger.error("call worker {} ended with status {}", pid, status)
