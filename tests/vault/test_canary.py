"""A key that can be recognised, through everything that a vault does and everything that goes wrong with it.

Then all that was written is searched: logs at their most talkative, texts of every object, errors with their causes and
local variables, the database's files, the audit trail, what lists tell. Searched for are the tenant's key, the
key-encryption key, the token of the key service and the data keys, as they are and in the usual encodings.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gc
import io
import logging
import traceback
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import orjson
import pytest

from perf.postgres_server import PostgresServer
from tests.vault.conftest import (
    ADA,
    NOON,
    Clock,
    Interrupted,
    InterruptedStore,
    kek,
    on_postgres,
    seeded,
    shown,
)
from tests.vault.transit_server import TOKEN, TransitServer, cut_off, echo, saying, transit_server
from vault import (
    KeyRef,
    KeyResolver,
    LocalKek,
    LocalKeyEncryption,
    Origin,
    Outcome,
    Secret,
    SecretStore,
    Service,
    SqliteStore,
    Step,
    TransitKeyEncryption,
    TransitSettings,
    Vault,
    VaultError,
    kek_from_environment,
    kek_from_file,
)
from vault.facade import SecretInfo
from vault.kek import KeyEncryption, kek_from_text

CANARY = "sk-canary-Zq7vX2mN9pL4-Ω-kW8rT3yB6"
SECOND = "sk-canary-Hn5cJ1dF0gS-after-rotation"
KEK_TEXT = base64.b64encode(b"canary-kek-of-32-bytes-canary-ke").decode()


class Canaries:
    """What must be nowhere, in each form that a careless line of code might give it."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {
            "the key": CANARY.encode(),
            "the second key": SECOND.encode(),
            "the key-encryption key": base64.b64decode(KEK_TEXT),
            "the token": TOKEN.encode(),
        }
        self._random = seeded(11)

    def random_bytes(self, count: int) -> bytes:
        """Random bytes for a vault. Those of a data key's length are canaries from then on."""
        made = self._random.randbytes(count)
        if count == 32:
            self.values[f"data key {len(self.values)}"] = made
        return made

    def forms(self) -> Iterator[tuple[str, bytes]]:
        for name, value in self.values.items():
            yield name, value
            yield f"{name} in hexadecimal", value.hex().encode()
            yield f"{name} reversed", value[::-1]
            yield f"{name} as Python writes it", repr(value)[2:-1].encode()
            yield f"{name} quoted for a URL", urllib.parse.quote(value).encode()
            yield f"{name} quoted for a query", urllib.parse.quote(value, safe="").encode()
            for shift in range(3):
                # Base64 of something longer that holds it: what lies on its edges is left out.
                for encode in (base64.b64encode, base64.urlsafe_b64encode):
                    encoded = encode(bytes(shift) + value)[(0, 4, 4)[shift] : -4]
                    yield f"{name} in base64 at {shift}", encoded
            try:
                text = value.decode()
            except UnicodeDecodeError:
                continue
            yield f"{name} in JSON", orjson.dumps(text)[1:-1]
            yield f"{name} escaped", text.encode("unicode_escape")
            yield f"{name} in UTF-16", text.encode("utf-16-le")

    def found(self, written: bytes) -> list[str]:
        return [name for name, form in self.forms() if form in written]


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that any library logs at its most talkative."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s %(args)r"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def objects() -> str:
    """The text of everything of the vault's that is alive."""
    texts = []
    for each in gc.get_objects():
        if str(getattr(type(each), "__module__", "")).partition(".")[0] == "vault":
            texts.append(f"{each!r} {each!s} {each}")
            if dataclasses.is_dataclass(each) and not isinstance(each, type):
                texts.append(str([getattr(each, field.name) for field in dataclasses.fields(each)]))
    assert texts
    return "\n".join(texts)


