"""Every path into a call carries a context that the registry made for that call's tenant.

Two halves. The source is read: who makes a context, who asks for one, and who begins a call with it is listed here, and a path
that is added must be listed too. And two tenants are called on every path at once, on a node whose workers are killed under
their calls: what each call carries, and what is recorded of it, is its own tenant's.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx2
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from config.site_keys import SiteKey
from mediaserver.calls import ActiveCall
from tenancy import TenantContext
from tests.sim.node import RunningNode, running_node
from tests.sim.raw_sip import RawPeer, raw_peer

ROOT = Path(__file__).parents[1]
PACKAGES = ("mediaserver", "admin", "tenancy", "admission", "config", "vault", "sipbridge")

# -- the source --------------------------------------------------------------------------------------------

ALLOWED = MappingProxyType(
    {
        # Who makes a context: the registry, and the worker that reads what the registry made.
        "TenantContext": {
            "tenancy/registry.py:Registry._pinned_context",
            "tenancy/wire.py:load_context",
            # Made of the configuration that is checked, for a pipeline that is built and never runs.
            "mediaserver/configuring/dry_run.py:dry_run",
        },
        "load_context": {"mediaserver/workers/worker.py:_Call._run"},
        "_pinned_context": {
            "tenancy/registry.py:Registry.context_for",
            "tenancy/registry.py:Registry.context_to_prepare",
        },
        # Who asks for one: a call by what was called; and, before any call, the warming of answers.
        "context_for": {"mediaserver/calls.py:Switchboard.tenant_for"},
        "context_to_prepare": {"mediaserver/node_parts.py:contexts_to_prepare"},
        "tenant_for": {
            "mediaserver/edge.py:Edge._invited",
            "mediaserver/webrtc/edge.py:WebEdge.start",
            "mediaserver/webrtc/edge.py:WebEdge._call_waiting",
        },
        # Who begins a call with it.
        "Call": {"mediaserver/calls.py:Switchboard.begin"},
        "ActiveCall": {"mediaserver/calls.py:Switchboard.begin"},
    }
)
FIELDS = frozenset(field.name for field in dataclasses.fields(TenantContext))
SIP_CALL = "sipbridge"
"""It has a `Call` of its own, a dialog, and knows no tenants."""


def calls_in(tree: ast.AST, place: str) -> Iterator[tuple[str, str]]:
    """Every call: the last part of what is called, and the function that it stands in."""

    def walk(node: ast.AST, inside: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            below = (*inside, child.name) if named else inside  # type: ignore[attr-defined] # named says so
            if isinstance(child, ast.Call):
                name = child.func.attr if isinstance(child.func, ast.Attribute) else ""
                name = child.func.id if isinstance(child.func, ast.Name) else name
                yield name, f"{place}:{'.'.join(below)}"
                keywords = {each.arg for each in child.keywords}
                if name in ("replace", "__replace__") and keywords & FIELDS:
                    yield "replace", f"{place}:{'.'.join(below)}"
            yield from walk(child, below)

    yield from walk(tree, ())


def found_in(sources: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Where each of the names that matter is called."""
    found: dict[str, set[str]] = {name: set() for name in ALLOWED}
    for place, source in sources:
        for name, where in calls_in(ast.parse(source), place):
            if name in ALLOWED and not (name == "Call" and place.startswith(SIP_CALL)):
                found[name].add(where)
    return found


def other_makers(sources: Iterable[tuple[str, str]]) -> list[str]:
    """Where a context could be made without its name: a copy with another tenant, or around the constructor."""
    others = []
    for place, source in sources:
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Call(
                    func=ast.Name(id="replace") | ast.Attribute(attr="replace"), keywords=[*keywords]
                ):
                    if any(each.arg in ("tenant_id", "called_number", "trunk_id") for each in keywords):
                        others.append(f"{place}:{node.lineno}")
                case ast.Attribute(value=ast.Name(id="TenantContext")):
                    others.append(f"{place}:{node.lineno}")
                case ast.alias(name="TenantContext", asname=str()):
                    others.append(f"{place}:{node.lineno}")
                case ast.Assign(value=ast.Name(id="TenantContext")):
                    others.append(f"{place}:{node.lineno}")
                case ast.ClassDef(bases=[*bases]) if any(
                    ast.unparse(each).endswith("TenantContext") for each in bases
                ):
                    others.append(f"{place}:{node.lineno}")
    return others


