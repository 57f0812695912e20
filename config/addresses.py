"""Hosts, ports, IP addresses and networks as the configuration writes them."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints


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

Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,253}$")]
"""An IPv4 or IPv6 address, or a host name."""
MAX_PORT = 65_535
Port = Annotated[int, Field(ge=0, le=MAX_PORT)]
"""A port; 0 lets the system choose one."""
