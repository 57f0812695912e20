"""IP addresses and networks as the configuration writes them."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated

from pydantic import AfterValidator


def _address(text: str) -> str:
    """Check and normalise an IP address."""
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is not an IPv4 or IPv6 address such as '192.0.2.10'") from error


def _ipv6_address(text: str) -> str:
    """Check and normalise an IPv6 address."""
    try:
        return str(IPv6Address(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is not an IPv6 address such as '2001:db8::10'") from error


def _network(text: str) -> str:
    """Check and normalise an IP network."""
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ValueError(
            f"{text!r} is not an IPv4 or IPv6 network such as '192.0.2.0/24': {error}"
        ) from error


IpAddress = Annotated[str, AfterValidator(_address)]
"""An IPv4 or IPv6 address: media sockets and SDP take no names."""
IpNetwork = Annotated[str, AfterValidator(_network)]
"""An IPv4 or IPv6 network, or one address."""
Ipv6Address = Annotated[str, AfterValidator(_ipv6_address)]
