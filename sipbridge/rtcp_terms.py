"""Where and how two sides exchange RTCP: what their descriptions say about it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from sipbridge.description import Attribute, MediaDescription, SessionDescription, whole_number

MUX_CONFLICTS = range(64, 96)
"""RTP payload types that look like RTCP packets on a shared port (RFC 5761 4)."""
MAX_PORT = 65_535
NO_BANDWIDTH = (("b", "RS:0"), ("b", "RR:0"))
"""The b= lines of a side that neither sends RTCP nor wants any (RFC 3556 2)."""


@dataclass(frozen=True, slots=True)
class RtcpTerms:
    """What the media engine needs to know."""

    silenced: bool
    """The peer has no bandwidth for it: ``b=RS:0`` and ``b=RR:0`` (RFC 3556 2)."""
    mux: bool
    """RTCP on the port of RTP (RFC 5761)."""
    remote: tuple[str, int]
    """Where the peer receives RTCP; port 0: nowhere."""
    xr_voip_metrics: bool = False
    """The peer asks for VoIP metrics (RFC 3611 5.1)."""
    reduced_size: bool = False
    """Reports need not be compound packets (RFC 5506)."""

    @property
    def enabled(self) -> bool:
        """Whether we send RTCP at all."""
        return not self.silenced and self.remote[1] != 0

    def attributes(self) -> tuple[Attribute, ...]:
        """What our answer says of it. VoIP metrics are not asked for in return: we measure our own (RFC 3611 5.2)."""
        lines: tuple[Attribute, ...] = (("rtcp-mux", None),) if self.mux else ()
        return lines + ((("rtcp-rsize", None),) if self.reduced_size else ())

    def bandwidths(self) -> tuple[tuple[str, str], ...]:
        """The b= lines of our answer: no bandwidth where the peer has none."""
        return NO_BANDWIDTH if self.silenced else ()


def rtcp_terms(
    description: SessionDescription,
    media: MediaDescription,
    rtp: tuple[str, int],
    payload_types: tuple[int, ...],
    *,
    mux: bool = True,
    reduced_size: bool = True,
) -> RtcpTerms:
    """Read a peer's terms for a stream that it receives at ``rtp``; ``mux`` and ``reduced_size``: whether we would.

    What cannot be read is as if it were not there: then RTCP goes to the port above RTP's (RFC 3550 11).
    """
    shared = mux and media.has("rtcp-mux") and not any(number in MUX_CONFLICTS for number in payload_types)
    remote = rtp if shared else _remote(media, rtp)
    silenced = description.bandwidth_of(media, "RS") == 0 == description.bandwidth_of(media, "RR")
    return RtcpTerms(
        silenced=silenced,
        mux=shared,
        remote=remote,
        xr_voip_metrics=any(
            name == "rtcp-xr" and "voip-metrics" in (value or "").split()
            for name, value in (*media.attributes, *description.attributes)
        ),
        reduced_size=reduced_size and media.has("rtcp-rsize"),
    )


def _remote(media: MediaDescription, rtp: tuple[str, int]) -> tuple[str, int]:
    """Read ``a=rtcp:port [IN IP4 address]`` (RFC 3605 2.1)."""
    beside = (rtp[0], rtp[1] + 1 if rtp[1] < MAX_PORT else 0)
    words = (media.attribute("rtcp") or "").split()
    port = whole_number(words[0], 1, MAX_PORT) if words else None
    if port is None:
        return beside
    if len(words) == 1:
        return rtp[0], port
    try:
        address = ip_address(words[3]) if len(words) == 4 else None
    except ValueError:
        address = None
    if address is None or address.version != ip_address(rtp[0]).version:
        return beside
    if address.is_unspecified or address.is_multicast:
        return rtp[0], port
    return str(address), port
