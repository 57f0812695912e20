"""API tokens and JWTs through everything that is done with them and goes wrong with them.

Then all that was written is searched for them: logs at their most talkative, texts of every object, errors with their causes,
the database's files or tables, the server's own log, the audit trail, what lists tell.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gc
import io
import logging
import os
import traceback
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import psycopg
import pytest

from admin.backings import FILE
from admin.errors import AdminError
from admin.opening import AdminParts, open_admin
from admin.ports import KeptAnswer
from admin.principals import Principal, Role
from admin.tokens import ApiToken
from config.admin import AdminConfig, RateLimit
from config.node import NodeConfig, PostgresConfig, StoreConfig
from tests.admin.conftest import Backing, deed
from tests.admin.issuer import Issuer, Keys, running_issuer, saying
from tests.admin.jwt_node import config
from tests.admin.turned import Turned

HERE = "192.0.2.1"


class Canaries:
    """What must be nowhere, in each form that a careless line of code might give it."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def add(self, name: str, text: str) -> str:
        self.values[name] = text.encode()
        return text

    def add_token(self, name: str, token: ApiToken) -> str:
        # Its id may be anywhere.
        self.add(name, token.reveal()[18:])
        self.add(f"{name}, without checksum", token.reveal()[18:-6])
        return token.reveal()

    def add_jwt(self, name: str, token: str) -> str:
        for part, text in zip(("header", "claims", "signature"), token.split("."), strict=True):
            if part != "header":
                self.add(f"{name}'s {part}", text)
        return token

    def forms(self) -> Iterator[tuple[str, bytes]]:
        for name, value in self.values.items():
            yield name, value
            yield f"{name} in hexadecimal", value.hex().encode()
            yield f"{name} reversed", value[::-1]
            yield f"{name} quoted for a URL", urllib.parse.quote(value, safe="").encode()
            yield f"{name} in UTF-16", value.decode().encode("utf-16-le")
            for shift in range(3):
                # Base64 of something longer that holds it: what lies on its edges is left out.
                encoded = base64.b64encode(bytes(shift) + value)[(0, 4, 4)[shift] : -4]
                yield f"{name} in base64 at {shift}", encoded

    def found(self, written: bytes) -> list[str]:
        return [name for name, form in self.forms() if form in written]


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
    """The text of everything of this package's that is alive."""
    texts = []
    for each in gc.get_objects():
        if str(getattr(type(each), "__module__", "")).partition(".")[0] == "admin":
            texts.append(f"{each!r} {each!s} {each}")
            if dataclasses.is_dataclass(each) and not isinstance(each, type):
                texts.append(str([getattr(each, field.name) for field in dataclasses.fields(each)]))
    assert texts
    return "\n".join(texts)


def content(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file())


@dataclasses.dataclass
class Life:
    """All that is done, and what came out of it."""

    parts: AdminParts
    canaries: Canaries
    issuer: Issuer
    turned: Turned
    told: list[str] = dataclasses.field(default_factory=list)
    failures: int = 0

    def tell(self, what: object) -> None:
        logging.getLogger("test").info("told: %s %r", what, what)
        self.told.append(f"{what} {what!r}")

    async def fails(self, authorization: str) -> None:
        try:
            await self.parts.authenticator.authenticate(authorization, HERE)
        except AdminError as error:
            logging.getLogger("test").exception("it failed: %s", error)
            self.failures += 1
            cause: BaseException | None = error
            while cause is not None:
                self.told.append(f"{cause} {cause!r}" + "".join(traceback.format_exception(cause)))
                cause = cause.__cause__ or cause.__context__
            self.told.append(str(error.headers))
        else:
            pytest.fail("it was to fail")

    async def api_tokens(self) -> None:
        tokens, login = self.parts.tokens, self.parts.authenticator
        for number, tenant_id in enumerate((None, "acme")):
            role = Role.OPERATOR if tenant_id is None else Role.TENANT
            made = await tokens.create(role=role, tenant_id=tenant_id, label=f"ci {number}", created_by="ada")
            self.tell(made)
            text = self.canaries.add_token(f"token {number}", made.token)
            who = await login.authenticate(f"Bearer {text}", HERE)
            self.tell(who)
            await self.use(who, text)
            for wrong in (
                text[:-1],
                text + "x",
                text[:25] + ("Y" if text[25] == "X" else "X") + text[26:],
                text.upper(),
                text[4:],
                f"mst_{text}",
            ):
                await self.fails(f"Bearer {wrong}")
            await self.fails(f"Basic {text}")
            await self.fails(text)
            await self.fails(f"Bearer {text[:30]}.{text[30:40]}.{text[40:]}")
            self.tell(await tokens.list(tenant_id=None))
            with pytest.raises(AdminError) as caught:
                await tokens.revoke(text, tenant_id=None, by="ada")
            self.tell(str(caught.value))
            with pytest.raises(AdminError) as caught:
                await tokens.create(role=role, tenant_id=tenant_id, label=text, created_by="ada")
            self.tell(str(caught.value))
            self.tell(await tokens.revoke(made.info.public_id, tenant_id=None, by="ada"))
            await self.fails(f"Bearer {text}")

    async def use(self, who: Principal, text: str) -> None:
        """With the token wherever a client might put it by mistake."""
        await self.parts.audit.append(
            deed(1, target=text, request_id=f"r {text}", detail=text[:-2], principal=who.name)
        )
        await self.parts.idempotency.begin(who, text, b"f", self.turned.now)
        await self.parts.idempotency.finish(who, text, KeptAnswer(200, (), b"ok"), self.turned.now)
        self.parts.limiter.take(who, 0)

    async def jwts(self) -> None:
        token = self.canaries.add_jwt("JWT", self.issuer.token())
        other = self.canaries.add_jwt("another JWT", self.issuer.token(aud="other"))
        unknown = self.canaries.add_jwt(
            "a JWT with a key that nobody has", self.issuer.token(headers={"kid": "k"})
        )
        who = await self.parts.authenticator.authenticate(f"Bearer {token}", HERE)
        self.tell(who)
        await self.use(who, token)
        for wrong in (other, unknown, token[:-4], token + "A", token.replace(".", "..", 1), token.upper()):
            await self.fails(f"Bearer {wrong}")
        await self.parts.issued.deny_token(self.issuer.url, "t-1")
        await self.fails(f"Bearer {token}")
        self.issuer.answers["/keys"] = saying(token)
        self.turned.turn(20_000)
        await self.fails(f"Bearer {unknown}")


