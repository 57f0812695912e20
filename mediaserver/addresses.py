"""Which address of this machine a peer reaches us at."""

from __future__ import annotations

import socket

ANY_PORT = 9
"""Where the probe points; a connected UDP socket sends nothing."""


def local_address_towards(host: str) -> str:
    """Our address on the route to a host; raises `OSError` when there is none."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, ANY_PORT))
        return str(probe.getsockname()[0])


def is_local(host: str) -> bool:
    """Whether a host is this machine: one of its addresses can be bound here."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
        return True
