"""Where ``mediaserver config`` works: on a node that runs, through its admin API, or on the store, through the same API in here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2

from admin.app import make_admin_app
from admin.client import AdminClient, LocalOperator
from admin.opening import open_admin
from admin.services import Services
from config.admin import AdminConfig
from config.node import NodeConfig
from mediaserver.configuring.dry_run import dry_run_on
from mediaserver.configuring.reachability import unreachable
from mediaserver.errors import MediaServerError
from tenancy import Registry
from tenancy.keys import open_vault
from tenancy.lifecycle import Lifecycle
from tenancy.opening import open_store
from tenancy.spending import unpriced

URL_VARIABLE: Final = "MEDIASERVER_ADMIN_URL"
TOKEN_VARIABLE: Final = "MEDIASERVER_ADMIN_TOKEN"
LOCAL_URL: Final = "http://local"
MAX_TOKEN_CHARACTERS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Remote:
    """A node's admin API."""

    url: str
    token: str


def remote_of(url: str | None, token_file: Path | None, environ: Mapping[str, str]) -> Remote | None:
    """Where the command line is told to go; None: to the store itself. A token never stands on the command line.

    Raises `MediaServerError`.
    """
    where = url or environ.get(URL_VARIABLE, "").strip()
    if not where:
        if token_file is not None:
            raise MediaServerError(f"--token-file goes with --url, or with {URL_VARIABLE}")
        return None
    if not where.startswith(("http://", "https://")):
        raise MediaServerError(f"--url: {where[:200]!r} is no http or https URL")
    if token_file is None:
        token = environ.get(TOKEN_VARIABLE, "").strip()
    else:
        try:
            token = token_file.read_text(encoding="utf-8")[:MAX_TOKEN_CHARACTERS].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise MediaServerError(
                f"{token_file}: {getattr(error, 'strerror', None) or 'not UTF-8'}"
            ) from error
    if not token:
        raise MediaServerError(
            f"a token is needed for {where}: --token-file FILE, or {TOKEN_VARIABLE}; "
            "mediaserver admin token create makes one"
        )
    return Remote(where.rstrip("/"), token)


@asynccontextmanager
async def api(
    node: NodeConfig | None, remote: Remote | None, author: str, environ: Mapping[str, str]
) -> AsyncIterator[AdminClient]:
    """The admin API: of a node that runs, or of this process, over the node's own store; a node that runs meanwhile goes on.

    Raises `tenancy.TenancyError`, `vault.VaultError`, `admin.errors.Unavailable`.
    """
    if remote is not None:
        async with AdminClient(remote.url, remote.token) as client:
            yield client
        return
    assert node is not None, "without a node that runs, its configuration says where its store is"
    async with AsyncExitStack() as stack:
        services = await _services(node, author, environ, stack)
        transport = httpx2.ASGITransport(make_admin_app(services))
        yield await stack.enter_async_context(AdminClient(LOCAL_URL, transport=transport))


async def _services(
    node: NodeConfig, author: str, environ: Mapping[str, str], stack: AsyncExitStack
) -> Services:
    store = await open_store(node, environ)
    stack.push_async_callback(store.close)
    # The trail and the keys of requests are kept whether the node serves the API or not.
    parts = await open_admin(
        node if node.admin is not None else node.model_copy(update={"admin": AdminConfig()}), environ
    )
    stack.push_async_callback(parts.aclose)
    vault = None if node.vault is None else await open_vault(node, environ)
    if vault is not None:
        stack.push_async_callback(vault.aclose)
    loop = asyncio.get_running_loop()
    return Services(
        node=node,
        registry=Registry(store, node.providers, environ),
        lifecycle=Lifecycle(
            store,
            dry_run=dry_run_on(node, environ),
            unpriced=lambda config: unpriced(config.providers, node.providers, environ),
        ),
        vault=vault,
        authenticator=LocalOperator(author),
        tokens=parts.tokens,
        audit=parts.audit,
        idempotency=parts.idempotency,
        limiter=parts.limiter,
        reachability=lambda config: unreachable(config, node.providers, environ),
        steady_ms=lambda: round(loop.time() * 1000),
    )