def product() -> list[tuple[str, str]]:
    return [
        (str(path.relative_to(ROOT)), path.read_text())
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    ]


def test_the_paths_into_a_call_are_those_that_are_listed() -> None:
    assert found_in(product()) == dict(ALLOWED)


def test_no_context_is_made_in_another_way() -> None:
    assert other_makers(product()) == []


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    return TenantContext('a')",
        "class A:\n    async def f(self):\n        return await registry.context_for(called, call_id='c')",
        "x = wire.load_context(text)",
        "def f():\n    return [Call(tenant) for tenant in tenants]",
        "async def f(board):\n    await board.tenant_for(called, 'c')",
    ],
)
def test_another_path_would_be_found(source: str) -> None:
    assert found_in([*product(), ("mediaserver/other.py", source)]) != dict(ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "x = dataclasses.replace(context, tenant_id='b')",
        "x = replace(context, trunk_id='b')",
        "x = TenantContext.__new__(TenantContext)",
        "from tenancy import TenantContext as T",
        "T = TenantContext",
        "class T(TenantContext): ...",
    ],
)
def test_another_maker_would_be_found(source: str) -> None:
    assert other_makers([("mediaserver/other.py", source)])


# -- the calls ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tenant:
    """What is a tenant's own."""

    tenant_id: str
    number: str
    address: str
    key: str
    origin: str

    @property
    def greeting(self) -> str:
        return f"Hello, this is {self.tenant_id}. How can I help you?"

    @property
    def fields(self) -> dict[str, Any]:
        return {
            "tenant_id": self.tenant_id,
            "business_name": self.tenant_id,
            "numbers": [self.number],
            "sip_addresses": [self.address],
            "site_keys": [{"key": self.key, "origins": [self.origin]}],
            "trunks": ["line", "web"],
            "greeting": self.greeting,
        }


A, B = (
    Tenant(
        name,
        number,
        f"sip:desk@{name}.example",
        str(SiteKey.from_random(name[:1].encode() * 16)),
        f"https://{name}.example",
    )
    for name, number in (("alder", "+4930123456"), ("birch", "+4930654321"))
)
TRUNK = {"id": "line", "sources": ["127.0.0.2"], "notation": {"country": "DE"}}


@dataclass
class Expected:
    """A call that is up, and what it must carry."""

    tenant: Tenant
    called: str
    trunk: str


