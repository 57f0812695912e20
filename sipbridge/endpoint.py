"""The network shell of `UserAgent`: sockets, the clock and randomness, and nothing that decides anything."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from mediaserver._native import SipMessage
from sipbridge.call_table import UserAgentConfig
from sipbridge.connections import ConnectionPool
from sipbridge.errors import UsageError
from sipbridge.events import DialogId, SipEvent
from sipbridge.uri import SipAddress, SipUri
from sipbridge.user_agent import UserAgent
from sipbridge.wire import Action, Deliver, Flow, Send

MAX_QUEUED_PER_PEER = 64
BIND_ATTEMPTS = 16


@dataclass(frozen=True, slots=True)
class SipEndpointConfig:
    """Where an endpoint listens and how much it takes on. Port 0: any free one, the same for UDP and TCP."""

    host: str
    port: int
    udp: bool = True
    tcp: bool = True
    advertised_host: str | None = None
    user_agent: str = "sipbridge"
    max_dialogs: int = 2_000
    max_transactions: int = 10_000
    max_connections: int = 1_000
    max_message_bytes: int = 65_535
    retry_after_s: int = 5
    decision_ms: int = 20_000
    ringing_ms: int = 180_000
    idle_timeout_s: float = 900.0
    message_timeout_s: float = 10.0
    connect_timeout_s: float = 5.0
    drain_timeout_s: float = 2.0
    t1_ms: int = 500
    t2_ms: int = 4_000
    t4_ms: int = 5_000


class SipEndpoint:
    """A user agent on the network. Events come synchronously; commands may be given from within them."""

    def __init__(self, config: SipEndpointConfig, on_event: Callable[[SipEvent], None]) -> None:
        if not config.udp and not config.tcp:
            raise UsageError("an endpoint needs UDP or TCP")
        self._config = config
        self._on_event = on_event
        self._counters: Counter[str] = Counter()
        self._pool = ConnectionPool(
            self,
            self._counters,
            max_connections=config.max_connections,
            max_message_bytes=config.max_message_bytes,
            idle_timeout_s=config.idle_timeout_s,
            message_timeout_s=config.message_timeout_s,
        )
        self._agent: UserAgent | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._actions: deque[Action] = deque()
        self._performing = False
        self._port = 0
        self._outbox: dict[Flow, list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._drained = asyncio.Event()
        self.udp_blocked = False

    # -- life ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind and listen; raises `OSError` when the address is taken."""
        config = self._config
        for attempt in range(BIND_ATTEMPTS):
            try:
                await self._bind(config.port)
                break
            except OSError:
                self._unbind()
                # A free UDP port may be taken on TCP: only then is another one worth a try.
                if config.port != 0 or attempt == BIND_ATTEMPTS - 1:
                    raise
        self._agent = UserAgent(
            UserAgentConfig(
                host=config.advertised_host or _reachable(config.host),
                port=self._port,
                user_agent=config.user_agent,
                max_dialogs=config.max_dialogs,
                max_transactions=config.max_transactions,
                max_message_bytes=config.max_message_bytes,
                retry_after_s=config.retry_after_s,
                decision_ms=config.decision_ms,
                ringing_ms=config.ringing_ms,
                t1_ms=config.t1_ms,
                t2_ms=config.t2_ms,
                t4_ms=config.t4_ms,
            ),
            lambda: secrets.token_hex(8),
        )

    async def close(self) -> None:
        """Hang up what is left, give the wire a moment to hear it, and stop."""
        agent = self._agent
        if agent is not None:
            for dialog in agent.live_dialogs():
                self.hang_up(dialog)
            give_up = asyncio.get_running_loop().time() + self._config.drain_timeout_s
            while agent.draining and asyncio.get_running_loop().time() < give_up:
                self._drained.clear()
                try:
                    async with asyncio.timeout_at(give_up):
                        await self._drained.wait()
                except TimeoutError:
                    break
        self._agent = None
        if self._alarm is not None:
            self._alarm.cancel()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._unbind()
        self._pool.close_all()

    @property
    def local_port(self) -> int:
        """The port that UDP and TCP are bound to."""
        return self._port

    def stats(self) -> dict[str, int]:
        """Counters and levels."""
        core = self._agent.stats() if self._agent is not None else {}
        return {**core, **self._counters, "connections": len(self._pool)}

    # -- commands --------------------------------------------------------------------------------------

    def ring(self, dialog: DialogId, status: int = 180) -> None:
        """Send a provisional response."""
        self._perform(self._core.ring(dialog, self._now_ms(), status))

    def answer(self, dialog: DialogId, sdp: str | bytes) -> None:
        """Accept the INVITE, re-INVITE or UPDATE that waits."""
        self._perform(self._core.answer(dialog, sdp, self._now_ms()))

    def reject(
        self,
        dialog: DialogId,
        status: int,
        reason: str | None = None,
        *,
        retry_after_s: int | None = None,
        warning: tuple[int, str] | None = None,
        contact: str | None = None,
    ) -> None:
        """Refuse the INVITE, re-INVITE or UPDATE that waits; ``warning``: code and words beside a 488.

        ``contact``: the URI that a 3xx sends the caller to.
        """
        self._perform(
            self._core.reject(
                dialog,
                status,
                self._now_ms(),
                reason,
                retry_after_s=retry_after_s,
                warning=warning,
                contact=contact,
            )
        )

    def hang_up(self, dialog: DialogId) -> None:
        """End a call in whatever state it is; `CallEnded` comes at once, the wire tidies up by itself."""
        self._perform(self._core.hang_up(dialog, self._now_ms()))

    def invite(
        self, target: SipUri, caller: SipAddress, offer: str | bytes, *, transport: str = "udp"
    ) -> DialogId:
        """Place a call."""
        dialog, actions = self._core.invite(target, caller, offer, self._now_ms(), transport)
        # The caller learns the dialog's name before it hears the first event of it.
        asyncio.get_running_loop().call_soon(self._perform, actions)
        return dialog

    # -- what the sockets report -----------------------------------------------------------------------

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Note that a datagram has come."""
        if self._agent is not None:
            flow = Flow("udp", address[0], address[1])
            self._perform(self._agent.datagram(data, flow, self._now_ms()))

    def message_received(self, message: SipMessage, flow: Flow) -> None:
        """Note that a message has come over TCP."""
        if self._agent is not None:
            self._perform(self._agent.message(message, flow, self._now_ms()))

    def connection_lost(self, flow: Flow) -> None:
        """Note that a TCP connection is gone."""
        if self._agent is not None:
            self._perform(self._agent.connection_closed(flow, self._now_ms()))

    # -- inside ----------------------------------------------------------------------------------------

    @property
    def _core(self) -> UserAgent:
        if self._agent is None:
            raise UsageError("the endpoint is not started")
        return self._agent

    @staticmethod
    def _now_ms() -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    def _perform(self, actions: list[Action]) -> None:
        """Do actions in order, also those that the application causes while it hears of earlier ones."""
        self._actions.extend(actions)
        if self._performing:
            return
        self._performing = True
        try:
            while self._actions:
                action = self._actions.popleft()
                match action:
                    case Send():
                        self._send(action.flow, action.data)
                    case Deliver():
                        self._on_event(action.event)
                    case _:
                        assert_never(action)
        finally:
            self._performing = False
            self._set_alarm()
            if self._actions:
                # The application raised: its error goes to the loop, the rest of the work goes on.
                asyncio.get_running_loop().call_soon(self._perform, [])

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._agent is None:
            return
        if not self._agent.draining:
            self._drained.set()
        due_ms = self._agent.next_ms()
        if due_ms is not None:
            # A millisecond late rather than early: `wake` compares whole milliseconds.
            self._alarm = asyncio.get_running_loop().call_at((due_ms + 1) / 1000, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        if self._agent is not None:
            self._perform(self._agent.wake(self._now_ms()))

    def _send(self, flow: Flow, data: bytes) -> None:
        if flow.transport == "udp" and self._udp is not None and _is_address(flow.host):
            self._send_datagram(data, (flow.host, flow.port))
            return
        connection = self._pool.find(flow) if flow.transport == "tcp" else None
        if connection is not None:
            connection.send(data)
        elif flow.connection is not None or not self._has(flow.transport):
            asyncio.get_running_loop().call_soon(self._failed, flow)
        else:
            self._send_later(flow, data)

    def _has(self, transport: str) -> bool:
        return transport == "tcp" or (transport == "udp" and self._udp is not None)

    def _send_later(self, flow: Flow, data: bytes) -> None:
        """Resolve the name or connect first; meanwhile a bounded number of messages waits."""
        waiting = self._outbox.get(flow)
        if waiting is None:
            self._outbox[flow] = [data]
            task = asyncio.get_running_loop().create_task(self._reach(flow), name=f"sip-reach-{flow.host}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif len(waiting) < MAX_QUEUED_PER_PEER:
            waiting.append(data)
        else:
            self._counters["sends_dropped"] += 1

    async def _reach(self, flow: Flow) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                if flow.transport == "udp":
                    found = await loop.getaddrinfo(flow.host, flow.port, type=socket.SOCK_DGRAM)
                    address = (str(found[0][4][0]), flow.port)
                    send = self._datagram_sender(address)
                else:
                    _, connection = await loop.create_connection(self._pool.factory(), flow.host, flow.port)
                    self._pool.name(connection, (flow.host, flow.port))
                    send = connection.send
        except (OSError, TimeoutError):
            self._outbox.pop(flow, None)
            self._failed(flow)
            return
        for data in self._outbox.pop(flow, []):
            send(data)

    def _datagram_sender(self, address: tuple[str, int]) -> Callable[[bytes], None]:
        return lambda data: self._send_datagram(data, address)

    def _send_datagram(self, data: bytes, address: tuple[str, int]) -> None:
        if self._udp is None:
            return
        if self.udp_blocked:
            # A datagram may be lost, memory may not.
            self._counters["sends_dropped"] += 1
            return
        self._udp.sendto(data, address)

    def _failed(self, flow: Flow) -> None:
        self._counters["unreachable"] += 1
        if self._agent is not None:
            self._perform(self._agent.transport_failed(flow, self._now_ms()))

    async def _bind(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._port = port
        if self._config.udp:
            if ":" in self._config.host:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), sock=_ipv6_socket(self._config.host, port)
                )
            else:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=(self._config.host, port)
                )
            self._port = int(self._udp.get_extra_info("sockname")[1])
        if self._config.tcp:
            self._server = await loop.create_server(self._pool.factory(), self._config.host, self._port)
            self._port = int(self._server.sockets[0].getsockname()[1])

    def _unbind(self) -> None:
        if self._udp is not None:
            self._udp.close()
            self._udp = None
        if self._server is not None:
            self._server.close()
            self._server = None


class _Datagrams(asyncio.DatagramProtocol):
    """Passes datagrams on. Errors that ICMP reports belong to no transaction: the timers find out."""

    def __init__(self, endpoint: SipEndpoint) -> None:
        self._endpoint = endpoint

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        self._endpoint.datagram_received(data, (str(addr[0]), addr[1]))

    def pause_writing(self) -> None:
        self._endpoint.udp_blocked = True

    def resume_writing(self) -> None:
        self._endpoint.udp_blocked = False


def _ipv6_socket(host: str, port: int) -> socket.socket:
    """Bind a socket for IPv6 alone, as the event loop's TCP listener is: one Contact cannot name both families."""
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _reachable(host: str) -> str:
    """Return the address to advertise: of a wildcard the one on the default route. Nothing is sent."""
    if not _is_address(host) or not ipaddress.ip_address(host).is_unspecified:
        return host
    wide = ":" in host
    with socket.socket(socket.AF_INET6 if wide else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # TEST-NET-1 and the documentation prefix: any address beyond the link selects the default route.
            probe.connect(("2001:db8::1" if wide else "192.0.2.1", 9))
        except OSError:
            return "::1" if wide else "127.0.0.1"
        return str(probe.getsockname()[0])
