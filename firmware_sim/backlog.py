"""The backlog while the source still sends: rounds sent, less rounds that corrections have covered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

_BLOCKS = 20
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class BacklogSummary:
    """What the samples say.

    Attributes:
        median_last_tenth: Rounds.
        slope_per_s: Rounds per second over the last half, a line through the means of equal blocks of it, so that
            neighbouring samples, which know of each other, do not pass for independent ones.
        slope_interval: Its two-sided 95 % interval.
        max: Rounds.
        samples: How many.
    """

    median_last_tenth: float | None
    slope_per_s: float | None
    slope_interval: tuple[float, float] | None
    max: int | None
    samples: int


def summarise(times_s: list[float], rounds: list[int]) -> BacklogSummary:
    """Summarise backlog samples.

    Args:
        times_s: When each was taken.
        rounds: Rounds of backlog of the patch that is furthest behind.
    """
    if not rounds:
        return BacklogSummary(None, None, None, None, 0)
    values = np.array(rounds, float)
    median = float(np.median(values[-max(1, len(values) // 10) :]))
    slope = interval = None
    half = len(values) // 2
    if len(values) - half >= 2 * _BLOCKS:
        blocks = np.array_split(np.arange(half, len(values)), _BLOCKS)
        times = np.array(times_s)
        fit = stats.linregress([times[b].mean() for b in blocks], [values[b].mean() for b in blocks])
        margin = float(stats.t.ppf((1 + _CONFIDENCE) / 2, _BLOCKS - 2) * fit.stderr)
        slope = float(fit.slope)
        interval = (slope - margin, slope + margin)
    return BacklogSummary(median, slope, interval, int(values.max()), len(values))
