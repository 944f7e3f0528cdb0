"""Predictions follow what windows cost, and the less time there is, the further down the ladder a window goes."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtqec.batch import Decoding, Streams
from rtqec.config import LadderTable
from rtqec.errors import ConfigError
from rtqec.kernels.ladder import NUM_BUCKETS, bucket_of, count_bits, fits, forget_cost, learn_cost, predict_ns
from rtqec.wire import Reason, Rung
from tests.harness import Bench, BenchMaker, Piece, Speaker, make_plan


def test_buckets_are_exact_for_few_events_and_then_two_per_octave() -> None:
    """Every number of events has a bucket, more events never a lower one; a bucket is at most half its value wide."""
    buckets = [int(bucket_of(n)) for n in range(10_000)]
    assert buckets[:16] == list(range(16))
    assert (np.diff(buckets) >= 0).all()
    assert max(buckets) == NUM_BUCKETS - 1
    smallest = [buckets.index(b) for b in range(NUM_BUCKETS)]
    assert smallest[16:20] == [16, 24, 32, 48]
    assert all(after - first <= first // 2 for first, after in pairwise(smallest[16:]))


@given(num_events=st.integers(0, 1 << 40))
def test_no_number_of_events_is_beyond_the_buckets(num_events: int) -> None:
    """A bucket is in range, however many events there are."""
    assert 0 <= bucket_of(num_events) < NUM_BUCKETS


def test_bits_are_counted() -> None:
    """The table is the count of ones of every byte."""
    assert [int(count_bits(byte)) for byte in range(256)] == [byte.bit_count() for byte in range(256)]


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("first_ns", [100.0, 1e7])
def test_a_prediction_becomes_the_quantile_of_what_windows_cost(quantile: float, first_ns: float) -> None:
    """After 20,000 windows the prediction is, on average over the last half, exceeded as often as it should be: within
    a fifth of (1 - quantile), fixed seed; and it never was negative."""
    cost_ns = np.full((2, NUM_BUCKETS), first_ns)
    exceeded, samples = 0, np.random.default_rng(6).lognormal(np.log(20_000), 0.5, 20_000)
    for i, took_ns in enumerate(samples):
        exceeded += i >= 10_000 and took_ns > predict_ns(cost_ns, 1, 5)
        learn_cost(cost_ns, 1, 5, took_ns, quantile)
        assert cost_ns[1, 5] > 0
    assert exceeded / 10_000 == pytest.approx(1 - quantile, rel=0.2)
    assert predict_ns(cost_ns, 1, 5) == pytest.approx(np.quantile(samples, quantile), rel=0.3)
    others = cost_ns.copy()
    others[1, 5] = first_ns
    assert (others == first_ns).all()


def test_one_outlier_moves_a_prediction_by_a_step() -> None:
    """However long one window took, and however short, the prediction moves by at most a twentieth."""
    cost_ns = np.full((1, NUM_BUCKETS), 1000.0)
    learn_cost(cost_ns, 0, 0, 1e15, 0.95)
    assert 1000 < cost_ns[0, 0] <= 1050
    learn_cost(cost_ns, 0, 1, 0, 0.95)
    assert 950 <= cost_ns[0, 1] < 1000


def test_a_step_that_is_passed_over_is_tried_again_some_day() -> None:
    """What is not tried sinks below any bound, slowly, so that a step that was slow once is not thought slow for ever;
    a slow try outweighs a hundred of those."""
    cost_ns = np.full((1, NUM_BUCKETS), 1e9)
    forget_cost(cost_ns, 0, 3)
    learn_cost(cost_ns, 0, 3, 1e12, 0.95)
    assert cost_ns[0, 3] > 1.04e9
    for _ in range(100):
        forget_cost(cost_ns, 0, 3)
    assert cost_ns[0, 3] > 1.01e9
    for _ in range(500_000):
        forget_cost(cost_ns, 0, 3)
    assert 0 < cost_ns[0, 3] < 1e6


TIMES = st.integers(0, 1 << 50)


@given(predicted=TIMES, now=TIMES, deadline=TIMES, queued=TIMES, last=TIMES, less=st.integers(0, 1 << 40))
def test_what_fits_still_fits_with_more_time(
    predicted: int, now: int, deadline: int, queued: int, last: int, less: int
) -> None:
    """A window that fits does so, too, when it or its queue costs less, it is earlier, or a deadline is later."""
    wanted = now + predicted <= deadline and now + predicted + queued <= last
    assert bool(fits(predicted, now, deadline, queued, last)) == wanted
    if wanted:
        assert fits(max(predicted - less, 0), now, deadline, queued, last)
        assert fits(predicted, max(now - less, 0), deadline, queued, last)
        assert fits(predicted, now, deadline + less, queued, last)
        assert fits(predicted, now, deadline, max(queued - less, 0), last)
        assert fits(predicted, now, deadline, queued, last + less)


UNIT_NS = 10**12
"""Costs and budgets in the tests below: so long that no machine's own time can matter."""
RUNGS = {Decoding.CORRELATED: Rung.CORRELATED_MATCH, Decoding.PLAIN: Rung.MATCH, Decoding.UNION_FIND: Rung.UNION_FIND}


