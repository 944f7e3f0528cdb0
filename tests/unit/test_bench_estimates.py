"""Estimates say what samples carry, and nothing more."""

from __future__ import annotations

import numpy as np
import pytest

from bench.estimates import ccdf, exact_interval, mcnemar_p, per_round, percentiles, spread


def test_percentiles_are_blank_where_the_samples_do_not_carry_them() -> None:
    """A percentile is stated from the tenth sample above it on; maximum and count always."""
    found = percentiles(np.arange(1000.0))
    assert (found["p50"], found["p90"], found["p99"]) == (499.0, 899.0, 989.0)
    assert found["p99.9"] is None
    assert found["p99.99"] is None
    assert (found["mean"], found["max"], found["count"]) == (499.5, 999.0, 1000)
    assert percentiles(np.arange(999.0))["p99"] is None
    assert percentiles(np.arange(100_000.0))["p99.99"] == 99_989.0
    assert percentiles([]) == dict.fromkeys(["p50", "p90", "p99", "p99.9", "p99.99", "mean", "max"]) | {"count": 0}


def test_a_ccdf_counts_what_is_larger() -> None:
    """Of five samples four are larger than the smallest and none than the largest; equal samples share a step."""
    assert ccdf([5.0, 1.0, 3.0, 2.0, 4.0]) == [(1.0, 0.8), (2.0, 0.6), (3.0, 0.4), (4.0, 0.2), (5.0, 0.0)]
    assert ccdf([]) == []
    points = ccdf(np.arange(100_000.0), points=50)
    assert len(points) <= 50
    assert all(fraction == pytest.approx((99_999 - value) / 100_000) for value, fraction in points)


def test_the_rate_of_a_round_makes_the_rate_of_a_shot() -> None:
    """Rounds that err independently with the found probability give an odd number of errors as often as was seen."""
    for p, num_rounds in ((0.001, 50), (0.02, 7), (1e-9, 100)):
        shot = (1 - (1 - 2 * p) ** num_rounds) / 2
        assert per_round(shot, num_rounds) == pytest.approx(p, rel=1e-6)
    assert per_round(0.5, 10) == 0.5
    assert per_round(0.0, 10) == 0.0


def test_intervals_and_tests_at_their_edges() -> None:
    """No error bounds the rate (3.69 / shots at 97.5 %), no shot says nothing, equal counts are no news."""
    low, high = exact_interval(0, 1000)
    assert low == 0.0
    assert high == pytest.approx(3.69 / 1000, rel=0.01)
    assert exact_interval(0, 0) == (0.0, 1.0)
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(5, 5) == 1.0
    assert mcnemar_p(10, 0) == pytest.approx(2 / 1024)


def test_a_spread_is_relative_to_the_median() -> None:
    """Five repeats: median, extremes, and their distance for the median."""
    assert spread([1.0, 2.0, 1.5, 1.75, 1.25]) == {
        "median": 1.5, "min": 1.0, "max": 2.0, "relative": pytest.approx(2 / 3), "repeats": 5,
    }  # fmt: skip
