"""SQLite files opened so that nothing is changed, in them or beside them (but the ``-shm`` of a log that is there).

A file in WAL mode that nobody has open has no ``-wal`` beside it, and a connection would make one (https://sqlite.org/wal.html,
"Read-Only Databases"); such a file is read as one that nobody changes. Where somebody opened it meanwhile, what was read
may be of two moments, and it is read again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")
BUSY_S: Final = 2.0
STEPS: Final = 100_000
"""Of SQLite's machine, between two looks at whether a reading takes too long."""


def reading(path: Path, work: Callable[[sqlite3.Connection], T]) -> T:
    """Read a file. Raises `sqlite3.Error`."""
    failed: sqlite3.Error | None = None
    for _ in range(2):
        in_use = wal(path).exists()
        try:
            with closing(_connect(path, in_use=in_use)) as connection:
                found = work(connection)
        except sqlite3.Error as error:
            failed = error
        else:
            if in_use or not wal(path).exists():
                return found
            continue
        if in_use or not wal(path).exists():
            raise failed
    with closing(_connect(path, in_use=True)) as connection:
        return work(connection)


def wal(path: Path) -> Path:
    """The write-ahead log of a file."""
    return path.with_name(f"{path.name}-wal")


def _connect(path: Path, *, in_use: bool) -> sqlite3.Connection:
    how = "mode=ro" if in_use else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY_S, isolation_level=None
    )


def copied(path: Path, target: Path) -> None:
    """Copy a file as of one moment into another, for what cannot work without writing. Raises `sqlite3.Error`."""
    with closing(sqlite3.connect(target)) as copy:
        reading(path, lambda connection: connection.backup(copy))