class Steps:
    """A lane whose windows cost what a test says, and the step that each of them took."""

    def __init__(self, make_bench: BenchMaker, fallbacks: tuple[str, ...]) -> None:
        self.plan = make_plan(plan__matching="correlated", ladder__fallbacks=fallbacks)
        self.bench: Bench = make_bench(self.plan, fallbacks=fallbacks, ring_rounds=64)
        self.piece, self.speaker = Piece.of(self.plan), Speaker(self.plan)
        self.shot_id = 0

    def first_window(self, costs: dict[Decoding, float], budget: float, waiting: int) -> Any:
        """The correction of a shot's first window, behind which some more wait."""
        bench = self.bench
        shot = self.piece.sample(1, seed=self.shot_id)[0]
        messages = self.speaker.shot(self.piece.blocks(shot), self.shot_id)
        bench.streams.patches["budget_ns"] = round(budget * UNIT_NS)
        for cost_ns, (_, engine) in zip(bench.streams.cost_ns, bench.streams.models, strict=True):
            cost_ns[:] = costs[engine] * UNIT_NS
        bench.ingest(*messages[: 6 + 3 * waiting], received_ns=time.monotonic_ns())
        assert bench.pipeline.step()
        found = bench.collect()
        bench.ingest(*messages[6 + 3 * waiting :], received_ns=time.monotonic_ns())
        bench.carry()
        self.shot_id += 1
        return found[0]


def test_a_window_takes_the_first_step_that_leaves_time_for_those_behind_it(make_bench: BenchMaker) -> None:
    """Over 300 random tables of costs, budgets and queues: the step is that of the slow twin; the reason says whether
    it is the configured one."""
    steps = Steps(make_bench, ("match", "union_find"))
    rng = np.random.default_rng(8)
    taken = []
    for _ in range(300):
        costs = {engine: float(cost) for engine, cost in zip(RUNGS, rng.integers(1, 10, 3), strict=True)}
        budget, waiting = float(rng.integers(0, 12)) + 0.5, int(rng.integers(0, 3))
        correction = steps.first_window(costs, budget, waiting)
        fitting = [engine for engine in RUNGS if costs[engine] + waiting * min(costs.values()) <= budget]
        wanted = [*fitting, Decoding.UNION_FIND][0]
        assert correction["rung"] == RUNGS[wanted]
        assert correction["reason"] == (Reason.CONFIGURED if wanted is Decoding.CORRELATED else Reason.DEADLINE)
        taken.append(wanted)
    assert min(taken.count(engine) for engine in RUNGS) > 20


@pytest.mark.parametrize("fallbacks", [
    ("match", "union_find"), ("match", "catch_up", "union_find"), ("union_find", "hold"),
    ("match", "catch_up", "union_find", "hold"),
])  # fmt: skip
def test_less_time_never_leads_up_the_ladder(make_bench: BenchMaker, fallbacks: tuple[str, ...]) -> None:
    """Over 60 random tables of costs: with a smaller budget, or one more window waiting, the step is the same or one
    further down."""
    steps = Steps(make_bench, fallbacks)
    # Where there is room in the ring: what is held is amended, and never given up.
    steps.bench.streams.patches["backlog_rounds"] = 24
    rng = np.random.default_rng(9)
    seen = set()

    def step_of(correction: Any) -> int:
        """The step by what the correction says of it."""
        if correction["reason"] == Reason.BACKLOG:
            return fallbacks.index("catch_up") + 1
        rung = correction["rung"]
        name = {Rung.HOLD: "hold", Rung.MATCH: "match", Rung.UNION_FIND: "union_find"}.get(rung)
        return 0 if name is None else fallbacks.index(name) + 1

    for _ in range(60):
        costs = {engine: float(cost) for engine, cost in zip(RUNGS, rng.integers(1, 10, 3), strict=True)}
        waiting = int(rng.integers(0, 3))
        budgets = sorted((rng.integers(0, 30, 4) + 0.5).tolist(), reverse=True)
        found = [step_of(steps.first_window(costs, budget, waiting)) for budget in budgets]
        assert found == sorted(found)
        seen |= {*found}
        if "catch_up" not in fallbacks:
            # (A queue makes catching up possible, and what is possible may lie above what was not.)
            queues = [step_of(steps.first_window(costs, budgets[1], waiting)) for waiting in range(3)]
            assert queues == sorted(queues)
    assert seen == set(range(len(fallbacks) + 1))


BOUNDS = [("auto", 64, 16), (6, 32, 6), (10, 32, 10), (5, 32, None), (11, 32, None), (26, 64, 26), (27, 64, None)]


@pytest.mark.parametrize(("asked", "ring_rounds", "bound"), BOUNDS)
def test_the_backlog_is_bounded_by_window_and_ring(
    make_bench: BenchMaker, asked: int | str, ring_rounds: int, bound: int | None
) -> None:
    """`backlog_rounds` holds a window, and leaves as much room in the ring for what is held; else it is refused."""
    plan = make_plan()
    bench = make_bench(plan, ring_rounds=ring_rounds)
    ladder = LadderTable(backlog_rounds=asked)
    if bound is None:
        with pytest.raises(ConfigError, match=rf"is {asked}, but the window has 6 rounds and the ring {ring_rounds}"):
            Streams([plan], [0], [1.0], ladder, bench.ring, bench.telemetry)
    else:
        streams = Streams([plan], [0], [1.0], ladder, bench.ring, bench.telemetry)
        assert streams.patches["backlog_rounds"].tolist() == [bound]


def test_the_backlog_that_is_chosen_by_itself_lets_a_window_close(make_bench: BenchMaker) -> None:
    """With `backlog_rounds = "auto"` and the smallest ring for a window, a stream that keeps up is decoded."""
    plan = make_plan(window__commit_rounds=10, window__buffer_rounds=6, plan__rounds=40, ladder__fallbacks=())
    bench = make_bench(plan, ring_rounds=32)
    chosen = Streams([plan], [0], [1.0], LadderTable(fallbacks=[]), bench.ring, bench.telemetry).patches
    assert chosen["backlog_rounds"][0] >= plan.window.rounds
