"""Readings of files that others may write to meanwhile."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mediaserver.doctor.read_only import ATTEMPTS, reading


def write(path: Path) -> None:
    """As another program does: open, write, close."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS rows (n INTEGER)")
        connection.execute("INSERT INTO rows VALUES (1)")


def beside(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


@pytest.mark.parametrize("times", [1, ATTEMPTS - 1])
def test_what_was_written_and_closed_meanwhile_is_read_again(tmp_path: Path, times: int) -> None:
    path = tmp_path / "x.db"
    write(path)
    found: list[int] = []

    def work(connection: sqlite3.Connection) -> int:
        (count,) = connection.execute("SELECT count(*) FROM rows").fetchone()
        found.append(int(count))
        if len(found) <= times:
            write(path)
            if times > 1:
                # What is read of two moments may look damaged.
                raise sqlite3.DatabaseError("database disk image is malformed")
        return int(count)

    assert reading(path, work) == 1 + times
    assert found == list(range(1, 2 + times))
    assert beside(path) == ["x.db"]


def test_what_is_really_damaged_says_so_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"no database" * 1_000)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        reading(path, lambda connection: connection.execute("SELECT 1 FROM sqlite_master").fetchone())
    with pytest.raises(sqlite3.OperationalError):
        reading(tmp_path / "none.db", lambda _: None)
    assert beside(path) == ["x.db"]
