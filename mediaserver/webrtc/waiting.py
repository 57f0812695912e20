"""Calls from browsers that are not connected yet: each has a leg and a lease, so that one source may have a few. Sans-IO."""

from __future__ import annotations

from dataclasses import dataclass, field

from mediaserver.webrtc.sessions import source_of


@dataclass(slots=True)
class WaitingCalls:
    """How many calls of each source wait for their connection."""

    most: int
    """Of one source."""
    _sources: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(self._sources.values())

    def enter(self, host: str) -> WaitingPlace | None:
        """A place for a call from ``host``; none while its source has as many as it may."""
        source = source_of(host)
        count = self._sources.get(source, 0)
        if count >= self.most:
            return None
        self._sources[source] = count + 1
        return WaitingPlace(self, source)

    def leave(self, source: str) -> None:
        """A call of the source waits no longer; for `WaitingPlace`."""
        count = self._sources.pop(source) - 1
        if count:
            self._sources[source] = count


@dataclass(slots=True)
class WaitingPlace:
    """One call's place."""

    _calls: WaitingCalls
    _source: str
    _left: bool = False

    def leave(self) -> None:
        """The call is connected, or over. Safe to call twice."""
        if not self._left:
            self._left = True
            self._calls.leave(self._source)
