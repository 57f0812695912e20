"""Vaults over every store, with a clock that tests turn and random bytes that can be repeated."""

from __future__ import annotations

import asyncio
import random
import threading
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.node import PostgresConfig
from perf.postgres_server import NoPostgresError, PostgresServer, postgres_server
from tenancy.vault_database import VaultDatabase
from vault import LocalKek, LocalKeyEncryption, Secret, SqliteStore, Vault
from vault.kek import KeyEncryption
from vault.memory import MemoryStore
from vault.open_keys import OpenKeys
from vault.postgres import PostgresSecretStore
from vault.records import Link, SecretStore, Write
from vault.sealing import KeyMaterial

NOON = datetime(2025, 3, 3, 12, tzinfo=UTC)
ADA = "ada@example.org"


@dataclass
class Clock:
    """Milliseconds that pass when a test says so."""

    now: int = 1_000_000

    def __call__(self) -> int:
        return self.now


def seeded(seed: int = 1) -> random.Random:
    return random.Random(seed)


def kek(label: str = "k1", seed: int | None = None) -> LocalKek:
    """The same key for the same label."""
    return LocalKek(label, KeyMaterial(random.Random(seed if seed is not None else label).randbytes(32)))


def local(current: str = "k1", *older: str, seed: int = 2) -> LocalKeyEncryption:
    return LocalKeyEncryption(kek(current), [kek(each) for each in older], seeded(seed).randbytes)


def vault_over(
    store: SecretStore,
    keks: KeyEncryption | None = None,
    *,
    clock: Clock | None = None,
    seed: int = 3,
    keep_ms: int = 0,
) -> Vault:
    """A vault that, unless asked to, keeps no data key open: every look goes through the key-encryption key."""
    keks, clock = keks or local(), clock or Clock()
    return Vault(
        store,
        keks,
        random_bytes=seeded(seed).randbytes,
        now_ms=clock,
        opened=OpenKeys(keks, clock, keep_ms),
    )


async def put(vault: Vault, tenant: str, name: str, value: str) -> None:
    await vault.put(tenant, name, Secret(value), actor=ADA, at=NOON)


async def value(vault: Vault, tenant: str, name: str) -> str:
    return (await vault.get(tenant, name)).reveal()


def shown(error: BaseException) -> str:
    """All that a report could say of an error: its texts, notes and causes, the suppressed too, with the local variables of
    every frame that is not a test's own.
    """
    said: list[str] = []
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        left += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions
        whole = traceback.TracebackException.from_exception(each, capture_locals=True)
        said += [repr(each), str(each), repr(vars(each)), *whole.format_exception_only()]
        said += [
            f"{frame.filename} {frame.name} {frame.line} {frame.locals}"
            for frame in whole.stack
            if Path(__file__).parent not in Path(frame.filename).parents
        ]
    return "\n".join(said)


class Interrupted(Exception):  # noqa: N818
    """The process ended here, as far as the store is concerned."""


@dataclass
class InterruptedStore:
    """A store whose process ends at the n-th commit, just before or just after it is done."""

    inner: SecretStore
    at: int
    after: bool
    commits: int = field(default=0)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    async def commit(self, writes: Sequence[Write], link: Link) -> None:
        self.commits += 1
        if self.commits == self.at and not self.after:
            raise Interrupted
        await self.inner.commit(writes, link)
        if self.commits == self.at:
            raise Interrupted


@pytest.fixture(autouse=True)
async def _no_connection_outlives_its_test() -> AsyncIterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if "connection_worker" in thread.name:
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive(), f"{thread.name} still runs"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for the whole run; each test has a database of its own."""
    try:
        with postgres_server() as server:
            yield server
    except NoPostgresError as error:
        pytest.skip(str(error))


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    try:
        with postgres_server() as server:
            yield server
    except NoPostgresError as error:
        pytest.skip(str(error))


async def on_postgres(url: str, wait_ms: int = 5_000) -> PostgresSecretStore:
    return await PostgresSecretStore.open(VaultDatabase(url, PostgresConfig(wait_ms=wait_ms)))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SecretStore]:
    """Each backing; one that is added later is added here and must pass all that takes this fixture."""
    made: SecretStore
    match request.param:
        case "memory":
            made = MemoryStore()
        case "sqlite":
            made = await SqliteStore.open(tmp_path / "vault.db")
        case _:
            server: PostgresServer = request.getfixturevalue("postgres")
            made = await on_postgres(server.new_database())
    yield made
    await made.aclose()
