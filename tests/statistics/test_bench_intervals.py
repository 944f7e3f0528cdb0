"""What the bench says of an error rate is true as often as it says: intervals cover, tests do not cry wolf."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.estimates import exact_interval, mcnemar_p, per_round

pytestmark = pytest.mark.statistics
SEED = 20261121
REPEATS = 4000
SHOTS = 200
ERROR_RATE = 1e-4
"""Each test draws with a fixed seed; with any other one it would fail by chance at most so often."""


def misses_max(probability: float, num_checks: int) -> int:
    """Misses in `REPEATS` trials that an event of at most this probability exceeds too rarely to matter."""
    return int(stats.binom.isf(ERROR_RATE / num_checks, REPEATS, probability))


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_exact_intervals_cover(confidence: float) -> None:
    """Drawn shots: either end misses the truth at most in half of what the confidence leaves, wherever the truth is."""
    rng = np.random.default_rng(SEED)
    ends = np.array([exact_interval(errors, SHOTS, confidence) for errors in range(SHOTS + 1)])
    grid = (0.0005, 0.003, 0.01, 0.05, 0.2, 0.4, 0.5, 0.9)
    bound = misses_max((1 - confidence) / 2, 2 * len(grid))
    for probability in grid:
        low, high = ends[rng.binomial(SHOTS, probability, REPEATS)].T
        assert (low > probability).sum() <= bound
        assert (high < probability).sum() <= bound


def test_exact_intervals_cover_by_sum() -> None:
    """The same without chance: the probabilities of all counts whose interval holds the truth sum to 95 % or more."""
    ends = np.array([exact_interval(errors, SHOTS) for errors in range(SHOTS + 1)])
    for probability in np.linspace(0.0005, 0.9995, 400):
        holds = (ends[:, 0] <= probability) & (probability <= ends[:, 1])
        assert stats.binom.pmf(np.arange(SHOTS + 1), SHOTS, probability)[holds].sum() >= 0.95 - 1e-9


@pytest.mark.parametrize("probability", [0.02, 0.1])
def test_intervals_cover_where_errors_end_the_sampling(probability: float) -> None:
    """Shots are drawn until there are 20 errors: either end still misses at most 2.5 % of the time."""
    rng = np.random.default_rng(SEED)
    shots, times = np.unique(20 + rng.negative_binomial(20, probability, REPEATS), return_counts=True)
    low, high = np.array([exact_interval(20, int(count)) for count in shots]).T
    bound = misses_max(0.025, 4)
    assert times[low > probability].sum() <= bound
    assert times[high < probability].sum() <= bound


def test_intervals_per_round_cover() -> None:
    """Rounds drawn one by one: the interval per shot, taken to one round, misses at most 5 % of the time."""
    rng = np.random.default_rng(SEED)
    probability, num_rounds = 0.004, 21
    ends = np.array([exact_interval(errors, SHOTS) for errors in range(SHOTS + 1)])
    flips = np.zeros((REPEATS, SHOTS), np.bool_)
    for _ in range(num_rounds):
        flips ^= rng.random((REPEATS, SHOTS)) < probability
    low, high = ends[flips.sum(axis=1)].T
    missed = [
        not per_round(float(a), num_rounds) <= probability <= per_round(float(b), num_rounds)
        for a, b in zip(low, high, strict=True)
    ]
    assert sum(missed) <= misses_max(0.05, 1)


def test_an_interval_can_miss() -> None:
    """The tests above can fail: an interval made for another probability misses nearly always."""
    rng = np.random.default_rng(SEED)
    low, _ = np.array([exact_interval(errors, SHOTS) for errors in range(SHOTS + 1)])[rng.binomial(SHOTS, 0.2, 100)].T
    assert (low > 0.1).mean() > 0.9


@pytest.mark.parametrize("disagreements", [5, 40, 300])
def test_mcnemar_does_not_cry_wolf(disagreements: int) -> None:
    """Where worse and better are equally likely, p is below 5 % in at most 5 % of the trials; else it is seen."""
    rng = np.random.default_rng(SEED)
    alarms = np.array([mcnemar_p(worse, disagreements - worse) < 0.05 for worse in range(disagreements + 1)])
    assert alarms[rng.binomial(disagreements, 0.5, REPEATS)].sum() <= misses_max(0.05, 3)
    if disagreements >= 300:
        assert alarms[rng.binomial(disagreements, 0.7, REPEATS)].mean() > 0.99
