"""Keys put, had, listed and revoked, on every store; and what happens when their key-encryption key is gone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

import pytest

from tests.vault.conftest import ADA, NOON, Clock, kek, local, put, seeded, value, vault_over
from vault import (
    BadInput,
    Conflict,
    KekMissing,
    KekUnavailable,
    LocalKeyEncryption,
    SealBroken,
    Secret,
    SecretMissing,
    SecretRevoked,
    Vault,
    VaultFull,
)
from vault.envelopes import NAMES_MAX
from vault.memory import MemoryStore
from vault.open_keys import OpenKeys
from vault.records import SecretStore
from vault.sealing import KeyMaterial, KeyPlace, WrappedKey


async def test_a_key_is_had_by_its_tenant_and_name(store: SecretStore) -> None:
    vault = vault_over(store)
    await put(vault, "a", "openai", "sk-a")
    await put(vault, "b", "openai", "sk-b")
    await put(vault, "a", "deepgram", "dg-a")
    assert await value(vault, "a", "openai") == "sk-a"
    assert await value(vault, "b", "openai") == "sk-b"
    for tenant, name in (("b", "deepgram"), ("c", "openai"), ("a", "other")):
        with pytest.raises(SecretMissing, match=f"{tenant} has no key named {name}"):
            await vault.get(tenant, name)
    assert await vault.tenants() == ("a", "b")
    assert await vault.tenants(after="a", limit=1) == ("b",)


async def test_a_new_vault_over_the_same_store_opens_what_is_there(store: SecretStore) -> None:
    await put(vault_over(store), "a", "openai", "sk-a")
    assert await value(vault_over(store, seed=99), "a", "openai") == "sk-a"


async def test_versions_go_forward_over_revocations(store: SecretStore) -> None:
    vault = vault_over(store)
    first = await vault.put("a", "k", Secret("one"), actor=ADA, at=NOON)
    second = await vault.put("a", "k", Secret("two"), actor="bo", at=NOON)
    revoked = await vault.revoke("a", "k", actor=ADA, at=NOON)
    assert revoked == await vault.revoke("a", "k", actor="eve", at=NOON)
    with pytest.raises(SecretRevoked, match="a: k version 2 was revoked"):
        await vault.get("a", "k")
    third = await vault.put("a", "k", Secret("one"), actor=ADA, at=NOON)
    assert [each.version for each in (first, second, revoked, third)] == [1, 2, 2, 3]
    assert await vault.list("a") == (third,)
    assert await value(vault, "a", "k") == "one"
    with pytest.raises(SecretMissing):
        await vault.revoke("a", "other", actor=ADA, at=NOON)


async def test_what_is_revoked_is_gone_from_the_store(store: SecretStore) -> None:
    vault = vault_over(store)
    await put(vault, "a", "k", "one")
    await vault.revoke("a", "k", actor=ADA, at=NOON)
    found = await store.secret("a", "k")
    assert found is not None
    assert (found.secret.sealed, found.secret.generation, found.data_key) == (None, None, None)


async def test_a_list_tells_a_fingerprint_and_no_key(store: SecretStore) -> None:
    vault = vault_over(store)
    for tenant, name, secret in (
        ("a", "x", "same"),
        ("a", "y", "same"),
        ("a", "z", "other"),
        ("b", "x", "same"),
    ):
        await put(vault, tenant, name, secret)
    x, y, z = await vault.list("a")
    (elsewhere,) = await vault.list("b")
    assert x.fingerprint == y.fingerprint != z.fingerprint
    assert x.fingerprint != elsewhere.fingerprint, "nobody learns that two tenants have the same key"
    assert (x.name, x.version, x.put_by, x.put_at, x.revoked_at) == (
        "x", 1, ADA, "2025-03-03T12:00:00.000000+00:00", None,
    )  # fmt: skip
    assert len(x.fingerprint) == 16


@pytest.mark.parametrize(
    "tenant", ["", "A", "_vault", "a b", "-a", "a-", "a" * 64, "a/../b", "ä", "a\n", "a\0"]
)
async def test_what_is_no_tenant(tenant: str) -> None:
    vault = vault_over(MemoryStore())
    for call in (
        vault.get(tenant, "k"),
        vault.put(tenant, "k", Secret("x"), actor=ADA, at=NOON),
        vault.revoke(tenant, "k", actor=ADA, at=NOON),
        vault.list(tenant),
        vault.rotate_data_key(tenant, actor=ADA, at=NOON),
    ):
        with pytest.raises(BadInput, match="is no tenant id: 1 to 63 lower-case letters"):
            await call
    assert await vault.audit() == ()


@pytest.mark.parametrize("name", ["", "K", "a b", ".a", "a-", "a" * 65, "a/b", "sk-AbC", "k\n"])
async def test_what_is_no_name(name: str) -> None:
    vault = vault_over(MemoryStore())
    for call in (
        vault.get("a", name),
        vault.put("a", name, Secret("x"), actor=ADA, at=NOON),
        vault.revoke("a", name, actor=ADA, at=NOON),
    ):
        with pytest.raises(BadInput, match="is no name of a key: 1 to 64") as caught:
            await call
        assert not name or f"{name}" not in str(caught.value).replace("a text of", "") or len(name) < 4


@pytest.mark.parametrize("actor", ["", "x" * 201, "a\nb", "a\x00", "\ud800"])
async def test_what_is_no_actor_or_time(actor: str) -> None:
    vault = vault_over(MemoryStore())
    with pytest.raises(BadInput, match="actor must be 1 to 200 printable"):
        await vault.put("a", "k", Secret("x"), actor=actor, at=NOON)
    with pytest.raises(BadInput, match="time zone"):
        await vault.put("a", "k", Secret("x"), actor=ADA, at=datetime(2025, 3, 3))  # noqa: DTZ001
    for limit in (0, 1_001):
        with pytest.raises(BadInput, match="limit"):
            await vault.audit(limit=limit)
    assert await vault.tenants() == ()


async def test_a_tenant_that_is_full_takes_no_new_name(store: SecretStore) -> None:
    vault = vault_over(store, keep_ms=1_000)
    for number in range(NAMES_MAX):
        await put(vault, "a", f"k{number}", "x")
    with pytest.raises(VaultFull, match=f"a has {NAMES_MAX} names"):
        await put(vault, "a", "one-more", "x")
    await put(vault, "a", "k0", "y")
    await put(vault, "b", "k0", "z")
    assert len(await vault.list("a")) == NAMES_MAX


async def test_many_put_at_once_and_none_is_lost(store: SecretStore) -> None:
    vaults = [vault_over(store, seed=seed) for seed in range(4)]
    puts = [put(vaults[n % 4], "ab"[n % 2], f"k{n // 2}", f"v{n}") for n in range(8)]
    await asyncio.gather(*puts)
    for number in range(8):
        assert await value(vaults[0], "ab"[number % 2], f"k{number // 2}") == f"v{number}"
    assert await vaults[0].verify_audit() is None
    assert len(await store.data_keys("a")) == len(await store.data_keys("b")) == 1


class Busy:
    """A store on which somebody else is always faster."""

    def __init__(self, inner: SecretStore) -> None:
        self._inner = inner
        self.tried = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def commit(self, *_: object) -> None:
        self.tried += 1
        raise Conflict("somebody else was faster")


async def test_a_change_is_not_tried_for_ever() -> None:
    busy = Busy(MemoryStore())
    with pytest.raises(Conflict):
        await put(vault_over(busy), "a", "k", "x")  # type: ignore[arg-type]
    assert busy.tried == 8


# -- rows that are moved or damaged --------------------------------------------------------------------


async def moved(store: MemoryStore, source: tuple[str, str], target: tuple[str, str]) -> None:
    """What somebody who can write the database may do: one row's sealed bytes in another's place."""
    store._secrets[target] = replace(store._secrets[target], sealed=store._secrets[source].sealed)


@pytest.mark.parametrize("source", [("a", "k"), ("b", "l")])
async def test_a_row_of_another_tenant_or_name_does_not_open(source: tuple[str, str]) -> None:
    store = MemoryStore()
    vault = vault_over(store)
    for tenant, name in (("a", "k"), ("a", "l"), ("b", "l")):
        await put(vault, tenant, name, f"{tenant} {name}")
    await moved(store, source, ("a", "l"))
    with pytest.raises(SealBroken, match="a: l version 1 does not open"):
        await vault.get("a", "l")
    assert await value(vault, "a", "k") == "a k"


async def test_a_row_under_another_version_or_data_key_does_not_open() -> None:
    store = MemoryStore()
    vault = vault_over(store)
    await put(vault, "a", "k", "x")
    row = store._secrets["a", "k"]
    store._secrets["a", "k"] = replace(row, version=2)
    with pytest.raises(SealBroken, match="a: k version 2 does not open"):
        await vault.get("a", "k")
    store._data_keys["a", 2] = replace(store._data_keys["a", 1], place=KeyPlace("a", 2))
    store._secrets["a", "k"] = replace(row, generation=2)
    with pytest.raises(SealBroken, match="a: k version 1 names a data key that is not its own"):
        await vault.get("a", "k")
    store._secrets["a", "k"] = row
    del store._data_keys["a", 1]
    with pytest.raises(SealBroken, match="names a data key that is not its own"):
        await vault.get("a", "k")


async def test_a_data_key_of_another_tenant_opens_nothing() -> None:
    store = MemoryStore()
    vault = vault_over(store)
    await put(vault, "a", "k", "a's")
    await put(vault, "b", "k", "b's")
    # The whole of b put in a's place: its data key and its secret.
    store._data_keys["a", 1] = replace(store._data_keys["a", 1], wrapped=store._data_keys["b", 1].wrapped)
    await moved(store, ("b", "k"), ("a", "k"))
    with pytest.raises(SealBroken, match="a: data key 1 does not open"):
        await vault.get("a", "k")
    assert await value(vault, "b", "k") == "b's"


async def test_data_keys_that_are_kept_open_do_not_hide_a_changed_row() -> None:
    store, clock = MemoryStore(), Clock()
    vault = vault_over(store, clock=clock, keep_ms=60_000)
    await put(vault, "a", "k", "x")
    assert await value(vault, "a", "k") == "x"
    old = store._data_keys["a", 1]
    store._data_keys["a", 1] = replace(
        old, wrapped=WrappedKey(old.wrapped.kek_id, old.wrapped.blob[:-1] + b"?")
    )
    with pytest.raises(SealBroken):
        await vault.get("a", "k")


# -- the key-encryption key is gone --------------------------------------------------------------------


async def test_a_key_encryption_key_that_is_gone_is_named_and_nothing_is_half_done(
    store: SecretStore,
) -> None:
    await put(vault_over(store, local("k1")), "a", "k", "x")
    before = (await store.head(), await store.data_keys("a"), await store.secrets("a"))
    vault = vault_over(store, local("k2"))
    gone = kek("k1").id
    calls = [
        vault.get("a", "k"),
        put(vault, "a", "k", "y"),
        put(vault, "new", "k", "y"),
        vault.revoke("a", "k", actor=ADA, at=NOON),
        vault.rotate_data_key("a", actor=ADA, at=NOON),
        vault.verify_audit(),
    ]
    for call in calls:
        with pytest.raises(KekMissing, match=f"key-encryption key {gone}, which is missing") as caught:
            await call
        assert caught.value.kek_id == gone
    assert (await store.head(), await store.data_keys("a"), await store.secrets("a")) == before
    assert await store.data_keys("new") == ()
    assert [each.name for each in await vault.list("a")] == ["k"], "what there is can be told without it"
    rotation = await vault.rotate_kek(actor=ADA, at=NOON)
    assert (rotation.rewrapped, rotation.failed, rotation.finished) == (0, 2, False)
    assert gone in rotation.failures[0].reason
    assert await value(vault_over(store, local("k1")), "a", "k") == "x"


async def test_an_exchanged_key_under_the_same_label_is_missing_and_not_damaged(store: SecretStore) -> None:
    await put(vault_over(store, local("k1")), "a", "k", "x")
    exchanged = LocalKeyEncryption(kek("k1", seed=7), [], seeded().randbytes)
    with pytest.raises(KekMissing) as caught:
        await vault_over(store, exchanged).get("a", "k")
    assert caught.value.kek_id == kek("k1").id != kek("k1", seed=7).id


# -- data keys that are kept open ----------------------------------------------------------------------


async def test_data_keys_are_kept_open_for_a_while() -> None:
    store, clock, keks = MemoryStore(), Clock(), local()
    opened = OpenKeys(keks, clock, keep_ms=1_000, kept_max=2)
    vault = Vault(store, keks, random_bytes=seeded().randbytes, now_ms=clock, opened=opened)
    for tenant in "abc":
        await put(vault, tenant, "k", tenant)
    opened.unwrapped = 0
    for _ in range(5):
        assert await value(vault, "a", "k") == "a"
    assert opened.unwrapped == 1
    clock.now += 1_000
    await value(vault, "a", "k")
    assert opened.unwrapped == 2
    for tenant in "bca":
        await value(vault, tenant, "k")
    assert opened.unwrapped == 5, "the least recently used gave way"
    assert len(opened) == 2
    with pytest.raises(BadInput):
        OpenKeys(keks, clock, keep_ms=-1)


async def test_an_unwrap_that_fails_is_not_remembered() -> None:
    store, clock = MemoryStore(), Clock()
    await put(vault_over(store, local("k1")), "a", "k", "x")
    wrong, right = local("k2"), local("k2", "k1")
    opened = OpenKeys(wrong, clock)
    (row,) = await store.data_keys("a")
    with pytest.raises(KekMissing):
        await opened.open(row)
    assert len(opened) == 0
    opened = OpenKeys(right, clock)
    assert (await opened.open(row)).reveal() == (await right.unwrap(row.wrapped, KeyPlace("a", 1))).reveal()


class Gate:
    """Key-encryption keys that answer when a test says so."""

    def __init__(self) -> None:
        self.inner = local()
        self.open = asyncio.Event()
        self.error: KekUnavailable | None = None
        self.asked = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    async def unwrap(self, wrapped: WrappedKey, place: KeyPlace) -> KeyMaterial:
        self.asked += 1
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return await self.inner.unwrap(wrapped, place)


async def test_many_calls_of_one_tenant_ask_the_key_service_once() -> None:
    store, gate, clock = MemoryStore(), Gate(), Clock()
    await put(vault_over(store), "a", "k", "x")
    await put(vault_over(store), "b", "k", "y")
    vault = vault_over(store, gate, clock=clock, keep_ms=1_000)  # type: ignore[arg-type]
    calls = [asyncio.create_task(value(vault, "ab"[number % 2], "k")) for number in range(100)]
    for _ in range(3):
        await asyncio.sleep(0)
    calls[0].cancel()
    gate.open.set()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert ends[1:] == ["y", *(["x", "y"] * 49)]
    assert gate.asked == 2
    # A failure is everybody's who waited for it, and nobody's afterwards.
    clock.now += 1_000
    gate.error = KekUnavailable("sealed")
    ends = await asyncio.gather(*(value(vault, "a", "k") for _ in range(5)), return_exceptions=True)
    assert [type(end) for end in ends] == [KekUnavailable] * 5
    assert gate.asked == 3
    gate.error = None
    assert await value(vault, "a", "k") == "x"
