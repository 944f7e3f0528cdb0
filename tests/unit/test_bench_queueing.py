"""The queue is the queue: hand-worked waiting times, and the path's own queue agrees with them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.queueing import response_ns, waiting_ns
from bench.recorded import record
from bench.service import ServiceQueue
from rtqec.config import LadderTable
from rtqec.plan import Plan
from rtqec.windowed import WindowedDecoder
from rtqec.wire import CORRECTION
from tests.harness import make_plan

NEVER_LATE_US = 1e9


def lindley_slowly(arrivals: list[int], services: list[int]) -> list[int]:
    """The recursion, one customer after the other."""
    waits = [0]
    for k in range(len(arrivals) - 1):
        waits.append(max(0, waits[k] + services[k] - (arrivals[k + 1] - arrivals[k])))
    return waits


def test_a_case_worked_by_hand() -> None:
    """The second waits for the first, the third for both, the fourth for nobody; the last two come at once."""
    arrivals = np.array([0, 10, 12, 100, 130, 130])
    services = np.array([15, 20, 5, 7, 4, 1])
    # Served from 0, 15, 35, 100, 130, 134 to 15, 35, 40, 107, 134, 135.
    assert waiting_ns(arrivals, services).tolist() == [0, 5, 23, 0, 0, 4]
    assert response_ns(arrivals, services).tolist() == [15, 25, 28, 7, 4, 5]


@pytest.mark.parametrize("load", [0.3, 0.95, 1.5])
def test_the_recursion_taken_slowly(load: float) -> None:
    """All at once equals one after the other, to the nanosecond, below and above the limit."""
    rng = np.random.default_rng(4)
    arrivals = np.cumsum(rng.integers(0, 20_000, 500))
    services = rng.integers(0, round(20_000 * load), 500)
    assert waiting_ns(arrivals, services).tolist() == lindley_slowly(arrivals.tolist(), services.tolist())


def test_nobody_waits_for_nobody() -> None:
    """No customers, no times."""
    empty: NDArray[np.int64] = np.zeros(0, np.int64)
    assert response_ns(empty, empty).tolist() == []


@pytest.mark.parametrize("period_us", [1000.0, 0.5])
def test_the_service_queue_is_a_single_server(plan_d3: Plan, period_us: float) -> None:
    """The path behind its queue: responses are those of the recursion, and arrivals those of the rounds needed."""
    shots = record(plan_d3, 600, seed=3)
    with ServiceQueue(plan_d3, LadderTable(fallbacks=[], backlog_rounds=1500), NEVER_LATE_US) as queue:
        run = queue.run(shots.layers_b8, period_us)
    needed = run.corrections["shot_id"] * shots.num_rounds + run.corrections["last_round_needed"]
    assert run.arrival_ns.tolist() == ((needed.astype(np.int64) + 1) * round(period_us * 1000)).tolist()
    assert run.response_ns.tolist() == response_ns(run.arrival_ns, run.service_ns).tolist()
    assert sorted(needed.tolist()) == (shots.closings(plan_d3) - 1).tolist()


def test_the_service_queue_decodes_what_is_recorded(plan_d3: Plan) -> None:
    """Frames behind the queue are those of the plan's windows over whole arrays."""
    shots = record(plan_d3, 1300, seed=5)
    with ServiceQueue(plan_d3, LadderTable(fallbacks=[]), NEVER_LATE_US) as queue:
        run = queue.run(shots.layers_b8, 50.0)
    assert run.frames.astype(np.bool_).tolist() == WindowedDecoder(plan_d3)(shots.layers_b8)[:, 0].tolist()


def test_an_endless_stream_is_one_long_shot(plan_endless: Plan) -> None:
    """Every round of it is answered once, in order, and its windows are those of a shot of that length."""
    shots = record(plan_endless, 1000, seed=6)
    assert shots.layers_b8.shape == (1, 1000 * plan_endless.layout.layer_bytes)
    with ServiceQueue(plan_endless, LadderTable(fallbacks=[]), NEVER_LATE_US) as queue:
        run = queue.run(shots.layers_b8, 20.0)
    assert run.corrections.dtype == CORRECTION
    stops = run.corrections["first_round"] + run.corrections["num_rounds"]
    assert run.corrections["first_round"].tolist() == [0, *stops[:-1].tolist()]
    assert int(stops[-1]) == 1000
    assert run.frames.astype(np.bool_).tolist() == WindowedDecoder(plan_endless)(shots.layers_b8)[:, 0].tolist()


@pytest.mark.statistics
def test_endless_rounds_are_of_the_plans_own_noise(plan_endless: Plan) -> None:
    """Detection events per round are those of Stim's sampler, within 5 standard deviations: error rate 1e-6."""
    shots = record(plan_endless, 20_000, seed=7)
    events, _, _ = plan_endless.experiment.own_dem.compile_sampler(seed=8).sample(2000)
    bulk = plan_endless.rounds.detector_round == plan_endless.rounds.num_rounds // 2
    expected = float(events[:, bulk].sum(axis=1).mean())
    found = np.bitwise_count(shots.layers_b8).sum() / shots.total
    spread = float(events[:, bulk].sum(axis=1).std())
    assert abs(found - expected) < 5 * spread * np.sqrt(1 / 2000 + 3 / shots.total)


def test_correlated_matching_runs_behind_the_queue() -> None:
    """A plan that steps down: whatever the ladder chooses, every round of every shot is answered."""
    plan = make_plan(plan__matching="correlated")
    shots = record(plan, 400, seed=9)
    with ServiceQueue(plan, LadderTable(), 50.0) as queue:
        run = queue.run(shots.layers_b8, 2.0)
    live = run.corrections[(run.corrections["flags"] & 64) == 0]
    assert int(live["num_rounds"].sum()) == shots.total
