"""The search finds the limit of a scripted fake, says how well, and is not led astray by trials that lie."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench.search import Search
from bench.trial import VOID_MAX, Trial, find_limit, judge_trial

Oracle = Callable[[float], bool]
SECONDS = 2.0
WINDOW_ROUNDS = 10


def new_search(**options: Any) -> Search:
    return Search(**({"low": 1e3, "high": 1e6, "tolerance": 0.1, "confidence": 0.95, "max_trials": 60} | options))


def run(search: Search, holds: Oracle) -> Search:
    while not search.done:
        search.tell(holds(search.next_rate))
    return search


def noisy(limit: float, width: float, lapse: float, seed: int) -> Oracle:
    """Trials turn from "holds" to "does not" along a logistic curve, and lie now and then, wherever they are made."""
    rng = np.random.default_rng(seed)

    def holds(rate: float) -> bool:
        chance = 1 / (1 + math.exp(min(math.log(rate / limit) / width, 50.0)))
        return bool((rng.random() < chance) != (rng.random() < lapse))

    return holds


def report(**changes: Any) -> dict[str, Any]:
    """What `firmware-sim loop` says of a clean run, with changes."""
    zero = ("corrections_out_of_order", "corrections_wrong_digest", "corrections_wrong_frame", "corrections_bad",
            "index_gaps", "bad_amendments", "rounds_unsent", "rounds_lost", "unexplained", "rounds_held")  # fmt: skip
    backlog = {"slope_per_s": 1.0, "slope_interval": [-2.0, 4.0], "median_last_tenth": 7.0, "samples": 400}
    clean = dict.fromkeys(zero, 0) | {"faults": None, "rounds_answered": 100, "rounds_expected": 100}
    return clean | {"sender_late_us_max": 900.0, "backlog_rounds": backlog} | changes


def test_a_sharp_limit_is_found_by_bisection() -> None:
    """Where trials do not lie, the interval holds the limit, is as narrow as asked for, and took few trials."""
    search = run(new_search(), lambda rate: rate <= 54_321)
    low, high = search.interval()
    assert low <= 54_321 <= high
    assert high <= 1.1 * low
    assert search.estimate == pytest.approx(54_321, rel=0.05)
    assert len(search.trials) <= 25
    assert search.known
    assert search.edge is None


@pytest.mark.statistics
@pytest.mark.parametrize(("width", "lapse"), [(0.02, 0.1), (0.05, 0.1), (0.02, 0.2), (0.1, 0.0)])
def test_trials_that_lie_do_not_move_the_limit(width: float, lapse: float) -> None:
    """At most 6 of 40 intervals of 95 % miss (were they honest: 1 in 300 such tests would fail)."""
    missed = 0
    for seed in range(40):
        limit = float(np.exp(np.random.default_rng(seed).uniform(math.log(3e3), math.log(3e5))))
        low, high = run(new_search(max_trials=40), noisy(limit, width, lapse, seed)).interval()
        missed += not low <= limit <= high
    assert missed <= 6


@pytest.mark.statistics
def test_the_estimate_is_near_where_every_tenth_trial_lies() -> None:
    """Of 40 searches at least 36 end within 15 % of the limit."""
    near = 0
    for seed in range(40):
        search = run(new_search(), noisy(40_000, 0.03, 0.1, seed))
        near += abs(search.estimate / 40_000 - 1) < 0.15
    assert near >= 36


@pytest.mark.parametrize(("answer", "edge", "at"), [(False, "low", 1e3), (True, "high", 1e6)])
def test_all_alike_ends_at_an_edge(answer: bool, edge: str, at: float) -> None:
    """Where every trial holds, or none does, the edge is named after a few trials, with a note."""
    search = run(new_search(), lambda _rate: answer)
    assert search.edge == edge
    assert search.estimate == pytest.approx(at)
    assert len(search.trials) < 15
    assert ("above 1e+06" if answer else "below 1000") in search.why


def test_all_trials_used_up_is_said() -> None:
    """A search that may not go on says that its interval is wider than was asked for, and gives it all the same."""
    search = run(new_search(max_trials=6), lambda rate: rate <= 54_321)
    low, high = search.interval()
    assert len(search.trials) == 6
    assert not search.known
    assert low <= 54_321 <= high
    assert high > 1.1 * low
    assert "all trials are used up" in search.why


def test_one_trial_decides_nothing() -> None:
    """After one lie of a trial far from the limit, the search comes back to where the limit is."""
    search = new_search()
    while not search.done:
        held = search.next_rate <= 54_321
        search.tell(held if len(search.trials) != 2 else not held)
    low, high = search.interval()
    assert low <= 54_321 <= high


def test_more_confidence_is_a_wider_interval() -> None:
    """Intervals are nested."""
    search = run(new_search(), noisy(40_000, 0.03, 0.05, 1))
    (a, b), (c, d) = search.interval(0.5), search.interval(0.99)
    assert c < a < b < d


def test_equal_trials_make_equal_searches() -> None:
    """Nothing is drawn: the search is a function of what it is told."""
    first, second = (run(new_search(), noisy(40_000, 0.03, 0.1, 2)) for _ in range(2))
    assert first.trials == second.trials
    assert first.interval() == second.interval()


@pytest.mark.parametrize(
    ("changes", "held", "words"),
    [
        ({}, True, "backlog 7 rounds"),
        ({"sender_late_us_max": 41_000.0}, None, "the sender was up to 41 ms late"),
        ({"rounds_lost": 3}, False, "rounds_lost is 3"),
        ({"rounds_answered": 99}, False, "rounds_answered is 99, must be 100"),
        ({"rounds_held": 5}, False, "5 rounds were answered by holding"),
    ],
)
def test_what_holds(changes: dict[str, Any], held: bool | None, words: str) -> None:
    """A trial holds where all is answered and nothing lost; one whose sender was late says nothing."""
    verdict, why = judge_trial(report(**changes), SECONDS, WINDOW_ROUNDS)
    assert verdict is held
    assert words in why


@pytest.mark.parametrize(
    ("slope", "interval", "held"),
    [(500.0, [300.0, 700.0], False), (500.0, [-10.0, 1010.0], True), (5.0, [4.0, 6.0], True), (0.0, None, None)],
    ids=["grows", "may be chance", "by less than a window", "not known"],
)
def test_a_growing_backlog_is_one_that_is_proven_and_matters(
    slope: float, interval: list[float] | None, held: bool | None
) -> None:
    """It must be more than chance, and more than a window; a trial too short to tell is void."""
    backlog = {"slope_per_s": slope, "slope_interval": interval, "median_last_tenth": 7.0, "samples": 30}
    assert judge_trial(report(backlog_rounds=backlog), SECONDS, WINDOW_ROUNDS)[0] is held


def test_void_trials_are_made_again_and_counted() -> None:
    """Every second trial is void, and the limit is found all the same."""
    made: list[float] = []

    def attempt(rate: float) -> Trial:
        made.append(rate)
        return Trial(rate, None if len(made) % 2 else rate <= 54_321, "")

    search = new_search()
    trials, void = find_limit(search, attempt)
    assert void == len(trials) == len(made) / 2
    assert search.interval()[0] <= 54_321 <= search.interval()[1]


def test_a_rate_that_cannot_be_offered_is_not_held() -> None:
    """A sender that cannot go faster bounds the limit, and the trial says so."""

    def attempt(rate: float) -> Trial:
        return Trial(rate, True if rate < 80_000 else None, "the sender was up to 900 ms late")

    search = new_search()
    trials, void = find_limit(search, attempt)
    assert search.interval()[0] <= 80_000 <= search.interval()[1]
    refused = [trial for trial in trials if not trial.held]
    assert void == VOID_MAX * len(refused)
    assert all("could not be offered, 3 times: the sender" in trial.why for trial in refused)
