"""Who fails to log in too often has to wait. Sans-IO.

Failures are counted for each source: an IPv4 address, or the /64 that an IPv6 address is in, because whoever has one address
of it has all of them. The count is a bucket (`admin.rate`) that failures empty: ``burst`` failures at once, ``per_minute``
on average. A success takes nothing.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final

from admin.errors import Throttled
from admin.rate import MAX_BUCKETS, Buckets, retry_after_s
from config.admin import RateLimit

IPV6_PREFIX_BITS: Final = 64
_OTHER_CHARACTERS: Final = 64


def network_of(source: str) -> str:
    """What an address is counted as. What is no IP address, as the name of a Unix socket, is counted as it stands."""
    try:
        address = ip_address(source.partition("%")[0])
    except ValueError:
        return source[:_OTHER_CHARACTERS]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        network = int(address) >> (128 - IPV6_PREFIX_BITS) << (128 - IPV6_PREFIX_BITS)
        return f"{IPv6Address(network)}/{IPV6_PREFIX_BITS}"
    return str(address)


class LoginThrottle:
    """Failed logins of each source."""

    def __init__(self, limit: RateLimit, size_max: int = MAX_BUCKETS) -> None:
        self._buckets: Buckets[str] = Buckets(limit, size_max)
        self.failures = 0
        self.refused = 0

    def check(self, source: str, now_ms: int) -> None:
        """Whether the source may try. Raises `Throttled`."""
        wait_ms = self._buckets.wait_ms(network_of(source), now_ms)
        if wait_ms:
            self.refused += 1
            raise Throttled("too many failed logins from this address", retry_after_s(wait_ms))

    def failed(self, source: str, now_ms: int) -> None:
        """Count a failure. One more than allowed, from a login that was under way already, counts no further."""
        self.failures += 1
        self._buckets.take(network_of(source), now_ms)
