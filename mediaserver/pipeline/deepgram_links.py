"""The link of a call's chain that transcribes while the caller speaks: Deepgram's live transcription."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from urllib.parse import urlencode

from mediaserver.providers.breaker import BreakerKey
from mediaserver.providers.connections import ProviderClient
from mediaserver.providers.live_listening import LiveListening
from mediaserver.providers.utterance import BYTES_PER_MS, SPEECH_RATE_HZ, Utterance
from tenancy.spending import Usage
from vault.resolver import KeyRef


@dataclass(slots=True)
class DeepgramTranscriber:
    """A transcription provider that listens. `open` it when the call begins, `close` it when it is over."""

    name: str
    http: ProviderClient
    root: str
    key: str
    model: str
    breaker: BreakerKey
    last_resort: bool = False
    key_ref: KeyRef | None = None
    spent: Callable[[Usage], None] = lambda _: None
    """Told of the audio that was sent: after each utterance, and of the rest in the end."""
    _counted_ms: int = field(init=False, default=0)
    _listening: LiveListening = field(init=False)

    def __post_init__(self) -> None:
        asked = {
            "model": self.model,
            "language": "en",
            "encoding": "linear16",
            "sample_rate": SPEECH_RATE_HZ,
            "channels": 1,
            "punctuate": "true",
            "interim_results": "false",
            # Where an utterance ends is ours to say: results are final when they are asked for.
            "endpointing": "false",
        }
        url = f"{self.root.rstrip('/')}/listen?{urlencode(asked)}"
        headers = {"Authorization": f"Token {self.key}"} if self.key else {}
        self._listening = LiveListening(self.http, url, headers)

    def open(self) -> None:
        """Begin to connect; returns at once."""
        self._listening.open()

    def hear(self, number: int, pcm: bytes, said_bytes: int) -> None:
        """The next audio of utterance ``number``, of which ``said_bytes`` are said with it; returns at once."""
        self._listening.hear(number, pcm, said_bytes)

    async def transcribe(self, utterance: Utterance) -> AsyncGenerator[str, None]:
        """The words of an utterance, in one piece; empty when there are none."""
        try:
            words = await self._listening.words(utterance)
        finally:
            self._count()
        yield words

    async def close(self) -> None:
        """End the connection."""
        await self._listening.close()
        self._count()

    def _count(self) -> None:
        sent_ms = self._listening.sent_bytes // BYTES_PER_MS
        if sent_ms > self._counted_ms:
            self.spent(Usage(audio_ms=sent_ms - self._counted_ms))
            self._counted_ms = sent_ms