@pytest.fixture
async def parts(backing: Backing, issuer: Issuer, turned: Turned) -> AsyncIterator[AdminParts]:
    admin = AdminConfig(
        issuers=(config(issuer),),
        rate_limit=RateLimit(),
        failed_logins=RateLimit(per_minute=10_000, burst=10_000),
    )
    store = (
        StoreConfig()
        if backing.name == "sqlite"
        else StoreConfig(kind="postgres", postgres=PostgresConfig(url_env="DB"))
    )
    node = NodeConfig(data_dir=backing.directory, store=store, admin=admin)
    parts = await open_admin(node, {"DB": backing.url}, turned.clocks)
    yield parts
    await parts.aclose()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer(Keys()) as issuer:
        yield issuer


async def test_no_token_is_anywhere(
    backing: Backing, parts: AdminParts, issuer: Issuer, turned: Turned, log: io.StringIO
) -> None:
    asyncio.get_running_loop().set_debug(True)
    canaries = Canaries()
    life = Life(parts, canaries, issuer, turned)
    await life.api_tokens()
    await life.jwts()
    assert await parts.audit.verify() is None
    life.tell(await parts.audit.page(tenant_id=None, after=0, limit=100))
    assert life.failures == 28
    assert len(canaries.values) == 10
    if backing.server is None:
        files = content(backing.directory)
        assert b"ci 0" in files
    else:
        # What any program with the database can read of it, and what the server itself has logged.
        files = _dump(backing) + (backing.server._directory / "log").read_bytes()
        assert b"ci 0" in files
    texts = objects()
    assert canaries.found(files) == []
    assert canaries.found(texts.encode()) == []
    assert canaries.found("\n".join(life.told).encode()) == []
    assert canaries.found(log.getvalue().encode()) == []
    assert "it failed" in log.getvalue()
    await parts.aclose()
    if backing.server is None:
        assert canaries.found((backing.directory / FILE).read_bytes()) == []


def _dump(backing: Backing) -> bytes:
    assert backing.server is not None
    with psycopg.connect(backing.server.superuser_url(backing.url)) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        rows = [connection.execute(f"SELECT * FROM {name}".encode()).fetchall() for (name,) in names]
    return repr(rows).encode()


@pytest.mark.parametrize(
    "leak",
    [
        lambda text: f"token={text}",
        lambda text: text.encode().hex(),
        lambda text: base64.b64encode(b"a:" + text.encode()).decode(),
        lambda text: orjson.dumps({"k": text}).decode(),
        urllib.parse.quote,
    ],
)
def test_a_leak_would_be_found(leak: object) -> None:
    canaries = Canaries()
    token = ApiToken.from_random(os.urandom(32))
    text = canaries.add_token("token", token)
    assert canaries.found(f"some line {leak(text)} of a log".encode()) != []  # type: ignore[operator]
    assert canaries.found(f"some line {token} of a log".encode()) == []


def test_objects_are_looked_at() -> None:
    canaries = Canaries()
    careless = KeptAnswer(200, (("x", canaries.add("secret", "careless-canary-Zq7vX2mN9pL4")),), b"")
    assert canaries.found(objects().encode()) != []
    del careless
