"""One caller's end of the wire without a media engine in between: what was sent and what came, with the kernel's times."""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from perf.audio import FRAME, PACKET_US, SILENCE, audible, packet

SO_TIMESTAMPNS = 35
"""Linux socket(7); Python has no name for it."""
TIMESPEC = struct.Struct("@qq")
RTP_HEADER_BYTES = 12
PAUSE_US = 450_000
"""Quiet that ends a stretch of the receptionist's speech."""


def now_us() -> int:
    """The media engine's clock."""
    return time.monotonic_ns() // 1000


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet that came in."""

    at_us: float
    sequence: int
    sounds: bool


@dataclass(slots=True)
class Spoken:
    """One utterance of the caller, in times of the wire."""

    first_us: int
    last_us: int = 0


class When(StrEnum):
    """When a caller speaks."""

    IN_TURN = "in-turn"
    OVER_THE_ANSWER = "barge-in"


@dataclass(slots=True)
class RawLine:
    """A socket, the packets of both directions, and when to speak."""

    utterances: list[list[bytes]]
    when: When
    not_before_us: int = 0
    """The first moment to speak, and after each utterance the next one."""
    period_us: int = 0
    barge_in_after_us: int = 600_000
    turns: int = 0
    """Utterances left to say."""
    arrivals: list[Arrival] = field(default_factory=list)
    spoken: list[Spoken] = field(default_factory=list)
    targets: list[tuple[str, int]] = field(default_factory=list)
    """Where every packet goes; the first is the server and the only one that is listened to."""
    _saying: deque[bytes] = field(default_factory=deque)
    _sent: int = 0
    _sounding_since_us: float | None = None
    _sounded_at_us: float = 0.0
    _socket: socket.socket = field(init=False)
    _to_monotonic_us: float = field(init=False)

    def __post_init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._to_monotonic_us = (time.monotonic_ns() - time.time_ns()) / 1000

    @property
    def address(self) -> tuple[str, int]:
        """Our end."""
        host, port = self._socket.getsockname()
        return str(host), int(port)

    @property
    def greeted(self) -> bool:
        """The receptionist has spoken and ended."""
        return self._quiet_since(now_us())

    @property
    def finished(self) -> bool:
        """Everything is said and the last answer has ended or been begun long enough."""
        return self.turns == 0 and not self._saying and self._quiet_since(now_us())

    def fileno(self) -> int:
        """For the loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    def receive(self) -> None:
        """Take what has come."""
        while True:
            try:
                datagram, ancillary, _, source = self._socket.recvmsg(2048, 64)
            except BlockingIOError:
                return
            if not self.targets or source != self.targets[0]:
                continue
            at_us = float(now_us())
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    seconds, nanoseconds = TIMESPEC.unpack(data[: TIMESPEC.size])
                    at_us = seconds * 1e6 + nanoseconds / 1000 + self._to_monotonic_us
            self._arrived(
                Arrival(at_us, int.from_bytes(datagram[2:4], "big"), audible(datagram[RTP_HEADER_BYTES:]))
            )

    def _arrived(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        if not arrival.sounds:
            return
        if self._sounding_since_us is None or arrival.at_us - self._sounded_at_us > PAUSE_US:
            self._sounding_since_us = arrival.at_us
        self._sounded_at_us = arrival.at_us

    def _quiet_since(self, now: float) -> bool:
        """The receptionist has spoken and fallen silent, after the caller's last words."""
        last_us = self.spoken[-1].last_us if self.spoken else 0
        return self._sounded_at_us > last_us and now - self._sounded_at_us > PAUSE_US

    def _may_speak(self, now: float) -> bool:
        if self._saying or self.turns == 0 or now < self.not_before_us or self._sounding_since_us is None:
            return False
        if self.when is When.IN_TURN:
            return self._quiet_since(now)
        last_us = self.spoken[-1].last_us if self.spoken else 0
        sounding = now - self._sounded_at_us < 2 * PACKET_US
        return (
            sounding
            and self._sounding_since_us > last_us
            and now - self._sounding_since_us > self.barge_in_after_us
        )

    def tick(self) -> None:
        """Send the packet of these 20 ms."""
        now = now_us()
        if self._may_speak(now):
            self._saying.extend(self.utterances[self.turns % len(self.utterances)])
            self.turns -= 1
            self.not_before_us = now + self.period_us
            self.spoken.append(Spoken(now))
        speaking = bool(self._saying)
        payload = self._saying.popleft() if speaking else SILENCE
        datagram = packet(self._sent, self._sent * FRAME, 0x5EED, payload)
        self._sent += 1
        if speaking:
            self.spoken[-1].last_us = now_us()
        for target in self.targets:
            self._socket.sendto(datagram, target)
