"""Where a machine stops keeping up, found from trials that may lie: pure decisions, no clock and no I/O.

A trial at some rate either holds or does not. Far below the limit it nearly always holds, far above it hardly ever
does, and near it luck decides: the machine is shared. So nothing is decided by one trial. What is believed is a table
over three unknowns:

- the limit: the rate at which a trial holds as often as not;
- the width: by what factor the rate must change for "holds" to turn into "does not", along a logistic curve;
- the lapse: how often a trial says the opposite of what it should, wherever it is.

A trial multiplies each entry by the probability with which it would have come out so (Bayes), and the next one is made
where it is expected to tell most about the limit. This is probabilistic bisection (Horstein 1963; Waeber, Frazier,
Henderson 2013) in which the reliability of a trial is not assumed: width and lapse are learned along, and summed over
when the interval of the limit is asked for. Where both are small it is bisection.

Sources: Horstein, IEEE Trans. Inf. Theory 9, 136; Waeber et al., SIAM J. Control Optim. 51, 2261; the three unknowns
and the choice of the next trial: Kontsevich, Tyler, Vision Research 39, 2729 (1999).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlogy

WIDTHS = (0.003, 0.01, 0.03, 0.1, 0.2)
"""In natural logarithms of the rate: from 12 to 88 % within four of them (of 0.1: a factor of 1.5)."""
LAPSES = (0.01, 0.05, 0.1, 0.2)
_BEYOND = 2.0
"""Limits are thought possible up to this factor outside the rates that are tried, so that an edge can be told."""
_CELLS_PER_TOLERANCE = 8
_ASKED = np.linspace(0.025, 0.975, 20)
"""Quantiles of the limit among which the next trial is chosen."""
_TRIALS_MIN = 5
"""What is believed before the first trial is no measurement."""


class Search:
    """Try `next_rate`, `tell` what came of it, until `done`.

    Args:
        low, high: Rates between which trials are made.
        tolerance: Stop when the limit is known this well: upper over lower end of its interval, less one.
        confidence: Of that interval.
        max_trials: Stop after so many at the latest.

    Attributes:
        trials: Rate of each trial so far, and whether it held.
        next_rate: Where to try next.
    """

    def __init__(self, low: float, high: float, tolerance: float, confidence: float, max_trials: int) -> None:
        self.low, self.high = low, high
        self.tolerance, self.confidence, self.max_trials = tolerance, confidence, max_trials
        self.trials: list[tuple[float, bool]] = []
        inside = math.ceil(math.log(high / low) / math.log1p(tolerance) * _CELLS_PER_TOLERANCE)
        step = math.log(high / low) / inside
        beyond = math.ceil(math.log(_BEYOND) / step)
        self._first, self._last = beyond, beyond + inside
        self._limits = math.log(low) + step * np.arange(-beyond, inside + beyond + 1)
        # How probably a trial holds, by lapse, width, and how far the limit lies above its rate.
        distances = step * np.arange(1 - len(self._limits), len(self._limits))
        chance = expit(distances / np.array(WIDTHS)[:, np.newaxis])
        lapses = np.array(LAPSES)[:, np.newaxis, np.newaxis]
        self._holds: NDArray[np.float64] = lapses + (1 - 2 * lapses) * chance
        self._belief = np.full((len(LAPSES), len(WIDTHS), len(self._limits)), 1 / self._limits.size)
        self._choose()

    def tell(self, held: bool) -> None:
        """Whether the trial at `next_rate` has held."""
        self.trials.append((self.next_rate, held))
        holds = self._chances(self._next)
        self._belief *= holds if held else 1 - holds
        self._belief /= self._belief.sum()
        self._choose()

    @property
    def estimate(self) -> float:
        """The median of the limit, or the edge beyond which it lies."""
        return min(max(self._quantile(0.5), self.low), self.high)

    def interval(self, confidence: float | None = None) -> tuple[float, float]:
        """Between these rates the limit lies with `confidence` (default: the search's own), as much left on each side.

        May reach beyond the rates that are tried, where they do not bound it.
        """
        left_out = (1 - (self.confidence if confidence is None else confidence)) / 2
        return self._quantile(left_out), self._quantile(1 - left_out)

    @property
    def edge(self) -> str | None:
        """ "low" or "high" where the limit lies beyond that edge with `confidence`, else None."""
        cumulative = self._cumulative()
        if cumulative[self._first] >= self.confidence:
            return "low"
        return "high" if 1 - cumulative[self._last - 1] >= self.confidence else None

    @property
    def known(self) -> bool:
        """Whether the limit is known as well as was asked for, or to lie beyond an edge."""
        low, high = self.interval()
        return len(self.trials) >= _TRIALS_MIN and (high <= low * (1 + self.tolerance) or self.edge is not None)

    @property
    def done(self) -> bool:
        """Whether to stop."""
        return self.known or len(self.trials) >= self.max_trials

    @property
    def why(self) -> str:
        """How it was decided, in words."""
        low, high = self.interval()
        held = sum(held for _, held in self.trials)
        text = f"{held} of {len(self.trials)} trials held"
        if self.edge == "low":
            return f"{text}; the limit lies below {self.low:.4g}, the lowest rate to try"
        if self.edge == "high":
            return f"{text}; the limit lies above {self.high:.4g}, the highest rate to try"
        text += f"; with {100 * self.confidence:g} % the limit lies between {low:.4g} and {high:.4g}"
        return text if self.known else f"{text}; not as narrow as was asked for, but all trials are used up"

    def _choose(self) -> None:
        """Find the next trial: of the limit's quantiles the one that is expected to leave least open."""
        places = np.searchsorted(self._cumulative(), _ASKED)
        candidates = np.unique(np.clip(places, self._first, self._last)).tolist()
        self._next = min(candidates, key=self._entropy_after)
        self.next_rate = min(max(float(np.exp(self._limits[self._next])), self.low), self.high)

    def _entropy_after(self, place: int) -> float:
        """The entropy of the limit that is expected after a trial there, in nats."""
        before = self._belief.sum(axis=(0, 1))
        held = (self._belief * self._chances(place)).sum(axis=(0, 1))
        return -sum(float(xlogy(limit, limit / limit.sum()).sum()) for limit in (held, before - held))

    def _chances(self, place: int) -> NDArray[np.float64]:
        """How probably a trial there holds, for every entry of the table."""
        start = len(self._limits) - 1 - place
        return self._holds[:, :, start : start + len(self._limits)]

    def _cumulative(self) -> NDArray[np.float64]:
        """Probability that the limit is at most each of `_limits`, float64, same shape."""
        weights = self._belief.sum(axis=(0, 1))
        cumulative: NDArray[np.float64] = np.cumsum(weights) / weights.sum()
        return cumulative

    def _quantile(self, fraction: float) -> float:
        return float(np.exp(np.interp(fraction, self._cumulative(), self._limits)))
