"""A vault goes over from a file's key-encryption key to a key service, and back, while its keys are in use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.vault.conftest import (
    ADA,
    NOON,
    Interrupted,
    InterruptedStore,
    kek,
    local,
    put,
    seeded,
    value,
    vault_over,
)
from tests.vault.test_rotation import everything_is_readable, filled
from tests.vault.transit_server import TOKEN, TransitServer, hang, transit_server
from vault import (
    BadInput,
    CompositeKeyEncryption,
    KekMissing,
    KekUnavailable,
    KeyEncryption,
    LocalKeyEncryption,
    SealBroken,
    Secret,
    TransitKeyEncryption,
    TransitSettings,
)
from vault.composite import HeldKeys
from vault.kek import KEK_IDS_MAX
from vault.memory import MemoryStore
from vault.records import SecretStore
from vault.sealing import KeyMaterial, KeyPlace, WrappedKey

KEY = KeyMaterial(b"canary-data-key-canary-data-key!")
PLACE = KeyPlace("a", 1)


@pytest.fixture
async def server() -> AsyncIterator[TransitServer]:
    async with transit_server() as made:
        yield made


@pytest.fixture
async def transit(server: TransitServer) -> AsyncIterator[TransitKeyEncryption]:
    made = service(server)
    yield made
    await made.aclose()


def service(server: TransitServer, key: str = "tenants", timeout_ms: int = 5_000) -> TransitKeyEncryption:
    return TransitKeyEncryption(
        TransitSettings(server.url, key, timeout_ms=timeout_ms), lambda: Secret(TOKEN)
    )


def pair(direction: str, transit: TransitKeyEncryption) -> tuple[HeldKeys, HeldKeys, str]:
    """What wraps before and after, and the id of the latter."""
    if direction == "to the service":
        return local("k1"), transit, "transit:transit/tenants:v1"
    return transit, local("k1"), kek("k1").id


DIRECTIONS = pytest.mark.parametrize("direction", ["to the service", "from the service"])


@DIRECTIONS
async def test_every_data_key_goes_over_and_the_other_is_no_longer_needed(
    store: SecretStore, transit: TransitKeyEncryption, direction: str
) -> None:
    before, after, kek_id = pair(direction, transit)
    await filled(store, before)
    both = CompositeKeyEncryption(after, [before])
    await everything_is_readable(store, both)
    done = await vault_over(store, both).rotate_kek(actor=ADA, at=NOON)
    assert (done.kek_id, done.rewrapped, done.failures, done.finished) == (kek_id, 4, (), True)
    await everything_is_readable(store, after)
    with pytest.raises(KekMissing, match=f"wrapped by the key-encryption key {kek_id}, which is missing"):
        await everything_is_readable(store, before)
    again = await vault_over(store, after).rotate_kek(actor=ADA, at=NOON)
    assert (again.rewrapped, again.finished) == (0, True)


@DIRECTIONS
async def test_keys_are_read_and_put_while_they_go_over(
    store: SecretStore, transit: TransitKeyEncryption, direction: str
) -> None:
    before, after, _ = pair(direction, transit)
    await filled(store, before)
    both = CompositeKeyEncryption(after, [before])
    rotating = asyncio.create_task(vault_over(store, both).rotate_kek(actor=ADA, at=NOON))
    seen = 0
    while not rotating.done():
        assert await value(vault_over(store, both), "b", "k2") == "b k2"
        await put(vault_over(store, both, seed=50 + seen), "d", f"n{seen}", "new")
        seen += 1
    await rotating
    assert seen >= 1
    assert (await vault_over(store, both).rotate_kek(actor=ADA, at=NOON)).finished
    await everything_is_readable(store, after)
    assert await value(vault_over(store, after), "d", "n0") == "new"


@DIRECTIONS
@pytest.mark.parametrize("after_commit", [False, True], ids=["before", "after"])
async def test_an_interrupted_change_goes_on(
    transit: TransitKeyEncryption, direction: str, after_commit: bool
) -> None:
    before, after, _ = pair(direction, transit)
    for at in range(1, 5):
        store = MemoryStore()
        await filled(store, before)
        both = CompositeKeyEncryption(after, [before])
        interrupted = InterruptedStore(store, at, after_commit)
        with pytest.raises(Interrupted):
            await vault_over(interrupted, both).rotate_kek(actor=ADA, at=NOON)  # type: ignore[arg-type]
        await everything_is_readable(store, both)
        done = await vault_over(store, both).rotate_kek(actor=ADA, at=NOON)
        assert (done.rewrapped, done.finished) == (4 - at + (not after_commit), True)
        await everything_is_readable(store, after)


async def test_from_one_services_key_to_another(server: TransitServer, store: SecretStore) -> None:
    server.keys["others"] = [bytes(range(32))]
    old, new = service(server), service(server, "others")
    await filled(store, old)
    both = CompositeKeyEncryption(new, [local("k0"), old])
    done = await vault_over(store, both).rotate_kek(actor=ADA, at=NOON)
    assert (done.kek_id, done.rewrapped, done.finished) == ("transit:transit/others:v1", 4, True)
    await everything_is_readable(store, new)
    await both.aclose()


async def test_the_services_own_versions_are_rewrapped_by_it(
    server: TransitServer, transit: TransitKeyEncryption
) -> None:
    both = CompositeKeyEncryption(transit, [local("k1")])
    wrapped = await both.wrap(KEY, PLACE)
    server.rotate()
    again = await both.rewrap(wrapped, PLACE)
    assert again.kek_id == "transit:transit/tenants:v2" == await both.current_id()
    assert [action for action, _ in server.requests][1:3] == ["rewrap", "decrypt"]


async def test_a_service_that_hangs_leaves_what_is_under_it_closed_and_nothing_half_done(
    server: TransitServer, store: SecretStore
) -> None:
    await filled(store, local("k1"))
    slow = service(server, timeout_ms=100)
    both = CompositeKeyEncryption(slow, [local("k1")])
    vault = vault_over(store, both)
    assert (await vault.rotate_kek(actor=ADA, at=NOON, limit=2)).rewrapped == 2
    server.fault = hang
    with pytest.raises(KekUnavailable, match="no answer"):
        await vault.rotate_kek(actor=ADA, at=NOON)
    assert await value(vault, "c", "k1") == "c k1", "what the file's key wraps asks no service"
    with pytest.raises(KekUnavailable):
        await value(vault, "a", "k1")
    server.fault = None
    assert (await vault.rotate_kek(actor=ADA, at=NOON)).finished
    await everything_is_readable(store, slow)
    await both.aclose()


async def test_a_service_that_wraps_another_key_than_it_was_given_changes_nothing(
    server: TransitServer, transit: TransitKeyEncryption
) -> None:
    both = CompositeKeyEncryption(transit, [local("k1")])
    wrapped = await local("k1").wrap(KEY, PLACE)
    for key, place, error in (
        (KeyMaterial(bytes(32)), KeyPlace("b", 1), SealBroken),
        (KeyMaterial(bytes(32)), PLACE, KekUnavailable),
    ):
        other = await transit.wrap(key, place)

        async def wrong(_: web.Request, other: WrappedKey = other) -> web.StreamResponse:
            server.fault = None
            return web.json_response({"data": {"ciphertext": other.blob.decode(), "key_version": 1}})

        server.fault = wrong
        with pytest.raises(error):
            await both.rewrap(wrapped, PLACE)


async def test_what_none_has_is_missing_and_all_are_named(transit: TransitKeyEncryption) -> None:
    both: KeyEncryption = CompositeKeyEncryption(transit, [local("k1"), local("k2")])
    for kek_id in ("k3:00000000", "transit:transit/other:v1", ""):
        with pytest.raises(KekMissing, match=f"at hand: transit:transit/tenants, {kek('k1').id}") as caught:
            await both.unwrap(WrappedKey(kek_id, b"x"), PLACE)
        assert caught.value.kek_id == kek_id
    with pytest.raises(BadInput, match=f"at most {KEK_IDS_MAX}"):
        CompositeKeyEncryption(transit, [LocalKeyEncryption(kek(), (), seeded().randbytes)] * KEK_IDS_MAX)
