"""Which trunk a call came on, and what was called on it: the question that `tenancy.registry` answers. Sans-IO.

Rules:

- a source belongs to the trunk with the smallest network that contains it, over the transport that it used;
- a node that lists trunks takes SIP calls from them alone; one that lists none has the trunk ``any``;
- a browser that calls a number does it on the trunk ``web``, or ``any`` where no trunks are listed; with a site key the
  key and the page decide, whatever the trunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from types import MappingProxyType

from config.errors import ConfigError
from config.node import NodeConfig
from config.tenant import IMPLIED_TRUNK, WEB_TRUNK
from config.trunks import NotationConfig, TrunkConfig
from tenancy.called import CalledText, Refusal, Unreadable, read_uri, read_user, sip_address
from tenancy.numbers import Candidates, TrunkNotation, candidates

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Trunk:
    """Where calls come from, and how numbers are written there."""

    trunk_id: str
    notation: TrunkNotation


@dataclass(frozen=True, slots=True)
class CalledUri:
    """A Request-URI."""

    trunk: Trunk | None
    """None: its source is no trunk's."""
    uri: str

    def reading(self, trunk: Trunk) -> Candidates | Unreadable:
        """The numbers that it can mean, or the SIP address that it is where it is no number."""
        text = read_uri(self.uri)
        if isinstance(text, CalledText):
            return candidates(text, trunk.notation)
        if text.refusal is not Refusal.NAME:
            return text
        address = sip_address(self.uri)
        return text if isinstance(address, Unreadable) else Candidates((address,), Refusal.NAME)


@dataclass(frozen=True, slots=True)
class CalledNumber:
    """A number that somebody wrote into a web page."""

    trunk: Trunk
    text: str

    def reading(self, trunk: Trunk) -> Candidates | Unreadable:
        """The numbers that it can mean."""
        text = read_user(self.text)
        return candidates(text, trunk.notation) if isinstance(text, CalledText) else text


@dataclass(frozen=True, slots=True)
class CalledSite:
    """A site key, and the page that has it."""

    key: str
    origin: str | None
    """The request's Origin header."""


Called = CalledUri | CalledNumber | CalledSite

IMPLIED: Trunk = Trunk(IMPLIED_TRUNK, TrunkNotation(without_plus=True))
"""The trunk of a node that lists none: ``+15550100``, ``0015550100`` and ``15550100`` are one number there."""
WEB: Trunk = Trunk(WEB_TRUNK, TrunkNotation(without_plus=True))


@dataclass(frozen=True, slots=True)
class Trunks:
    """The trunks of a node. Without arguments: of one that lists none."""

    listed: tuple[Trunk, ...] = ()
    _sources: Mapping[tuple[str, Network], Trunk] = field(default_factory=lambda: MappingProxyType({}))
    """By transport and network."""
    _lengths: tuple[int, ...] = ()
    """The prefix lengths that networks have, the longest first."""

    @classmethod
    def of(cls, config: NodeConfig) -> Trunks:
        """Read what the configuration lists. Raises `ConfigError`, which names the trunk and the field."""
        trunks = tuple(_trunk(each, index) for index, each in enumerate(config.trunks))
        sources: dict[tuple[str, Network], Trunk] = {
            (transport, ip_network(source)): trunk
            for each, trunk in zip(config.trunks, trunks, strict=True)
            for source in each.sources
            for transport in each.transports
        }
        lengths = sorted({network.prefixlen for _, network in sources}, reverse=True)
        return cls(trunks, MappingProxyType(sources), tuple(lengths))

    @property
    def web(self) -> Trunk:
        """The trunk of calls to a number from a browser."""
        return WEB if self.listed else IMPLIED

    @property
    def ids(self) -> frozenset[str]:
        """The trunks on which a call can come."""
        return frozenset(each.trunk_id for each in (*self.listed, self.web))

    def from_source(self, host: str, transport: str) -> Trunk | None:
        """Whose an IP address is, over ``udp`` or ``tcp``; None: no trunk's. Raises `ValueError` for no address."""
        if not self.listed:
            return IMPLIED
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        for length in self._lengths:
            if length <= address.max_prefixlen:
                trunk = self._sources.get((transport, ip_network((address, length), strict=False)))
                if trunk is not None:
                    return trunk
        return None


def _trunk(config: TrunkConfig, index: int) -> Trunk:
    try:
        return Trunk(config.id, _notation(config.notation))
    except ValueError as error:
        raise ConfigError(f"trunks[{index}] ({config.id}): notation.{error}") from error


def _notation(config: NotationConfig) -> TrunkNotation:
    """The country's plan, and over it what the trunk says. Raises `ValueError`, which names the field."""
    plan = TrunkNotation() if config.country is None else TrunkNotation.for_country(config.country)
    said = {name: value for name, value in config.model_dump().items() if value is not None}
    return replace(plan, **said)
