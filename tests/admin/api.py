"""The API on real parts, as its clients see it: two tenants with everything that one can have, and an operator."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml
from fastapi import FastAPI

from admin.app import make_admin_app
from admin.clocks import Clocks
from admin.opening import AdminParts, open_admin
from admin.principals import Role
from admin.services import Services
from config.admin import AdminConfig, RateLimit
from config.node import NodeConfig, PlatformProviders, PostgresConfig, StoreConfig
from config.tenant import TenantConfig
from tenancy import CallRecord, Registry
from tenancy.opening import open_store
from tests.tenancy.conftest import dialled, tenant
from tests.vault.conftest import NOON, Clock, local, on_postgres
from vault import Secret, SqliteStore, Vault
from vault.kek import KeyEncryption

A, B, NOBODY = "tenant-a", "tenant-b", "tenant-n"
OPERATOR = "operator"
NUMBERS = {A: "+15550100", B: "+15550200"}
KEY_VALUE = "canary-key-value-7Qd0"
PLENTY = RateLimit(per_minute=1_000_000, burst=100_000)
YAML = {"content-type": "application/yaml"}
Reach = Callable[[TenantConfig], Awaitable[tuple[tuple[str, ...], tuple[str, ...]]]]


def words(tenant_id: str, what: str) -> str:
    """A text that is in one tenant's data and nowhere else."""
    return f"canary-{what}-of-{tenant_id}"


def config_of(tenant_id: str, **changes: object) -> str:
    """A tenant's file."""
    number = NUMBERS.get(
        tenant_id, f"+1555{int(hashlib.sha256(tenant_id.encode()).hexdigest(), 16) % 10**7:07}"
    )
    made = tenant("a", number, greeting=words(tenant_id, "greeting")).model_dump(mode="json")
    made |= {"tenant_id": tenant_id, "business_name": words(tenant_id, "business")}
    return yaml.safe_dump(made | changes)


