"""What samples say, and what they do not: exact intervals, percentiles with blanks, spreads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
TAIL_SAMPLES_MIN = 10
"""A percentile is stated only where so many samples lie above it: with ten, its rank is known within a third."""
ERRORS_MIN = 100
"""An error rate is stated only with so many errors (its standard deviation is then a tenth); else an upper bound."""


def exact_interval(errors: int, shots: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a probability. Covers at least as often as it says.

    Source: Clopper, Pearson, Biometrika 26, 404 (1934).
    """
    if shots == 0:
        return 0.0, 1.0
    interval = stats.binomtest(errors, shots).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def per_round(per_shot: float, num_rounds: int) -> float:
    """The error probability of one round whose `num_rounds` independent repetitions give `per_shot`.

    1 - 2 P = (1 - 2 p) ** num_rounds; a shot that is wrong half of the time or more says nothing: 0.5.
    """
    return 0.5 if per_shot >= 0.5 else float(-np.expm1(np.log1p(-2 * per_shot) / num_rounds) / 2)


def mcnemar_p(worse: int, better: int) -> float:
    """Exact two-sided test that two decoders that disagree are equally often right.

    Source: McNemar, Psychometrika 12, 153 (1947).
    """
    return float(stats.binomtest(worse, worse + better).pvalue) if worse + better else 1.0


def percentiles(samples: ArrayLike) -> dict[str, float | int | None]:
    """p50 to p99.99, mean, max and count; None where the samples do not carry one."""
    ordered = np.sort(np.asarray(samples, np.float64))
    summary: dict[str, float | int | None] = {}
    for name, fraction in PERCENTILES.items():
        above = len(ordered) * (1 - fraction)
        carried = above >= TAIL_SAMPLES_MIN - 1e-9
        summary[name] = float(ordered[int(np.ceil(fraction * len(ordered))) - 1]) if carried else None
    return summary | {
        "mean": float(ordered.mean()) if len(ordered) else None,
        "max": float(ordered[-1]) if len(ordered) else None,
        "count": len(ordered),
    }


def ccdf(samples: ArrayLike, points: int = 200) -> list[tuple[float, float]]:
    """(value, fraction of samples that are larger), at most `points` of them, even in the logarithm of the rank."""
    ordered = np.sort(np.asarray(samples, np.float64))
    if not len(ordered):
        return []
    above = np.unique(np.geomspace(1, len(ordered), points).astype(np.int64))[::-1]
    values: NDArray[np.float64] = ordered[len(ordered) - above]
    return [(float(value), float(rank - 1) / len(ordered)) for value, rank in zip(values, above, strict=True)]


def spread(values: list[float]) -> dict[str, Any]:
    """Median, least and most of repeated measurements, and how far apart they are for their median."""
    middle = float(np.median(values))
    low, high = float(min(values)), float(max(values))
    return {
        "median": middle,
        "min": low,
        "max": high,
        "relative": (high - low) / middle if middle else None,
        "repeats": len(values),
    }
