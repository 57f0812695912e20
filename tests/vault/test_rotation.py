"""Rotation of both kinds: while keys are in use, interrupted anywhere, and gone on with."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vault.conftest import ADA, NOON, Interrupted, InterruptedStore, kek, local, put, value, vault_over
from vault import KekUnavailable, KeyEncryption, SecretMissing, SqliteStore
from vault.memory import MemoryStore
from vault.records import SecretStore
from vault.sealing import KeyMaterial, KeyPlace, WrappedKey

TENANTS = ("a", "b", "c")
NAMES = ("k1", "k2", "k3")


async def filled(store: SecretStore, keks: KeyEncryption | None = None) -> None:
    vault = vault_over(store, keks)
    for tenant in TENANTS:
        for name in NAMES:
            await put(vault, tenant, name, f"{tenant} {name}")


async def everything_is_readable(store: SecretStore, keks: KeyEncryption | None = None) -> None:
    vault = vault_over(store, keks)
    for tenant in TENANTS:
        for name in NAMES:
            assert await value(vault, tenant, name) == f"{tenant} {name}"
    assert await vault.verify_audit() is None


# -- a new key-encryption key --------------------------------------------------------------------------


async def test_every_data_key_comes_under_the_new_key_encryption_key(store: SecretStore) -> None:
    await filled(store, local("k1"))
    await everything_is_readable(store, local("k2", "k1"))
    done = await vault_over(store, local("k2", "k1")).rotate_kek(actor=ADA, at=NOON)
    assert (done.kek_id, done.rewrapped, done.failures, done.finished) == (kek("k2").id, 4, (), True)
    await everything_is_readable(store, local("k2"))
    again = await vault_over(store, local("k2")).rotate_kek(actor=ADA, at=NOON)
    assert (again.rewrapped, again.finished) == (0, True)


async def test_it_goes_a_few_at_a_time(store: SecretStore) -> None:
    await filled(store, local("k1"))
    vault = vault_over(store, local("k2", "k1"))
    runs = []
    for _ in range(3):
        done = await vault.rotate_kek(actor=ADA, at=NOON, limit=2)
        runs.append((done.rewrapped, done.finished))
        await everything_is_readable(store, local("k2", "k1"))
    assert runs == [(2, False), (2, True), (0, True)]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 5))
async def test_an_interrupted_change_of_the_key_encryption_key_goes_on(
    store: SecretStore, at: int, after: bool
) -> None:
    await filled(store, local("k1"))
    interrupted = InterruptedStore(store, at, after)
    with pytest.raises(Interrupted):
        await vault_over(interrupted, local("k2", "k1")).rotate_kek(actor=ADA, at=NOON)  # type: ignore[arg-type]
    await everything_is_readable(store, local("k2", "k1"))
    done = await vault_over(store, local("k2", "k1")).rotate_kek(actor=ADA, at=NOON)
    assert (done.rewrapped, done.finished) == (4 - at + (not after), True)
    await everything_is_readable(store, local("k2"))


async def test_a_data_key_that_does_not_open_is_told_and_the_others_go_on() -> None:
    store = MemoryStore()
    await filled(store, local("k1"))
    broken = store._data_keys["b", 1]
    store._data_keys["b", 1] = replace(broken, wrapped=WrappedKey(broken.wrapped.kek_id, b"\x01" + bytes(60)))
    done = await vault_over(store, local("k2", "k1")).rotate_kek(actor=ADA, at=NOON)
    assert (done.rewrapped, done.failed, done.finished) == (3, 1, False)
    (failure,) = done.failures
    assert (failure.tenant_id, failure.what) == ("b", "data key 1")
    assert "does not open" in failure.reason
    assert await value(vault_over(store, local("k2")), "c", "k1") == "c k1"


class Failing:
    """A key service that stops answering after so many requests."""

    def __init__(self, inner: KeyEncryption, answers: int) -> None:
        self.inner = inner
        self.answers = answers

    def _count(self) -> None:
        self.answers -= 1
        if self.answers < 0:
            raise KekUnavailable("no answer")

    async def current_id(self) -> str:
        self._count()
        return await self.inner.current_id()

    async def wrap(self, key: KeyMaterial, place: KeyPlace) -> WrappedKey:
        self._count()
        return await self.inner.wrap(key, place)

    async def unwrap(self, wrapped: WrappedKey, place: KeyPlace) -> KeyMaterial:
        self._count()
        return await self.inner.unwrap(wrapped, place)

    async def rewrap(self, wrapped: WrappedKey, place: KeyPlace) -> WrappedKey:
        self._count()
        return await self.inner.rewrap(wrapped, place)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_a_key_service_may_stop_answering_at_any_request(store: SecretStore) -> None:
    await filled(store, local("k1"))
    stopped = 0
    for answers in range(30):
        try:
            failing = Failing(local("k2", "k1", seed=answers), answers)
            await vault_over(store, failing, seed=answers).rotate_kek(actor=ADA, at=NOON, limit=1)
            await vault_over(store, failing, seed=answers).rotate_data_key("a", actor=ADA, at=NOON)
        except KekUnavailable:
            stopped += 1
        await everything_is_readable(store, local("k2", "k1"))
    assert 3 < stopped < 30
    assert len(await store.data_keys("a")) == 1


# -- a new data key ------------------------------------------------------------------------------------


async def test_a_tenant_gets_a_new_data_key_and_the_old_one_is_gone(store: SecretStore) -> None:
    await filled(store)
    vault = vault_over(store)
    await vault.revoke("a", "k3", actor=ADA, at=NOON)
    before = await vault.list("a")
    done = await vault.rotate_data_key("a", actor=ADA, at=NOON)
    assert (done.generation, done.resumed, done.resealed, done.failures, done.finished) == (
        2,
        False,
        2,
        (),
        True,
    )
    assert [each.place.generation for each in await store.data_keys("a")] == [2]
    assert [each.place.generation for each in await store.data_keys("b")] == [1]
    assert await vault.list("a") == before, "nothing that is told of a key changes"
    assert {row.generation for row in await store.secrets("a")} == {2, None}
    await put(vault, "a", "k3", "a k3")
    await everything_is_readable(store)
    with pytest.raises(SecretMissing, match="nobody has no keys"):
        await vault.rotate_data_key("nobody", actor=ADA, at=NOON)


# One commit adds, three reseal, one retires.
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 6))
async def test_an_interrupted_change_of_the_data_key_goes_on(
    store: SecretStore, at: int, after: bool
) -> None:
    await filled(store)
    interrupted = InterruptedStore(store, at, after)
    with pytest.raises(Interrupted):
        await vault_over(interrupted).rotate_data_key("a", actor=ADA, at=NOON)  # type: ignore[arg-type]
    await everything_is_readable(store)
    # Between the two, a key is put, under whatever is the newest.
    await put(vault_over(store, seed=9), "a", "k2", "a k2")
    done = await vault_over(store, seed=10).rotate_data_key("a", actor=ADA, at=NOON)
    assert done.finished
    assert done.resumed == ((at, after) not in [(1, False), (5, True)])
    assert len(await store.data_keys("a")) == 1
    await everything_is_readable(store)


async def test_readers_and_writers_go_on_through_rotations(store: SecretStore) -> None:
    await filled(store)
    stop = asyncio.Event()
    seen = 0

    async def reads() -> None:
        nonlocal seen
        vault = vault_over(store, seed=20)
        while not stop.is_set():
            for tenant in TENANTS:
                for name in NAMES:
                    assert (await value(vault, tenant, name)).startswith(f"{tenant} {name}")
                    seen += 1
                    await asyncio.sleep(0)

    async def writes() -> None:
        vault = vault_over(store, seed=21)
        for number in range(20):
            await put(vault, "a", "k2", f"a k2 {number}")
            await asyncio.sleep(0)

    async def rotates() -> None:
        for number in range(4):
            await vault_over(store, seed=30 + number).rotate_data_key("a", actor=ADA, at=NOON)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        reader = group.create_task(reads())
        group.create_task(writes())
        rotating = group.create_task(rotates())
        await rotating
        stop.set()
        await reader
    assert seen >= 9
    assert await value(vault_over(store), "a", "k2") == "a k2 19"
    assert await vault_over(store).verify_audit() is None


async def test_a_secret_that_does_not_open_keeps_the_old_data_key() -> None:
    store = MemoryStore()
    await filled(store)
    row = store._secrets["a", "k2"]
    assert row.sealed is not None
    store._secrets["a", "k2"] = replace(row, sealed=row.sealed[:-1] + bytes([row.sealed[-1] ^ 1]))
    done = await vault_over(store).rotate_data_key("a", actor=ADA, at=NOON)
    assert (done.resealed, done.finished) == (2, False)
    (failure,) = done.failures
    assert (failure.tenant_id, failure.what) == ("a", "k2")
    # Put anew, it is good again, and the rotation can be finished.
    vault = vault_over(store, seed=8)
    await put(vault, "a", "k2", "a k2")
    assert (await vault.rotate_data_key("a", actor=ADA, at=NOON)).finished
    await everything_is_readable(store)


async def test_both_rotations_may_run_at_once(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "vault.db")
    await filled(store, local("k1"))
    for turn in range(3):
        current, older = f"k{turn + 2}", f"k{turn + 1}"
        await asyncio.gather(
            vault_over(store, local(current, older), seed=40 + turn).rotate_kek(actor=ADA, at=NOON),
            *(
                vault_over(store, local(current, older), seed=50 + turn).rotate_data_key(
                    each, actor=ADA, at=NOON
                )
                for each in TENANTS
            ),
        )
        done = await vault_over(store, local(current, older)).rotate_kek(actor=ADA, at=NOON)
        assert done.finished
        await everything_is_readable(store, local(current))
    await store.aclose()
