"""What a test call found, for people and as JSON."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Exchange:
    """One question and what came back."""

    asked: str
    heard: str | None
    latency_ms: int | None


@dataclass(slots=True)
class CallReport:
    """The whole call."""

    target: str
    requested: int = 0
    """How many things were to be said."""
    answered: bool = False
    status: int | None = None
    reason: str = ""
    codec: str | None = None
    """What both sides agreed on."""
    encrypted: bool = False
    """Whether media were SRTP."""
    setup_ms: int | None = None
    """INVITE sent to 200 received; on the web, session asked for to answer received."""
    greeting: str | None = None
    greeting_ms: int | None = None
    """From `connected_by` to the first audible packet."""
    connected_by: str = "ACK"
    """What made the call one that can be heard."""
    exchanges: list[Exchange] = field(default_factory=list)
    recording: Path | None = None
    packets_received: int = 0
    packets_lost: int = 0

    @property
    def success(self) -> bool:
        """Whether the call was answered and every question was."""
        return (
            self.answered
            and bool(self.exchanges)
            and len(self.exchanges) >= self.requested
            and all(exchange.latency_ms is not None for exchange in self.exchanges)
        )

    @property
    def latencies_ms(self) -> list[int]:
        """The latency of each answered turn."""
        return [exchange.latency_ms for exchange in self.exchanges if exchange.latency_ms is not None]

    def as_dict(self) -> dict[str, object]:
        """The report for ``--json``; keys are the field names."""
        document = asdict(self)
        document["recording"] = str(self.recording) if self.recording else None
        document["success"] = self.success
        latencies = self.latencies_ms
        document["turn_latency_median_ms"] = int(statistics.median(latencies)) if latencies else None
        return document

    def summary(self) -> str:
        """The last lines of the printout."""
        if not self.answered:
            return f"not answered: {self.status or ''} {self.reason}".replace(":  ", ": ").rstrip()
        lines = [
            f"greeting {self.greeting_ms} ms after {self.connected_by}"
            if self.greeting_ms is not None
            else "no greeting"
        ]
        if self.latencies_ms:
            values = ", ".join(f"{value} ms" for value in self.latencies_ms)
            lines.append(f"turn latency on the wire (last speech packet -> first answer packet): {values}")
        media = f"{self.codec} in {'SRTP' if self.encrypted else 'plain RTP'}"
        lines.append(f"{self.packets_received} packets received, {self.packets_lost} lost ({media})")
        if self.recording is not None:
            lines.append(f"recording: {self.recording} (left: the receptionist, right: you)")
        return "\n".join(lines)
