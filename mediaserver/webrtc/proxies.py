"""Who a request is from, where proxies stand before the server. Sans-IO.

``X-Forwarded-For`` is what a client wrote and each proxy appended the address to that the request came to it from. So it is
read from its end, and only as far as the addresses are of proxies that the operator trusts.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

MAX_HOPS = 16
"""Proxies that are followed; a chain that is longer is somebody's invention."""

Network = IPv4Network | IPv6Network


def source_behind(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The source of a request from ``peer`` with these ``X-Forwarded-For`` headers, in the order of the message."""
    source = _address(peer)
    if source is None:
        return peer
    hops = ",".join(forwarded).rsplit(",", MAX_HOPS)[-MAX_HOPS:] if forwarded else []
    while hops and _is_of(source, trusted):
        hop = _address(hops.pop().strip())
        if hop is None:
            # Not what a proxy writes: the last one that is known answers for it.
            break
        source = hop
    return str(source)


def _is_of(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address, with or without a port; IPv4 in its IPv6 form is IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