class Callers:
    """Callers of two tenants on every path; each call that they have up is noted."""

    def __init__(self, running: RunningNode, stack: AsyncExitStack) -> None:
        self.running = running
        self._stack = stack
        self.up: dict[int, Expected] = {}
        self.peers: list[tuple[RawPeer, Tenant]] = []
        self.browsers: list[RTCPeerConnection] = []
        self._one_at_a_time = asyncio.Lock()

    @property
    def active(self) -> dict[int, ActiveCall]:
        board = self.running.node._switchboard
        assert board is not None
        return board._active

    async def sip(self, tenant: Tenant, transport: str, uri: str, called: str) -> None:
        peer = await self._stack.enter_async_context(
            raw_peer(self.running.sip_port, uri, source="127.0.0.2", transport=transport)
        )
        assert await peer.invite() == 200
        self._note(lambda call: call.call.tenant.call_id == peer.call_id, Expected(tenant, called, "line"))
        self.peers.append((peer, tenant))

    async def web(self, tenant: Tenant, *, by_key: bool, comes_back: bool = False) -> None:
        url = f"http://127.0.0.1:{self.running.node.http_port}"
        headers = {"Origin": tenant.origin} if by_key else {}
        body = {"site_key": tenant.key} if by_key else {"number": tenant.number}
        async with httpx2.AsyncClient(base_url=url, headers=headers) as client:
            response = await client.post("/start", json=body)
            path = f"/sessions/{response.json()['sessionId']}/api/offer"
            answer = await self._connect(client, path, {})
            called = tenant.key if by_key else tenant.number
            pc_id = answer["pc_id"]
            self._note(lambda call: call.call.tenant.call_id == pc_id, Expected(tenant, called, "web"))
            if comes_back:
                again = await self._connect(client, path, {"pc_id": pc_id, "restart_pc": True})
                assert again["pc_id"] == pc_id

    async def _connect(
        self, client: httpx2.AsyncClient, path: str, more: dict[str, object]
    ) -> dict[str, str]:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.browsers.append(connection)
        connection.addTransceiver("audio")
        connection.createDataChannel("chat")
        await connection.setLocalDescription(await connection.createOffer())
        offer = connection.localDescription
        answer: dict[str, str] = (
            await client.post(path, json={"sdp": offer.sdp, "type": offer.type, **more})
        ).json()
        await connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        return answer

    def _note(self, is_it: Callable[[ActiveCall], bool], expected: Expected) -> None:
        (number,) = [number for number, call in self.active.items() if is_it(call)]
        self.up[number] = expected

    def check(self) -> None:
        """Every call that is up carries what the registry has of its tenant, and nothing else."""
        assert self.active.keys() == self.up.keys()
        for number, expected in self.up.items():
            context = self.active[number].call.tenant
            assert (context.tenant_id, context.called_number, context.trunk_id) == (
                expected.tenant.tenant_id,
                expected.called,
                expected.trunk,
            )
            assert context.config.tenant_id == expected.tenant.tenant_id
            assert context.config.greeting == expected.tenant.greeting

    async def close(self) -> None:
        for peer, _ in self.peers:
            assert await peer.hang_up() == 200
        await asyncio.gather(*(each.close() for each in self.browsers))
        async with asyncio.timeout(20):
            await self.running.node.idle()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110 - the condition is the synchronisation
            await asyncio.sleep(0.005)


async def test_two_tenants_on_every_path_at_once(tmp_path: Path) -> None:
    async with (
        AsyncExitStack() as stack,
        running_node(
            tmp_path, workers=2, slots=40, node_trunks=(TRUNK,), others=(B.fields,), **A.fields
        ) as running,
    ):
        callers = Callers(running, stack)
        await asyncio.gather(
            *(
                path
                for tenant in (A, B)
                for path in (
                    callers.sip(tenant, "udp", f"sip:0{tenant.number[3:]}@node", tenant.number),
                    callers.sip(tenant, "tcp", f"sip:{tenant.number}@node;transport=tcp", tenant.number),
                    callers.sip(tenant, "udp", tenant.address, tenant.address),
                    callers.web(tenant, by_key=False),
                    callers.web(tenant, by_key=True),
                    callers.web(tenant, by_key=False, comes_back=True),
                    callers.web(tenant, by_key=True, comes_back=True),
                )
            )
        )
        assert len(callers.up) == 14
        callers.check()
        # A dialog stays its tenant's, whatever a later request in it names.
        for peer, tenant in callers.peers:
            other = B if tenant is A else A
            assert await peer.invite(uri=f"sip:{other.number}@node") == 200
        callers.check()
        # Another worker takes the calls over; what it runs was read from what the registry made.
        pool = running.node.workers
        os.kill(pool.pids[0], signal.SIGKILL)
        await _until(lambda: pool.counters.takeovers >= 1)
        callers.check()
        await _until(lambda: all(call.call.conversation.lines for call in callers.active.values()))
        callers.check()
        await callers.close()
        for tenant in (A, B):
            records = await running.node.registry.calls(tenant.tenant_id)
            mine = [each.called for each in callers.up.values() if each.tenant is tenant]
            assert sorted(each.called for each in records) == sorted(mine)
            for record in records:
                said = [str(line["text"]) for line in record.transcript if line["speaker"] == "receptionist"]
                other = B if tenant is A else A
                assert said
                assert not any(other.tenant_id in line for line in said), record
