"""The matcher answers as PyMatching would, and one bad window does not cost its neighbours their answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pymatching
import pytest

from rtqec.batch import WindowBatch
from rtqec.kernels.ladder import NUM_BUCKETS
from rtqec.kernels.shot import HELD
from rtqec.match import Match, Matcher, warm_costs
from rtqec.plan import Plan
from tests.harness import BenchMaker, closed_plan, make_plan


@pytest.mark.parametrize("matching", ["plain", "correlated"])
def test_a_matcher_is_pymatching_on_the_dense_window(matching: str) -> None:
    """Packed rows in a batch give the predictions of PyMatching on the same windows, one by one."""
    plan = make_plan(plan__matching=matching)
    correlated = matching == "correlated"
    rng = np.random.default_rng(5)
    for model in plan.models:
        dense = rng.random((50, 8 * model.row_bytes)) < 0.05
        dense &= np.unpackbits(model.mask_b8, bitorder="little").astype(np.bool_)
        slow = pymatching.Matching.from_detector_error_model(model.dem, enable_correlations=correlated)
        expected = [slow.decode(row, enable_correlations=correlated) for row in dense]
        answers = Matcher(model, correlated)(np.packbits(dense, axis=1, bitorder="little"))
        found = np.unpackbits(answers, axis=1, bitorder="little", count=model.dem.num_observables)
        assert np.array_equal(found, np.array(expected))
        assert answers.shape == (50, model.answer_bytes)


def test_edges_have_the_syndrome_as_their_boundary(plan_d5: Plan) -> None:
    """The detectors of a matching's edges, taken together, are the events."""
    model = plan_d5.models[1]
    rng = np.random.default_rng(6)
    dense = (rng.random(8 * model.row_bytes) < 0.05) & np.unpackbits(model.mask_b8, bitorder="little").astype(np.bool_)
    left = dense.copy()
    for edge in Matcher(model, correlated=False).edges(np.packbits(dense, bitorder="little")).tolist():
        for detector in edge:
            if detector >= 0:
                left[detector] ^= True
    assert dense.any()
    assert not left.any()


def test_a_window_that_cannot_be_paired_leaves_the_others_answered(make_bench: BenchMaker, tmp_path: Path) -> None:
    """Of a batch, windows with an odd number of events and no boundary stay unmatched; the others have their answer."""
    streams = make_bench(closed_plan(tmp_path), events=True).streams
    batch, match = WindowBatch(4, streams), Match(streams.models, 4)
    rows = np.array([[3, 0], [1, 0], [0, 0], [0, 1]], np.uint8)
    batch.count, batch.model_index = 4, 0
    batch.rows_b8[:8] = rows.reshape(-1)
    match(batch)
    assert batch.matched.tolist() == [1, 0, 1, 0]
    assert batch.answers_b8[[0, 2], 0].tolist() == [1, 0]
    batch.count = 2
    batch.rows_b8[:4] = [3, 0, 0, 3]
    match(batch)
    assert batch.matched[:2].tolist() == [1, 1]
    assert batch.answers_b8[:2, 0].tolist() == [1, 0]


def test_a_held_window_has_no_answer_and_the_next_has_one(make_bench: BenchMaker, tmp_path: Path) -> None:
    """A held batch is not matched, and does not leave its mark on the batch after it."""
    streams = make_bench(closed_plan(tmp_path), events=True).streams
    batch, match = WindowBatch(2, streams), Match(streams.models, 2)
    batch.count, batch.model_index = 1, HELD
    match(batch)
    assert batch.matched[0] == 0
    batch.model_index = 0
    batch.rows_b8[:2] = [3, 0]
    match(batch)
    assert batch.matched[0] == 1
    assert batch.answers_b8[0, 0] == 1


def test_warming_does_not_change_answers(plan_d3: Plan) -> None:
    """A matcher answers the same before and after it was warmed, and its first predictions grow with the events."""
    model = plan_d3.models[0]
    rows = np.packbits(np.random.default_rng(7).random((64, 8 * model.row_bytes)) < 0.05, axis=1, bitorder="little")
    rows &= model.mask_b8
    matcher = Matcher(model, correlated=False)
    before = matcher(rows)
    costs = warm_costs(matcher)
    assert np.array_equal(matcher(rows), before)
    assert costs.shape == (NUM_BUCKETS,)
    assert (costs > 0).all()
    assert (np.diff(costs) >= 0).all()
