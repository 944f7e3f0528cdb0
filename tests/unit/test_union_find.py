"""Union-find answers with a correction that explains the events, in bounded work, and seldom worse than matching."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import stim
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtqec.match import Matcher
from rtqec.plan import Plan
from rtqec.plan.edges import graph_edges
from rtqec.plan.model import WindowModel
from rtqec.union_find import UnionFind
from rtqec.windowed import WindowedDecoder
from tests.harness import closed_plan, make_plan

SEED = 20261121


def packed(bits: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(np.atleast_2d(bits), axis=1, bitorder="little")


def known_events(model: WindowModel, rng: np.random.Generator, density: float, num_windows: int) -> NDArray[np.bool_]:
    """Random events at the detectors that a model knows, bool, shape (num_windows, 8 * row_bytes)."""
    known = np.unpackbits(model.mask_b8, bitorder="little").astype(np.bool_)
    return (rng.random((num_windows, len(known))) < density) & known


def labelled(model: WindowModel) -> WindowModel:
    """The same window, but each edge flips an observable of its own, so that an answer names the edges."""
    dem = stim.DetectorErrorModel()
    for i, (detectors, (probability, _)) in enumerate(graph_edges(model.dem).items()):
        targets = [stim.target_relative_detector_id(detector) for detector in detectors]
        dem.append("error", probability, [*targets, stim.target_logical_observable_id(i)])
    return replace(model, dem=dem, num_observables=dem.num_observables, seam=np.zeros((0, 2), np.int64))


def explained(decoder: UnionFind, flipped: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The events that flipped edges cause: slow, one edge at a time."""
    events = np.zeros(8 * decoder.model.row_bytes, np.bool_)
    for edge in np.flatnonzero(flipped):
        for detector in decoder.detectors[edge].tolist():
            if detector >= 0:
                events[detector] ^= True
    return events


