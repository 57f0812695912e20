"""Looks into a SQLite file that nobody has open, and leaves no trace of it.

Opening a file in WAL mode makes two more beside it, and closing it removes them: that costs more than all that a call asks. But
who has it open has these files, and the last one to close it has written all that was committed into the file itself
(https://sqlite.org/wal.html, 2.2). So where there is no ``-wal``, the file alone is what is committed, and it is read as one
that does not change, without locks (``immutable=1``, https://sqlite.org/uri.html). Whether it really did not is looked at
afterwards: a writer leaves its time on the file before its first page is there. A time from just now proves nothing, for a
clock that ticks has one time for several writes. In every such case there is no answer, and the file is to be opened.

Nothing here but SQLite opens the file: of what a process closes itself, SQLite's own locks on it would be lost
(https://sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import time_ns
from typing import Any, Final, Generic, TypeVar

from tenancy.database import PreparedQuery
from tenancy.errors import StoreError

AT_ONCE: Final = 2
"""Files that are looked into at a time; each is one file descriptor and a thread. Others wait, as long as one look takes."""
SETTLED_S: Final = 3.0
"""How long ago the last write must be. Beyond what file systems round times to, which is 2 s at most."""

MAX_REMEMBERED: Final = 1_024

T = TypeVar("T")
Stamp = tuple[int, int, int, int, int]
"""Which file it is, its length, and when it was written to: where these are the same, so is what is committed."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was read, and of which state of the file; None where it was open."""

    rows: list[Any]
    stamp: Stamp | None = None


class Glances:
    """Looks into files of one schema, in threads of their own: none waits for what others do in threads."""

    def __init__(self, head: int) -> None:
        self._head = head
        self._threads = ThreadPoolExecutor(AT_ONCE, "glance")
        self._looks: dict[Path, set[asyncio.Future[Look | None]]] = {}
        self._closed = False

    async def fetch(self, path: Path, query: PreparedQuery, **values: str | int) -> Look | None:
        """All rows of a query as of what was committed when it was asked; None: the file has to be opened.

        So it has where somebody has it open, where it is written to or was just now, has another schema, is damaged or is not
        there. Raises `StoreError` when closed. A look that was begun ends by itself when who asked is cancelled.
        """
        if self._closed:
            raise StoreError(f"{path}: the registry is closed")
        parameters = [values[name] for name in query.parameters]
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, look, path, self._head, query.sql, parameters)
        self._looks.setdefault(path, set()).add(future)
        future.add_done_callback(lambda _: self._forget(path, future))
        return await asyncio.shield(future)

    def _forget(self, path: Path, future: asyncio.Future[Look | None]) -> None:
        looks = self._looks[path]
        looks.discard(future)
        if not looks:
            del self._looks[path]

    async def ended(self, path: Path) -> None:
        """Wait for the looks into a file that is to be opened: of one that this process has locks on, SQLite closes no descriptor."""
        looks = self._looks.get(path)
        if looks:
            await asyncio.wait(looks)

    async def close(self) -> None:
        """End the threads, each after what it looks into."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)


class Remembered(Generic[T]):
    """What was made of looks, of `MAX_REMEMBERED` files at most, each as long as the file stays as it was."""

    def __init__(self) -> None:
        self._values: OrderedDict[Path, tuple[Stamp, T]] = OrderedDict()

    def get(self, path: Path) -> T | None:
        """What holds of the file as it is now, where that is known."""
        found = self._values.get(path)
        if found is None or stamp_of(path) != found[0]:
            return None
        self._values.move_to_end(path)
        return found[1]

    def put(self, path: Path, stamp: Stamp | None, value: T) -> None:
        """Remember it, where the file is in a state that can be told from others."""
        self._values.pop(path, None)
        if stamp is not None:
            self._values[path] = (stamp, value)
            if len(self._values) > MAX_REMEMBERED:
                self._values.popitem(last=False)


def look(path: Path, head: int, sql: str, parameters: list[str | int]) -> Look | None:
    """As `Glances.fetch`; blocks. ``head`` is the schema version (``user_version``) that the file must have."""
    before = stamp_of(path)
    if before is None:
        return None
    try:
        # Statements are used once: none is worth keeping.
        with closing(
            sqlite3.connect(
                f"{path.absolute().as_uri()}?immutable=1",
                uri=True,
                isolation_level=None,
                cached_statements=0,
            )
        ) as connection:
            if connection.execute("PRAGMA user_version").fetchone() != (head,):
                return None
            rows = connection.execute(sql, parameters).fetchall()
    except sqlite3.Error:
        # Of a file that is being written to, anything may be read. One that is really damaged says so when it is opened.
        return None
    return Look(rows, before) if stamp_of(path) == before else None


def stamp_of(path: Path) -> Stamp | None:
    """The state of a file; None where somebody may have more to say about its content, or has had just now."""
    # First: what is committed before this has left a journal here, or is in the file when its time is read.
    if any(os.path.lexists(f"{path}{suffix}") for suffix in ("-wal", "-journal")):
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    # The time of a change of the file's metadata cannot be set back, as the other can.
    latest = max(found.st_mtime_ns, found.st_ctime_ns)
    if latest > time_ns() - SETTLED_S * 1e9:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
