"""The trunks of a node: from where each sends its calls, and how it writes the numbers that it calls."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from config.addresses import IpNetwork
from config.tenant import E164, IMPLIED_TRUNK, WEB_TRUNK, StrictModel, TrunkId

MAX_TRUNKS: Final = 200
MAX_SOURCES: Final = 100
Transport = Literal["udp", "tcp"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("udp", "tcp")
Prefix = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,5}$")]
TechnicalPrefix = Annotated[str, StringConstraints(pattern=r"^[0-9*#]{1,10}$")]


def _not_reserved(trunk_id: str) -> str:
    """Refuse the ids of the trunks that every node has by itself."""
    if trunk_id in (IMPLIED_TRUNK, WEB_TRUNK):
        raise ValueError(
            f"{trunk_id!r} is taken: {IMPLIED_TRUNK!r} is the trunk of a node that lists none, "
            f"{WEB_TRUNK!r} the one of calls from a browser"
        )
    return trunk_id


class NotationConfig(StrictModel):
    """How a trunk writes the numbers that it calls. With a country, what is left out is as its numbering plan has it.

    A number with its plus is read everywhere. What a text can mean beside that is all that is said here; nothing is
    guessed.
    """

    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = None
    """The ISO 3166 region whose national numbers the trunk writes, for example ``DE``."""
    international_prefixes: tuple[Prefix, ...] | None = Field(default=None, max_length=3)
    """What stands before a country code in place of the plus; unset: the country's, or 00."""
    national_prefix: Annotated[str, StringConstraints(pattern=r"^[0-9]{0,5}$")] | None = None
    """The trunk code before an area code; empty: none; unset: the country's."""
    without_plus: bool = False
    """The trunk writes international numbers as bare digits."""
    without_national_prefix: bool | None = None
    """The trunk writes national numbers without the national prefix; unset: as the country's plan does."""
    technical_prefixes: tuple[TechnicalPrefix, ...] = Field(default=(), max_length=3)
    """What the carrier puts before numbers for routing."""
    base_number: E164 | None = None
    """The number without its extension, for a trunk that sends extensions alone (direct dialling in)."""
    extension_digits: int = Field(default=0, ge=0, le=6)
    """How many digits such an extension has."""
    contexts: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{1,255}$")], ...] = Field(
        default=(), max_length=3
    )
    """Domains in ``phone-context`` that mean this trunk's own notation (RFC 3966 5.1.5)."""


class TrunkConfig(StrictModel):
    """One carrier or exchange that sends calls."""

    id: Annotated[TrunkId, AfterValidator(_not_reserved)]
    """What tenants' ``trunks`` name."""
    sources: tuple[IpNetwork, ...] = Field(min_length=1, max_length=MAX_SOURCES)
    """The addresses and networks that its calls come from. Of two that contain an address the smaller one counts. Over UDP
    an address proves little where the network before the node lets forged ones through."""
    transports: tuple[Transport, ...] = Field(default=TRANSPORTS, min_length=1, max_length=2)
    """What it sends over."""
    notation: NotationConfig = NotationConfig()


def check_trunks(trunks: tuple[TrunkConfig, ...]) -> None:
    """Raise `ValueError` where two trunks have one id, or one source over one transport."""
    seen: dict[tuple[str, str], str] = {}
    for index, trunk in enumerate(trunks):
        if any(trunk.id == other.id for other in trunks[:index]):
            raise ValueError(f"trunks: the id {trunk.id!r} stands there twice")
        for claim in ((source, transport) for source in trunk.sources for transport in trunk.transports):
            if claim in seen:
                both = (
                    f"{seen[claim]!r} and {trunk.id!r}" if seen[claim] != trunk.id else f"{trunk.id!r}, twice"
                )
                raise ValueError(f"trunks: {claim[0]} over {claim[1]} is a source of {both}")
            seen[claim] = trunk.id