def answer_of(model: WindowModel, flips: list[tuple[int, ...]], flipped: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """What flipped edges do to the observables and the seam, uint8, shape (1, answer_bytes)."""
    answer = np.zeros(8 * model.answer_bytes, np.bool_)
    for edge in np.flatnonzero(flipped):
        answer[list(flips[edge])] ^= True
    return packed(answer)


def flips_of(model: WindowModel) -> list[tuple[int, ...]]:
    """The answer bits of each edge of a model."""
    return [observables for _, observables in graph_edges(model.dem).values()]


class UnionFindWindows(WindowedDecoder):
    """A windowed decoder that decodes with union-find."""

    def matcher(self, model_index: int) -> UnionFind:  # type: ignore[override]
        if model_index not in self._matchers:
            decoder = UnionFind(self.plan.models[model_index], 20_000)
            self._matchers[model_index] = decoder  # type: ignore[assignment]
        return self._matchers[model_index]  # type: ignore[return-value]


@cache
def decoders(distance: int, matching: str) -> list[tuple[UnionFind, UnionFind, list[tuple[int, ...]]]]:
    """Of each window of a plan: its decoder, the one whose answers name edges, and what each edge flips."""
    size = {"plan__distance": distance, "plan__rounds": 4 * distance}
    windows = {"window__commit_rounds": distance, "window__buffer_rounds": distance}
    models = make_plan(plan__matching=matching, **size, **windows).models
    return [(UnionFind(model), UnionFind(labelled(model)), flips_of(model)) for model in models]


@given(
    seed=st.integers(0, 2**32), density=st.floats(0, 1), distance=st.sampled_from([3, 5]),
    matching=st.sampled_from(["plain", "correlated"]), erased_fraction=st.floats(0, 1),
)  # fmt: skip
@example(seed=1, density=1.0, distance=5, matching="plain", erased_fraction=0.0)
@example(seed=1, density=0.1, distance=5, matching="correlated", erased_fraction=0.0)
def test_an_answer_explains_the_events(
    seed: int, density: float, distance: int, matching: str, erased_fraction: float
) -> None:
    """The detectors of the flipped edges, taken together, are the events, and the answer is what those edges flip."""
    rng = np.random.default_rng(seed)
    for decoder, naming, flips in decoders(distance, matching):
        erased = np.flatnonzero(rng.random(len(naming.detectors)) < erased_fraction).astype(np.uint32)
        events = known_events(decoder.model, rng, density, 1)
        answer_b8 = decoder(packed(events), erased)
        flipped = np.unpackbits(naming(packed(events), erased)[0], bitorder="little").astype(np.bool_)
        assert np.array_equal(explained(naming, flipped), events[0])
        assert np.array_equal(answer_b8, answer_of(decoder.model, flips, flipped))
        assert decoder.visits == naming.visits <= naming.visits_max


@pytest.mark.parametrize("matching", ["plain", "correlated"])
def test_a_single_error_is_corrected_as_matching_does(matching: str) -> None:
    """One edge flipped: the answer, observables and seam in their order, is the matcher's, and what the edge flips.

    Not where edges are free (lost rounds, an open past): two ways out of an event can then be equally long, but for a
    fraction of a unit.
    """
    for model in make_plan(plan__matching=matching).models:
        union_find, matcher, flips = UnionFind(model), Matcher(model, correlated=False), flips_of(model)
        if (union_find.weights == 0).any():
            continue
        for i in range(len(union_find.detectors)):
            flipped = np.arange(len(union_find.detectors)) == i
            row = packed(explained(union_find, flipped))
            assert np.array_equal(union_find(row), matcher(row))
            assert np.array_equal(union_find(row), answer_of(model, flips, flipped))


def test_a_part_without_boundary_takes_only_even_numbers_of_events(tmp_path: Path) -> None:
    """An odd number of events is refused, as by the matcher, and the windows after it are decoded as before."""
    model = closed_plan(tmp_path).models[0]
    union_find, matcher = UnionFind(model, 2), Matcher(model, correlated=False)
    even, odd = np.array([[3, 0]], np.uint8), np.array([[1, 0]], np.uint8)
    before = union_find(even).copy()
    assert np.array_equal(before, matcher(even))
    for decoder in (union_find, matcher):
        with pytest.raises(ValueError, match=r"odd"):
            decoder(odd)
    with pytest.raises(ValueError, match=r"Window 1 of the batch"):
        union_find(np.concatenate([even, odd]))
    assert np.array_equal(union_find(even), before)


def test_a_batch_answers_as_its_windows_one_by_one(plan_d5: Plan) -> None:
    """Nothing of a window is left for the next one."""
    model = plan_d5.models[1]
    rng = np.random.default_rng(SEED)
    rows = packed(np.concatenate([known_events(model, rng, density, 100) for density in (0.5, 0.01, 0.1)]))
    batch = UnionFind(model, len(rows))(rows).copy()
    single = UnionFind(model)
    assert batch.shape == (300, model.answer_bytes)
    assert np.array_equal(batch, np.concatenate([single(row[np.newaxis]).copy() for row in rows]))


def test_erased_edges_are_for_nothing(plan_d3: Plan) -> None:
    """Two events joined by a chain of erased edges are paired along it, however long it is."""
    model = plan_d3.models[1]
    naming = UnionFind(labelled(model))
    bits = model.layout.layer_bits
    layers = naming.detectors // bits
    same_place = (naming.detectors[:, 1] - naming.detectors[:, 0]) == bits
    slot = int(naming.detectors[same_place][0, 0]) % bits
    chain = np.flatnonzero(same_place & (naming.detectors[:, 0] % bits == slot)).astype(np.uint32)
    events = np.zeros(8 * model.row_bytes, np.bool_)
    events[[slot, int(layers.max()) * bits + slot]] = True
    flipped = np.flatnonzero(np.unpackbits(naming(packed(events), chain)[0], bitorder="little"))
    assert len(chain) == model.num_rounds - 1
    assert flipped.tolist() == chain.tolist()
    assert np.flatnonzero(np.unpackbits(naming(packed(events))[0], bitorder="little")).tolist() != chain.tolist()


@pytest.mark.statistics
@pytest.mark.parametrize("distance", [3, 5])
def test_union_find_fails_little_more_often_than_matching(distance: int) -> None:
    """Windows of 20,000 shots: failures between matching's, less three deviations, and 1.6 times as many."""
    plan = make_plan(
        plan__distance=distance, plan__rounds=10 * distance, plan__noise=0.003,
        window__commit_rounds=distance, window__buffer_rounds=distance,
    )  # fmt: skip
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=distance, rounds=10 * distance, after_clifford_depolarization=0.003,
        after_reset_flip_probability=0.003, before_measure_flip_probability=0.003,
        before_round_data_depolarization=0.003,
    )  # fmt: skip
    events, truth = circuit.compile_detector_sampler(seed=SEED).sample(20_000, separate_observables=True)
    layers_b8 = plan.rounds.layers_b8(events)
    matching, union_find = (
        int((decoder(layers_b8) != truth).any(axis=1).sum())
        for decoder in (WindowedDecoder(plan), UnionFindWindows(plan))
    )
    assert matching - 3 * matching**0.5 <= union_find <= 1.6 * matching
