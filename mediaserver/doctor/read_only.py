"""SQLite files opened so that nothing is changed, in them or beside them (but the ``-shm`` of a log that is there).

A file in WAL mode that nobody has open has no ``-wal`` beside it, and a connection would make one (https://sqlite.org/wal.html,
"Read-Only Databases"); such a file is read as one that nobody changes. Where somebody wrote to it meanwhile, and may have closed it
again, what was read may be of two moments, and it is read again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")
ATTEMPTS: Final = 3
TICK_NS: Final = 50_000_000
"""Longer than a tick of the clock by which files have their times."""
BUSY_S: Final = 2.0
STEPS: Final = 100_000
"""Of SQLite's machine, between two looks at whether a reading takes too long."""


def reading(path: Path, work: Callable[[sqlite3.Connection], T]) -> T:
    """Read a file. Raises `sqlite3.Error`."""
    for _ in range(ATTEMPTS):
        before = _state(path)
        if before is None:
            # Somebody has it open: with SQLite's locks.
            break
        try:
            with closing(_connect(path, in_use=False)) as connection:
                found = work(connection)
        except sqlite3.Error:
            if _state(path) == before:
                raise
        else:
            if _state(path) == before:
                return found
    with closing(_connect(path, in_use=True)) as connection:
        return work(connection)


def wal(path: Path) -> Path:
    """The write-ahead log of a file."""
    return path.with_name(f"{path.name}-wal")


def _state(path: Path) -> tuple[int, ...] | None:
    """Which file it is, and when it was written to; None where somebody has it open. Raises `sqlite3.OperationalError`."""
    if wal(path).exists():
        return None
    try:
        found = path.stat()
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < TICK_NS:
            # A write right now would have the same time, for the clock of files ticks: wait until it would not.
            time.sleep(TICK_NS / 1e9)
            found = path.stat()
    except OSError as error:
        raise sqlite3.OperationalError(f"{path}: {error.strerror}") from error
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _connect(path: Path, *, in_use: bool) -> sqlite3.Connection:
    how = "mode=ro" if in_use else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY_S, isolation_level=None
    )


def copied(path: Path, target: Path) -> None:
    """Copy a file as of one moment into another, for what cannot work without writing. Raises `sqlite3.Error`."""
    with closing(sqlite3.connect(target)) as copy:
        reading(path, lambda connection: connection.backup(copy))
