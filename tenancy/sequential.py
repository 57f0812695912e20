"""Bounds on a mean that hold at every number of observations at once, so that one may look after each. Sans-IO.

A fixed-sample confidence interval that is looked at after every call is wrong in the end with certainty. These are
confidence sequences: the chance that the true mean is ever on the wrong side of a bound is at most ``alpha``, over all
time (Ville's inequality on a non-negative supermartingale), whenever one stops.

- `RateTally`, for yes and no: the beta-binomial mixture likelihood ratio (Robbins 1970; Howard, Ramdas, McAuliffe and
  Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49, 2021), with
  Jeffreys' prior.
- `MeanTally`, for values in [0, 1]: the predictable plug-in empirical Bernstein sequence (Waudby-Smith and Ramdas,
  "Estimating means of bounded random variables by betting", JRSS B 86, 2024, theorem 2), which is narrow where values
  vary little.

Both assume that each observation has the same mean given those before it; nothing is assumed of their distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log, log1p, sqrt
from typing import Final

_PRIOR: Final = 0.5
_LOG_BETA_OF_PRIOR: Final = 2 * lgamma(_PRIOR) - lgamma(2 * _PRIOR)
_BISECTIONS: Final = 32
"""A bound is exact to 2**-32."""
_TUNED_ALPHA: Final = 0.01
"""The level at which the weights of `MeanTally` are best; its bounds hold at any."""
_LARGEST_BET: Final = 0.5


@dataclass(frozen=True, slots=True)
class RateTally:
    """How many of independent trials were hits."""

    n: int = 0
    hits: int = 0

    def plus(self, value: float) -> RateTally:
        """Count one trial; ``value`` is 1 for a hit and 0 for none."""
        return RateTally(self.n + 1, self.hits + (value > 0))

    @property
    def mean(self) -> float:
        """The share of hits; 0 before any trial."""
        return self.hits / self.n if self.n else 0.0

    def lower(self, alpha: float) -> float:
        """What the true rate is at least."""
        if self.hits == 0:
            return 0.0
        return self._edge(alpha, 0.0, self.mean)

    def upper(self, alpha: float) -> float:
        """What the true rate is at most."""
        if self.hits == self.n:
            return 1.0
        return self._edge(alpha, 1.0, self.mean)

    def _edge(self, alpha: float, outside: float, inside: float) -> float:
        """Bisect for the rate at which the mixture's wealth reaches 1/alpha; never on the inner side of it."""
        misses = self.n - self.hits
        mixture = lgamma(_PRIOR + self.hits) + lgamma(_PRIOR + misses) - lgamma(2 * _PRIOR + self.n)
        limit = mixture - _LOG_BETA_OF_PRIOR + log(alpha)
        for _ in range(_BISECTIONS):
            rate = (outside + inside) / 2
            likelihood = (self.hits * log(rate) if self.hits else 0.0) + (
                misses * log1p(-rate) if misses else 0.0
            )
            if likelihood <= limit:
                outside = rate
            else:
                inside = rate
        return outside


@dataclass(frozen=True, slots=True)
class MeanTally:
    """What is to be kept of values in [0, 1] for bounds on their mean."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    """Squared distances from the mean as it was estimated with each value."""
    weights: float = 0.0
    weighted: float = 0.0
    penalty: float = 0.0

    def plus(self, value: float) -> MeanTally:
        """Count one value. Raises `ValueError` outside [0, 1]."""
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"value: 0 to 1, not {value!r}")
        n = self.n + 1
        before = (0.5 + self.total) / n
        variance = (0.25 + self.squares) / n
        bet = min(_LARGEST_BET, sqrt(2 * log(1 / _TUNED_ALPHA) / (variance * n * log1p(n))))
        after = (0.5 + self.total + value) / (n + 1)
        return MeanTally(
            n,
            self.total + value,
            self.squares + (value - after) ** 2,
            self.weights + bet,
            self.weighted + bet * value,
            self.penalty + (value - before) ** 2 * (-log1p(-bet) - bet),
        )

    @property
    def mean(self) -> float:
        """The arithmetic mean; 0 before any value."""
        return self.total / self.n if self.n else 0.0

    def lower(self, alpha: float) -> float:
        """What the true mean is at least."""
        return max(0.0, (self.weighted - self._reach(alpha)) / self.weights) if self.n else 0.0

    def upper(self, alpha: float) -> float:
        """What the true mean is at most."""
        return min(1.0, (self.weighted + self._reach(alpha)) / self.weights) if self.n else 1.0

    def _reach(self, alpha: float) -> float:
        return log(1 / alpha) + self.penalty
