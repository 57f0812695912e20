"""Where ``mediaserver config`` and ``tenant`` work: on a node that runs, through its admin API, or on the store, through the same API in here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
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
from mediaserver.remote import Remote, user_name
from tenancy import Registry
from tenancy.lifecycle import Lifecycle
from tenancy.opening import open_store
from tenancy.spending import unpriced

LOCAL_URL: Final = "http://local"


@asynccontextmanager
async def api(
    node: NodeConfig | None, remote: Remote | None, author: str, environ: Mapping[str, str]
) -> AsyncIterator[AdminClient]:
    """The admin API: of a node that runs, or of this process, over the node's own store; a node that runs meanwhile goes on.

    Raises `tenancy.TenancyError`, `admin.errors.Unavailable`.
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
    loop = asyncio.get_running_loop()
    return Services(
        node=node,
        registry=Registry(store, node.providers, environ),
        lifecycle=Lifecycle(
            store,
            dry_run=dry_run_on(node, environ),
            unpriced=lambda config: unpriced(config.providers, node.providers, environ),
        ),
        # What works here needs no key, and works where the key-encryption key is gone: `mediaserver keys` has the vault.
        vault=None,
        authenticator=LocalOperator(author, user_name()),
        tokens=parts.tokens,
        audit=parts.audit,
        idempotency=parts.idempotency,
        limiter=parts.limiter,
        reachability=lambda config: unreachable(config, node.providers, environ),
        steady_ms=lambda: round(loop.time() * 1000),
    )
