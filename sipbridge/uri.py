"""SIP and tel URIs and name-addresses as values (RFC 3261 19.1, 20.10, RFC 3966)."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from mediaserver._native import SipParseError, sip_uri_parts
from sipbridge.errors import UriError

DEFAULT_PORT = 5060
_USER_SAFE = "-_.!~*'()&=+$,;?/"
"""``unreserved`` and ``user-unreserved`` of RFC 3261 25.1 beyond letters and digits."""


@dataclass(frozen=True, slots=True)
class SipUri:
    """A SIP, SIPS or tel URI.

    ``host`` has no brackets; of a tel URI ``user`` is the number and ``host`` is empty.
    """

    scheme: str
    user: str | None
    host: str
    port: int | None = None
    params: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def parse(cls, text: str) -> SipUri:
        """Read a URI; raises `UriError`."""
        try:
            scheme, user, host, port, params = sip_uri_parts(text)
        except SipParseError as error:
            raise UriError(f"{text!r} is not a SIP URI: {error}") from error
        if scheme not in ("sip", "sips", "tel"):
            raise UriError(f"{text!r} is not a SIP or tel URI")
        return cls(
            scheme, user, host.strip("[]"), port, tuple((name.lower(), value) for name, value in params)
        )

    def param(self, name: str) -> str | None:
        """Return the value of a parameter; an empty text where it has none."""
        return next((value or "" for key, value in self.params if key == name), None)

    def __str__(self) -> str:
        if self.scheme == "tel":
            return f"tel:{self.user}" + self._params_text()
        user = "" if self.user is None else quote(self.user, safe=_USER_SAFE) + "@"
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}:{user}{bracketed(self.host)}{port}{self._params_text()}"

    def _params_text(self) -> str:
        return "".join(f";{name}" if value is None else f";{name}={value}" for name, value in self.params)


@dataclass(frozen=True, slots=True)
class SipAddress:
    """A name-addr with its tag, as From and To carry it."""

    display: str | None
    uri: SipUri
    tag: str | None = None

    def __str__(self) -> str:
        tag = "" if self.tag is None else f";tag={self.tag}"
        if self.display is None:
            return f"<{self.uri}>{tag}"
        escaped = self.display.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}" <{self.uri}>{tag}'


def bracketed(host: str) -> str:
    """Return a host as URIs and Via write it: an IPv6 address in brackets (RFC 5118)."""
    return f"[{host}]" if ":" in host else host
