"""What can go wrong in SIP.

SipError
├── SdpError            a session description that cannot be read
├── NotAcceptable       an offer that cannot be answered; carries the status and the Warning code
├── UriError            text that is no SIP or tel URI
└── UsageError          the application asked for something that SIP does not allow
"""

from __future__ import annotations


class SipError(Exception):
    """The root of everything that this package raises."""


class SdpError(SipError):
    """A session description that cannot be read."""


class UriError(SipError, ValueError):
    """Text that is no SIP or tel URI."""


class UsageError(SipError, ValueError):
    """The application asked for something that SIP does not allow."""


class NotAcceptable(SipError):  # noqa: N818 - the name of the status that it becomes
    """An offer that cannot be answered: ``status`` refuses it, ``warning`` says why (RFC 3261 20.43)."""

    def __init__(self, text: str, *, warning: int, status: int = 488) -> None:
        super().__init__(text)
        self.status = status
        self.warning = warning