async def nobody_is_reached(_: TenantConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (), ()


@dataclass
class Api:
    """The application, what stands behind it, and the tokens of those who ask."""

    directory: Path
    app: FastAPI
    services: Services
    parts: AdminParts
    registry: Registry
    client: httpx.AsyncClient
    tokens: dict[str, str] = field(default_factory=dict)
    token_ids: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    async def ask(
        self,
        who: str | None,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        content: Any = None,
        json: Any = None,
        params: Any = None,
    ) -> httpx.Response:
        """A request with an id of its own; ``who`` None: without a token."""
        self.asked += 1
        sent = {"x-request-id": f"{self.name}-{self.asked:06}"} | (headers or {})
        if who is not None:
            sent["authorization"] = f"Bearer {self.tokens.get(who, who)}"
        return await self.client.request(
            method, path, headers=sent, content=content, json=json, params=params
        )

    async def token(self, who: str) -> str:
        """A new token of a tenant or of the operator; it is who asks by that name from now on."""
        made = await self.parts.tokens.create(
            role=Role.OPERATOR if who == OPERATOR else Role.TENANT,
            tenant_id=None if who == OPERATOR else who,
            label=words(who, "label"),
            created_by="command line",
        )
        self.tokens[who], self.token_ids[who] = made.token.reveal(), made.token.public_id
        return self.tokens[who]

    async def create(self, tenant_id: str, **changes: object) -> None:
        """Make a tenant."""
        made = await self.ask(
            OPERATOR, "POST", "/v1/tenants", headers=YAML, content=config_of(tenant_id, **changes)
        )
        assert made.status_code == 201, made.text

    async def draft(self, tenant_id: str, *, who: str = OPERATOR, **changes: Any) -> int:
        """Add a version, and return its number."""
        made = await self.ask(
            who,
            "POST",
            f"/v1/tenants/{tenant_id}/config/versions",
            headers=YAML,
            content=config_of(tenant_id, **changes),
        )
        assert made.status_code == 201, made.text
        return int(made.json()["version"])

    async def active_tag(self, tenant_id: str) -> str:
        """What has to be named to replace it."""
        return (await self.ask(OPERATOR, "GET", f"/v1/tenants/{tenant_id}/config")).headers["etag"]

    def trail(self, request_id: str) -> list[tuple[int, str]]:
        """Status and action of the trail's lines on one request."""
        return [
            (status, action)
            for status, action in self.rows(
                "admin.db",
                "SELECT status, action FROM admin_audit WHERE request_id = ? ORDER BY sequence",
                request_id,
            )
        ]

    def rows(self, file: str, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What another program sees of a database."""
        with closing(sqlite3.connect(self.directory / file)) as connection:
            return list(connection.execute(query, values))

    def tables(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Every row of every table of every database."""
        for path in sorted(self.directory.rglob("*.db")):
            with closing(sqlite3.connect(path)) as connection:
                connection.row_factory = sqlite3.Row
                names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                for (name,) in names:
                    rows = connection.execute(f'SELECT * FROM "{name}"').fetchall()
                    yield f"{path.name}/{name}", list(map(dict, rows))

    def state(self, *but: str) -> dict[str, list[str]]:
        """All of it, to be compared; ``but``: tables that are left out."""
        return {
            table: sorted(map(repr, rows))
            for table, rows in self.tables()
            if table.partition("/")[2] not in but
        }

    def state_of(self, tenant_id: str) -> dict[str, list[str]]:
        """A tenant's: all rows of its own file, and those elsewhere that are its."""
        return {
            table: sorted(
                repr(row)
                for row in rows
                if table.startswith(f"client-{tenant_id}.db/") or row.get("tenant_id") == tenant_id
            )
            for table, rows in self.tables()
        }

    def written(self) -> bytes:
        """Everything that is on the disk."""
        return b"".join(path.read_bytes() for path in self.directory.rglob("*") if path.is_file())


@asynccontextmanager
async def bare_api(
    directory: Path,
    *,
    admin: AdminConfig | None = None,
    keks: KeyEncryption | None = None,
    with_vault: bool = True,
    reachability: Reach = nobody_is_reached,
    tokens: Mapping[str, str] | None = None,
    clocks: Clocks | None = None,
    postgres_url: str | None = None,
) -> AsyncIterator[Api]:
    """The API of a node: with ``tokens`` of one that was here before, without them of a new one, which has no tenant.

    With ``postgres_url`` everything is kept there: tenants, keys, tokens, the trail.
    """
    store = StoreConfig(
        kind="sqlite" if postgres_url is None else "postgres",
        postgres=None if postgres_url is None else PostgresConfig(url_env="DB", wait_ms=2_000),
    )
    environ = {"DB": postgres_url or ""}
    node = NodeConfig(
        data_dir=directory,
        admin=admin or AdminConfig(rate_limit=PLENTY, failed_logins=PLENTY),
        store=store,
    )
    assert node.admin is not None
    async with AsyncExitStack() as opened:
        registry = Registry(await open_store(node, environ), PlatformProviders(), environ)
        opened.push_async_callback(registry.close)
        parts = await open_admin(node, environ, clocks)
        opened.push_async_callback(parts.aclose)
        vault = None
        if with_vault:
            secrets = (
                await SqliteStore.open(directory / "vault.db")
                if postgres_url is None
                else await on_postgres(postgres_url)
            )
            vault = Vault(
                secrets,
                keks or local(),
                random_bytes=os.urandom,
                now_ms=Clock(),
            )
            opened.push_async_callback(vault.aclose)
        services = Services(
            node=node,
            registry=registry,
            lifecycle=registry.lifecycle,
            vault=vault,
            authenticator=parts.authenticator,
            tokens=parts.tokens,
            audit=parts.audit,
            idempotency=parts.idempotency,
            limiter=parts.limiter,
            reachability=reachability,
            steady_ms=lambda: int(asyncio.get_running_loop().time() * 1000),
        )
        app = make_admin_app(services)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = await opened.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://admin")
        )
        api = Api(directory, app, services, parts, registry, client)
        if tokens is None:
            await api.token(OPERATOR)
        else:
            api.tokens |= tokens
            api.token_ids |= {who: token.split("_")[1] for who, token in tokens.items()}
        yield api


@asynccontextmanager
async def api_with(directory: Path, tenants: Iterable[str] = (A, B), **given: Any) -> AsyncIterator[Api]:
    """The API with tenants that have a token, two versions, a key and a call each."""
    async with bare_api(directory, **given) as api:
        for tenant_id in tenants:
            await api.create(tenant_id)
            await api.token(tenant_id)
            await api.draft(tenant_id, greeting=words(tenant_id, "second"))
            if api.services.vault is not None:
                secret = Secret(f"{KEY_VALUE}-{tenant_id}")
                await api.services.vault.put(
                    tenant_id, f"canary-{tenant_id}", secret, actor=words(tenant_id, "actor"), at=NOON
                )
            await api.registry.record_call(
                await api.registry.context_for(dialled(NUMBERS[tenant_id]), call_id="c"), call_of(tenant_id)
            )
        yield api


def call_of(tenant_id: str) -> CallRecord:
    """A call in which something was said."""
    return CallRecord(
        call_id=words(tenant_id, "call"),
        called=NUMBERS[tenant_id],
        caller=words(tenant_id, "caller"),
        config_version=1,
        started_at=NOON,
        ended_at=NOON + timedelta(minutes=1),
        cause="hangup",
        transcript=[{"role": "user", "text": words(tenant_id, "words")}],
        messages=[],
    )


@dataclass(frozen=True)
class Prepared:
    """A folder with the two tenants, and the tokens of those who may ask: to be copied, which is faster than to be made."""

    folder: Path
    tokens: Mapping[str, str]
    document: dict[str, Any]
    """The published one."""

    @classmethod
    def make(cls, folder: Path) -> Prepared:
        async def make() -> tuple[dict[str, str], dict[str, Any]]:
            async with api_with(folder) as api:
                return dict(api.tokens), (await api.ask(None, "GET", "/openapi.json")).json()

        return cls(folder, *asyncio.run(make()))

    def open(self, directory: Path, **given: Any) -> AbstractAsyncContextManager[Api]:
        """The API on a copy."""
        shutil.copytree(self.folder, directory, dirs_exist_ok=True)
        return bare_api(directory, tokens=self.tokens, **given)
