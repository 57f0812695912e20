"""One direction of a bad network, sans-IO: packets go in with the time, and come out when they are due.

Rules:

* what happens to packet number n follows from the seed and n alone: not from its size, nor from when it came, except
  that a cap of the rate drops what would wait too long;
* packets that are not held back on purpose leave in the order in which they came, however their delays were drawn;
* no more than `LIMIT` packets are on the way; more are dropped and counted.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from perf.impairment.draws import Question, bits, uniform
from perf.impairment.models import GilbertElliott, Impairment, Trace

LIMIT = 4096
"""Packets on the way."""
US = 1000


@dataclass(frozen=True, slots=True)
class Fate:
    """What the seed has decided about a packet, the cap of the rate aside."""

    lost: bool
    delay_us: int
    held_back: bool
    """`delay_us` has the time for that in it."""
    twice: bool
    flipped: int | None
    """64 random bits that name the bit to flip (modulo the packet's); None: whole."""


@dataclass(slots=True)
class LinkStats:
    """What became of the packets."""

    offered: int = 0
    delivered: int = 0
    """Second copies too."""
    lost: int = 0
    over_rate: int = 0
    over_limit: int = 0
    duplicated: int = 0
    held_back: int = 0
    corrupted: int = 0


class Link:
    """One direction; the time is an argument, in microseconds of any clock that does not go back."""

    def __init__(self, impairment: Impairment, seed: int) -> None:
        self._impairment = impairment
        self._seed = seed
        self._bad = False
        self._index = 0
        self._order_us = 0
        """Nothing that stays in order leaves before this."""
        self._free_us = 0
        """When the capped line has sent all that it has taken."""
        self._on_the_way: list[tuple[int, int, bytes]] = []
        self._pushed = 0
        self.stats = LinkStats()

    def push(self, now_us: int, datagram: bytes) -> None:
        """Take the next packet."""
        fate = self._decide()
        self.stats.offered += 1
        if fate.lost:
            self.stats.lost += 1
            return
        sent_us = self._through_the_cap(now_us, len(datagram))
        if sent_us is None:
            self.stats.over_rate += 1
            return
        due_us = sent_us + fate.delay_us
        if fate.held_back:
            self.stats.held_back += 1
        else:
            due_us = self._order_us = max(due_us, self._order_us)
        if fate.flipped is not None and datagram:
            self.stats.corrupted += 1
            datagram = _flip(datagram, fate.flipped)
        self._send(due_us, datagram)
        if fate.twice:
            self.stats.duplicated += 1
            self._send(due_us + int(self._impairment.duplicate_ms * US), datagram)

    def pop(self, now_us: int) -> list[bytes]:
        """The packets that are due, in the order in which they arrive."""
        arrived = []
        while self._on_the_way and self._on_the_way[0][0] <= now_us:
            arrived.append(heapq.heappop(self._on_the_way)[2])
        self.stats.delivered += len(arrived)
        return arrived

    @property
    def due_us(self) -> int | None:
        """When the next packet arrives; None: nothing is on the way."""
        return self._on_the_way[0][0] if self._on_the_way else None

    def _send(self, due_us: int, datagram: bytes) -> None:
        if len(self._on_the_way) >= LIMIT:
            self.stats.over_limit += 1
            return
        # Of those that are due at once the first to come is the first to leave.
        heapq.heappush(self._on_the_way, (due_us, self._pushed, datagram))
        self._pushed += 1

    def _through_the_cap(self, now_us: int, octets: int) -> int | None:
        rate_bps = self._impairment.rate_bps
        if rate_bps == 0:
            return now_us
        begin_us = max(now_us, self._free_us)
        if begin_us - now_us > self._impairment.queue_ms * US:
            return None
        self._free_us = begin_us + octets * 8 * 1_000_000 // rate_bps
        return self._free_us

    def _decide(self) -> Fate:
        index, impairment = self._index, self._impairment
        self._index += 1

        def chance(question: Question, share: float) -> bool:
            return uniform(self._seed, index, question) < share

        lost = self._loses(index)
        if isinstance(impairment.delay, Trace):
            traced_ms = impairment.delay.of(index)
            lost, delay_ms = lost or traced_ms is None, traced_ms or 0.0
        else:
            delay_ms = impairment.delay.at(uniform(self._seed, index, Question.DELAY))
        held_back = chance(Question.REORDER, impairment.reorder)
        if held_back:
            delay_ms += impairment.reorder_ms
        return Fate(
            lost=lost,
            delay_us=int(delay_ms * US),
            held_back=held_back,
            twice=chance(Question.DUPLICATE, impairment.duplicate),
            flipped=bits(self._seed, index, Question.BIT)
            if chance(Question.CORRUPT, impairment.corrupt)
            else None,
        )

    def _loses(self, index: int) -> bool:
        model = self._impairment.loss
        drawn = uniform(self._seed, index, Question.LOSS)
        if not isinstance(model, GilbertElliott):
            return drawn < model.loss
        turns = uniform(self._seed, index, Question.STATE)
        self._bad = turns >= model.to_good if self._bad else turns < model.to_bad
        return drawn < (model.loss_bad if self._bad else model.loss_good)


def _flip(datagram: bytes, drawn: int) -> bytes:
    place = drawn % (len(datagram) * 8)
    flipped = bytearray(datagram)
    flipped[place // 8] ^= 1 << place % 8
    return bytes(flipped)
