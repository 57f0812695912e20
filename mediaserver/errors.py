"""The root of everything that the media server raises on purpose."""

from __future__ import annotations


class MediaServerError(Exception):
    """Something that an operator or a caller of the API can be told as it stands."""


class StartupError(MediaServerError):
    """The server cannot start; the text says what is wrong and what to do."""


class LinkClosed(MediaServerError):  # noqa: N818 - names the event that ended the wait
    """The media of the call is gone; nothing further will arrive on its link."""


class ProviderFailed(MediaServerError):  # noqa: N818
    """A provider refused, broke off, or exceeded its budget."""

    def __init__(self, provider: str, why: str) -> None:
        super().__init__(f"{provider}: {why}")
        self.provider = provider
        self.why = why
