"""What can be wrong with a network: models of loss and delay, and the whole of it. Shares are 0 to 1, times are ms."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

PACKET_MS = 20.0
"""Distance of the packets in a trace file."""


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}, not a share from 0 to 1")


# -- loss ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bernoulli:
    """Each packet is lost with the same chance."""

    loss: float = 0.0

    def __post_init__(self) -> None:
        _share("loss", self.loss)


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Loss in bursts: two states, good and bad, each with its own loss (Elliott, Bell System Technical Journal 42, 1963)."""

    to_bad: float
    """Chance that a packet finds the network turned bad."""
    to_good: float
    loss_good: float = 0.0
    loss_bad: float = 1.0

    def __post_init__(self) -> None:
        for name in ("to_bad", "to_good", "loss_good", "loss_bad"):
            _share(name, getattr(self, name))

    @property
    def mean_loss(self) -> float:
        """Loss in the long run."""
        turns = self.to_bad + self.to_good
        bad = self.to_bad / turns if turns else 0.0
        return bad * self.loss_bad + (1 - bad) * self.loss_good


# -- delay ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Constant:
    """The same for every packet."""

    delay_ms: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.delay_ms < math.inf:
            raise ValueError(f"a delay of {self.delay_ms} ms")

    def at(self, share: float) -> float:  # noqa: ARG002 - the signature of all distributions
        """The delay that this share of the packets does not exceed."""
        return self.delay_ms


@dataclass(frozen=True, slots=True)
class Uniform:
    """Anything between two bounds."""

    least_ms: float
    most_ms: float

    def __post_init__(self) -> None:
        if not 0 <= self.least_ms <= self.most_ms < math.inf:
            raise ValueError(f"a delay from {self.least_ms} to {self.most_ms} ms")

    def at(self, share: float) -> float:
        """The delay that this share of the packets does not exceed."""
        return self.least_ms + share * (self.most_ms - self.least_ms)


@dataclass(frozen=True, slots=True)
class Normal:
    """Around a mean, never negative."""

    mean_ms: float
    deviation_ms: float

    def __post_init__(self) -> None:
        if not (0 <= self.mean_ms < math.inf and 0 < self.deviation_ms < math.inf):
            raise ValueError(f"a delay of {self.mean_ms} ms, give or take {self.deviation_ms}")

    def at(self, share: float) -> float:
        """The delay that this share of the packets does not exceed."""
        # Neither end of the bell is in reach.
        share = min(max(share, 1e-12), 1 - 1e-12)
        return max(0.0, NormalDist(self.mean_ms, self.deviation_ms).inv_cdf(share))


@dataclass(frozen=True, slots=True)
class Pareto:
    """A least delay and a heavy tail above it, as queues make it."""

    least_ms: float
    shape: float
    most_ms: float = 2_000.0

    def __post_init__(self) -> None:
        if not (0 < self.least_ms <= self.most_ms < math.inf and self.shape > 0):
            raise ValueError(f"a delay of {self.least_ms} to {self.most_ms} ms with a tail of {self.shape}")

    def at(self, share: float) -> float:
        """The delay that this share of the packets does not exceed."""
        return float(min(self.most_ms, self.least_ms / (1 - share) ** (1 / self.shape)))


@dataclass(frozen=True, slots=True)
class Trace:
    """A recorded network: the delay of each packet above the least, None where it was lost; again from the start after the end."""

    delays_ms: tuple[float | None, ...]

    def __post_init__(self) -> None:
        if not self.delays_ms:
            raise ValueError("a trace without packets")
        if any(delay is not None and not 0 <= delay < math.inf for delay in self.delays_ms):
            raise ValueError("a trace with a negative or endless delay")

    def of(self, index: int) -> float | None:
        """The delay of a packet; None: lost."""
        return self.delays_ms[index % len(self.delays_ms)]

    def part(self, begin: int, count: int) -> Trace:
        """Some packets of it."""
        return Trace(self.delays_ms[begin : begin + count])


def read_trace(path: Path) -> Trace:
    """A file of ``tests/traces_network``: arrival times in ms of packets that left every 20 ms, ``NaN`` for lost ones."""
    arrivals_ms = [float(line) for line in path.read_text().split()]
    transit_ms = [at - index * PACKET_MS for index, at in enumerate(arrivals_ms)]
    least_ms = min(transit for transit in transit_ms if not math.isnan(transit))
    return Trace(tuple(None if math.isnan(transit) else transit - least_ms for transit in transit_ms))


# -- the whole -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Impairment:
    """Everything that one direction of a network does."""

    loss: Bernoulli | GilbertElliott = field(default_factory=Bernoulli)
    delay: Constant | Uniform | Normal | Pareto | Trace = field(default_factory=Constant)
    """A trace decides about loss as well, beside `loss`."""
    reorder: float = 0.0
    """Share of packets that are held back for `reorder_ms`, so that later ones pass; all others stay in order."""
    reorder_ms: float = 30.0
    duplicate: float = 0.0
    """Share of packets that come twice."""
    duplicate_ms: float = 1.0
    """How much later the second comes."""
    corrupt: float = 0.0
    """Share of packets in which one bit is flipped."""
    rate_bps: int = 0
    """Bits of payload per second that get through; 0: no cap."""
    queue_ms: float = 200.0
    """What would wait longer than this for the cap is dropped."""

    def __post_init__(self) -> None:
        for name in ("reorder", "duplicate", "corrupt"):
            _share(name, getattr(self, name))
        for name in ("reorder_ms", "duplicate_ms", "rate_bps", "queue_ms"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}")
