"""The two ends of a pipeline that no call runs: a link that leads nowhere, and an observer that notes nothing."""

from __future__ import annotations

from mediaserver.errors import LinkClosed
from mediaserver.media_link import MediaEvent
from mediaserver.pipeline.transport import TurnMeasured
from mediaserver.providers.trail import ProviderEvent
from mediaserver.receptionist import Action
from mediaserver.turns import TurnCounters
from tenancy.spending import Usage


class NoLink:
    """Implements `MediaLink` for a pipeline that is built and never run."""

    def next_mark(self) -> int:
        return 1

    def play(self, pcm: bytes, rate_hz: int, mark: int) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def flush(self) -> None: ...

    async def next_event(self) -> MediaEvent:
        raise LinkClosed("there is no call")


class NoObserver:
    """Implements `CallObserver`."""

    def caller_said(self, text: str) -> None: ...

    def receptionist_said(self, text: str, *, interrupted: bool) -> None: ...

    def caller_speaking(self, *, active: bool) -> None: ...

    def receptionist_speaking(self, *, active: bool) -> None: ...

    def sentence_begins(self, text: str) -> None: ...

    def sentence_queued(self, text: str) -> None: ...

    def reply_queued(self) -> None: ...

    def receptionist_state(self, state: str) -> None: ...

    def turn_measured(self, turn: TurnMeasured) -> None: ...

    def action(self, action: Action) -> None: ...

    def media_ended(self, why: str) -> None: ...

    def turns_counted(self, counters: TurnCounters) -> None: ...

    def spent(self, service: str, provider: str, usage: Usage) -> None: ...
    def provider_event(self, event: ProviderEvent) -> None: ...
