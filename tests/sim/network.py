"""What the network of this machine can do."""

from __future__ import annotations

import socket


def has_ipv6() -> bool:
    """Whether sockets can be bound on the IPv6 loopback address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