def content(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


@dataclasses.dataclass
class Written:
    """What came out."""

    errors: list[str] = dataclasses.field(default_factory=list)
    told: list[bytes] = dataclasses.field(default_factory=list)

    async def fails(self, *calls: object, pasted: bool = False) -> None:
        """``pasted``: what was given as a name is in the frames' variables, as any argument is; the texts are what counts."""
        for call in calls:
            try:
                await call  # type: ignore[misc]
            except (VaultError, asyncio.CancelledError) as error:
                logging.getLogger("test").exception("it failed: %s", error)
                self.errors.append("".join(traceback.format_exception(error)) if pasted else shown(error))
            else:
                pytest.fail("it was to fail")

    def tells(self, *what: object) -> None:
        for each in what:
            logging.getLogger("test").info("told: %s %r", each, each)
            self.told.append(orjson.dumps(each, default=_as_told) + repr(each).encode())


def _as_told(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)


async def life(store: SecretStore, keks: KeyEncryption, canaries: Canaries, written: Written) -> None:
    """Everything that goes well."""
    vault = Vault(store, keks, random_bytes=canaries.random_bytes, now_ms=Clock())
    for tenant in ("a", "b"):
        written.tells(await vault.put(tenant, "openai", Secret(CANARY), actor=ADA, at=NOON))
        written.tells(await vault.put(tenant, "deepgram", Secret(CANARY), actor=ADA, at=NOON))
    had = await vault.get("a", "openai")
    assert had.reveal() == CANARY
    written.tells(had, await vault.list("a"), await vault.tenants())
    written.tells(
        await vault.rotate_data_key("a", actor=ADA, at=NOON), await vault.rotate_kek(actor=ADA, at=NOON)
    )
    written.tells(await vault.put("a", "openai", Secret(SECOND), actor=ADA, at=NOON))
    written.tells(await vault.revoke("b", "openai", actor=ADA, at=NOON))
    written.tells(await vault.audit(), await vault.audit_head(), await vault.verify_audit())
    resolver = KeyResolver()
    key = KeyRef("a", "openai", 2)
    resolver.report(Service.LLM, key, Outcome.DENIED, began_ms=0, now_ms=1)
    steps = (Step(Origin.TENANT, "openai", key), Step(Origin.FALLBACK, "embedded"))
    written.tells(resolver.resolve("a", Service.LLM, steps, 2), resolver)


async def accidents(store: SecretStore, keks: KeyEncryption, canaries: Canaries, written: Written) -> None:
    """Everything that goes wrong with a vault's own doing."""

    def vault(keks: KeyEncryption = keks, store: object = store) -> Vault:
        return Vault(store, keks, random_bytes=canaries.random_bytes, now_ms=Clock())  # type: ignore[arg-type]

    secret = Secret(CANARY)
    naive = datetime(2025, 1, 1)  # noqa: DTZ001
    await written.fails(
        # A key pasted where a name belongs, in each place.
        vault().put("a", CANARY, secret, actor=ADA, at=NOON),
        vault().put(CANARY, "openai", secret, actor=ADA, at=NOON),
        vault().get(CANARY, "openai"),
        vault().get("a", CANARY),
        vault().revoke("a", CANARY, actor=ADA, at=NOON),
        vault().put("a", "openai", secret, actor=ADA + "\n" + CANARY, at=NOON),
        pasted=True,
    )
    await written.fails(
        vault().put("a", "openai", secret, actor=ADA, at=naive),
        vault().get("a", "none"),
        vault().get("b", "openai"),
    )
    other = LocalKeyEncryption(kek("other"), [], seeded().randbytes)
    await written.fails(
        vault(other).get("a", "openai"),
        vault(other).put("a", "openai", secret, actor=ADA, at=NOON),
        vault(other).rotate_data_key("a", actor=ADA, at=NOON),
    )
    found = await store.secret("a", "openai")
    assert found is not None
    assert found.secret.sealed is not None
    for at in (0, 5, 20, -1):
        sealed = bytearray(found.secret.sealed)
        sealed[at] ^= 1
        broken = dataclasses.replace(found, secret=dataclasses.replace(found.secret, sealed=bytes(sealed)))
        await written.fails(vault()._envelopes.open(broken))
    for at, after in ((1, False), (1, True)):
        interrupted = InterruptedStore(store, at, after)
        with pytest.raises(Interrupted) as caught:
            await vault(store=interrupted).put("a", "openai", secret, actor=ADA, at=NOON)
        written.errors.append(shown(caught.value))
    putting = asyncio.create_task(vault().put("a", "openai", secret, actor=ADA, at=NOON))
    await asyncio.sleep(0)
    written.errors.append(repr(putting))
    putting.cancel()
    await written.fails(putting)


def no_key_encryption_keys(directory: Path, written: Written) -> None:
    """Every way in which a key-encryption key is refused."""
    path = directory / "kek"
    path.write_text(KEK_TEXT)
    path.chmod(0o644)
    long, half = KEK_TEXT * 2, KEK_TEXT[:-4]
    attempts: list[Callable[[], LocalKek]] = [
        lambda: kek_from_file("k", path),
        lambda: kek_from_text("k", long, "x"),
        lambda: kek_from_text("k", half, "x"),
        lambda: kek_from_text("not a label", KEK_TEXT, "x"),
        lambda: kek_from_environment("k", "KEK", {"KEK": long}),
    ]
    for refused in attempts:
        with pytest.raises(VaultError) as caught:
            refused()
        written.errors.append(str(caught.value) + repr(caught.value))


async def test_no_key_is_anywhere(tmp_path: Path, canaries: Canaries, log: io.StringIO) -> None:
    asyncio.get_running_loop().set_debug(True)
    written = Written()
    store = await SqliteStore.open(tmp_path / "vault.db")
    current = kek_from_text("node", KEK_TEXT, "x")
    await life(store, LocalKeyEncryption(current, [], seeded(4).randbytes), canaries, written)
    await accidents(store, LocalKeyEncryption(current, [], seeded(5).randbytes), canaries, written)
    no_key_encryption_keys(tmp_path, written)
    (tmp_path / "kek").unlink()
    texts = objects()
    files = content(tmp_path)
    await store.aclose()
    files += content(tmp_path)
    assert len(canaries.values) >= 7, "root, two tenants' data keys and their successors were made"
    assert canaries.found(log.getvalue().encode()) == []
    assert canaries.found(texts.encode()) == []
    assert canaries.found(files) == []
    assert canaries.found(b"".join(written.told)) == []
    assert len(written.errors) > 20
    assert [
        canaries.found(error.encode()) for error in written.errors if canaries.found(error.encode())
    ] == []
    assert b"openai" in files
    assert "it failed" in log.getvalue()


async def test_no_key_is_anywhere_with_a_database(
    own_server: PostgresServer, canaries: Canaries, log: io.StringIO
) -> None:
    """The server keeps and logs all that it is told: each statement with its values, and those of errors."""
    written = Written()
    for setting in (
        "log_statement = 'all'",
        "log_min_duration_statement = 0",
        "log_parameter_max_length_on_error = -1",
        "log_min_messages = 'debug1'",
    ):
        own_server.execute(f"ALTER SYSTEM SET {setting}")
    own_server.execute("SELECT pg_reload_conf()")
    store = await on_postgres(own_server.new_database())
    current = kek_from_text("node", KEK_TEXT, "x")
    await life(store, LocalKeyEncryption(current, [], seeded(4).randbytes), canaries, written)
    await accidents(store, LocalKeyEncryption(current, [], seeded(5).randbytes), canaries, written)
    texts = objects()
    await store.aclose()
    # Its shutdown writes what was in memory alone.
    await asyncio.to_thread(own_server.stop)
    files = b"".join(path.read_bytes() for path in sorted(own_server.directory.rglob("*")) if path.is_file())
    assert len(canaries.values) >= 7
    assert canaries.found(log.getvalue().encode()) == []
    assert canaries.found(texts.encode()) == []
    assert canaries.found(files) == []
    assert canaries.found(b"".join(written.told)) == []
    assert [found for error in written.errors if (found := canaries.found(error.encode()))] == []
    assert b"openai" in (own_server.directory / "log").read_bytes(), "the server's log has the values"
    assert files.count(b"openai") > 10


async def faults(server: TransitServer, vault: Vault, written: Written) -> None:
    secret = Secret(CANARY)
    for fault in (
        echo,
        cut_off,
        saying(403, '{"errors": ["permission denied"]}'),
        saying(503, '{"errors": ["Vault is sealed"]}'),
        saying(200, "garbage"),
        saying(400, f'{{"errors": ["no: {TOKEN}"]}}'),
    ):
        server.fault = fault
        await written.fails(
            vault.put("c", "openai", secret, actor=ADA, at=NOON),
            vault.rotate_data_key("b", actor=ADA, at=NOON),
        )
    server.fault = None


async def test_no_key_is_anywhere_with_a_key_service(
    tmp_path: Path, canaries: Canaries, log: io.StringIO
) -> None:
    written = Written()
    store = await SqliteStore.open(tmp_path / "vault.db")
    async with transit_server() as server:
        keks = TransitKeyEncryption(TransitSettings(server.url, "tenants"), lambda: Secret(TOKEN))
        await life(store, keks, canaries, written)
        await faults(server, Vault(store, keks, random_bytes=canaries.random_bytes, now_ms=Clock()), written)
        texts = objects()
        await keks.aclose()
    await store.aclose()
    files = content(tmp_path)
    # What the key service was sent is recorded by the test's own server, and by nobody else.
    assert canaries.found(orjson.dumps([body for _, body in server.requests])) != []
    assert canaries.found(log.getvalue().encode()) == []
    assert canaries.found(texts.encode()) == []
    assert canaries.found(files + b"".join(written.told)) == []
    assert [
        canaries.found(error.encode()) for error in written.errors if canaries.found(error.encode())
    ] == []
    assert len(written.errors) == 12


@pytest.mark.parametrize(
    "leak",
    [
        f"key={CANARY}",
        repr(CANARY.encode()),
        CANARY.encode().hex(),
        base64.b64encode(b"a:" + CANARY.encode()).decode(),
        base64.urlsafe_b64encode(b"x" + CANARY.encode() + b"more").decode(),
        orjson.dumps({"k": CANARY}).decode(),
        urllib.parse.quote(CANARY),
        ascii(CANARY),
    ],
)
def test_a_leak_would_be_found(canaries: Canaries, leak: str) -> None:
    assert canaries.found(f"some line {leak} of a log".encode()) != []
    assert canaries.found(b"some line of a log") == []


def test_a_leak_in_a_local_variable_would_be_found(canaries: Canaries) -> None:
    code = compile(
        f"def careless():\n    value = {CANARY!r}\n    raise ValueError('no')\n",
        "/elsewhere/careless.py",
        "exec",
    )
    scope: dict[str, object] = {}
    exec(code, scope)
    with pytest.raises(ValueError, match="no") as caught:
        scope["careless"]()  # type: ignore[operator]
    assert canaries.found(shown(caught.value).encode()) != []


def test_objects_are_looked_at(canaries: Canaries) -> None:
    careless = SecretInfo("openai", 1, CANARY, "", "", None)
    assert canaries.found(objects().encode()) != []
    del careless
