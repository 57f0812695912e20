"""Between SDP and the media engine: what we offer and accept, and what the engine is told of the outcome."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Required, TypedDict

from config.node import MAX_THREADS, MediaConfig
from mediaserver.addresses import local_address_towards
from sipbridge.sdp import (
    MasterKeys,
    Negotiated,
    SessionDescription,
    SrtpPolicy,
    make_offer,
    negotiate,
)

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
SOMEWHERE = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses for documentation (RFC 5737, RFC 3849): nobody is there, but the way leads out."""
NARROWBAND_ONLY = ("PCMU", "PCMA")


class StreamArguments(TypedDict, total=False):
    """Keyword arguments of `MediaEngine.connect_stream`."""

    remote: Required[tuple[str, int]]
    codec: Required[str]
    payload_type: Required[int]
    telephone_event: int | None
    send: bool
    receive: bool
    comfort_noise: int | None
    telephone_event_hz: int
    srtp: tuple[str, str, str] | None
    rtcp_remote: tuple[str, int] | None
    rtcp_mux: bool
    rtcp_xr: bool
    rtcp_reduced_size: bool
    rtcp: bool


def stream_arguments(negotiated: Negotiated) -> StreamArguments:
    """What to tell the engine; what is as its defaults have it is left out."""
    arguments = StreamArguments(
        remote=negotiated.remote,
        codec=negotiated.codec,
        payload_type=negotiated.payload_type,
        telephone_event=negotiated.telephone_event,
        send=negotiated.send,
        receive=negotiated.receive,
    )
    if (keys := negotiated.srtp) is not None:
        arguments["srtp"] = (keys.suite, keys.our_inline_key, keys.their_inline_key)
    if negotiated.comfort_noise is not None:
        arguments["comfort_noise"] = negotiated.comfort_noise
    if negotiated.telephone_event_hz != 8_000:
        arguments["telephone_event_hz"] = negotiated.telephone_event_hz
    terms, (host, port) = negotiated.rtcp, negotiated.remote
    if not terms.enabled:
        arguments["rtcp"] = False
        return arguments
    if terms.mux:
        arguments["rtcp_mux"] = True
    elif terms.remote != (host, port + 1):
        arguments["rtcp_remote"] = terms.remote
    if terms.xr_voip_metrics:
        arguments["rtcp_xr"] = True
    if terms.reduced_size:
        arguments["rtcp_reduced_size"] = True
    return arguments


def unconfirmed_arguments(negotiated: Negotiated) -> StreamArguments:
    """What to tell the engine while the ACK is due: listen (RFC 3264 6.1) and send nothing, not even reports.

    Until the ACK nobody has shown that they want media where the offer says: the INVITE may come from a stranger who
    names a victim's address.
    """
    return stream_arguments(replace(negotiated, send=False, rtcp=replace(negotiated.rtcp, silenced=True)))


class ThreadArguments(TypedDict, total=False):
    """Keyword arguments of `MediaEngine` about its threads and its place in the network."""

    threads: int
    realtime: bool
    public_addresses: list[str]


def media_threads(config: MediaConfig, cores: int) -> int:
    """As configured; else all cores but one, which is for the interpreter, and no more than there are ports for."""
    return config.threads or max(1, min(cores - 1, config.port_count, MAX_THREADS))


def thread_arguments(config: MediaConfig, cores: int) -> ThreadArguments:
    """What to tell the engine about a node's ``cores``; what is as its defaults have it is left out."""
    arguments = ThreadArguments()
    if (threads := media_threads(config, cores)) != 1:
        arguments["threads"] = threads
    if config.realtime == "off":
        arguments["realtime"] = False
    if addresses := addresses_for_browsers(config):
        arguments["public_addresses"] = list(addresses)
    return arguments


@dataclass(frozen=True, slots=True)
class MediaPolicy:
    """What this side of every call offers and accepts, and the address that it names.

    ``host``: where the engine's sockets are bound. ``public_addresses``: where the outside world reaches them, at most
    one a family.
    """

    host: str
    codecs: tuple[str, ...] = NARROWBAND_ONLY
    ours_first: bool = False
    srtp: SrtpPolicy = SrtpPolicy.OFF
    public_addresses: tuple[str, ...] = ()
    random_bytes: Callable[[int], bytes] = secrets.token_bytes

    @classmethod
    def of(cls, config: MediaConfig) -> MediaPolicy:
        """As a node's configuration has it."""
        return cls(
            host=config.host,
            codecs=tuple(config.codecs),
            ours_first=config.codec_order == "ours",
            srtp=SrtpPolicy(config.srtp),
            public_addresses=public_addresses(config),
        )

    def address_towards(self, peer: str) -> str:
        """Our address for a peer: the public one of its family, the one that is bound, or the one on the route."""
        version, bound = ip_address(peer).version, ip_address(self.host)
        for address in self.public_addresses:
            if ip_address(address).version == version:
                return address
        if not bound.is_unspecified:
            return self.host
        if bound.version == 4 and version == 6:
            # Not reachable on IPv6: SDP with an address of the wrong family is refused as such.
            return LOOPBACK[4]
        try:
            return local_address_towards(peer)
        except OSError:
            return LOOPBACK[version]

    def offer(self, address: str, port: int) -> SessionDescription:
        """Describe our side first."""
        return make_offer(address, port, self.codecs, srtp=self.srtp, keys=self._keys())

    def answer(
        self, offer: SessionDescription, address: str, port: int, previous: Negotiated | None = None
    ) -> Negotiated:
        """Answer an offer, or the next of a session that ``previous`` stands for; raises `NotAcceptable`."""
        return negotiate(
            offer,
            address=address,
            port=port,
            codecs=self.codecs,
            ours_first=self.ours_first,
            srtp=self.srtp,
            keys=self._keys(),
            previous=previous,
        )

    def _keys(self) -> MasterKeys | None:
        return None if self.srtp is SrtpPolicy.OFF else MasterKeys.draw(self.random_bytes)


def addresses_for_browsers(config: MediaConfig) -> tuple[str, ...]:
    """Where browsers send their media: the advertised addresses, or, bound to all, the one on the way to the world."""
    advertised, bound = public_addresses(config), ip_address(config.host)
    if advertised or not bound.is_unspecified:
        return advertised
    try:
        return (local_address_towards(SOMEWHERE[bound.version]),)
    except OSError:
        return (LOOPBACK[bound.version],)


def public_addresses(config: MediaConfig) -> tuple[str, ...]:
    """The advertised addresses of both families, where there are any."""
    return tuple(
        address for address in (config.advertised_host, config.advertised_host_ipv6) if address is not None
    )
