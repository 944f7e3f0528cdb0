"""The soft matcher: the least weight there is, with the weights that a network gives, and every event explained."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pymatching
import pytest
import stim
from numpy.typing import NDArray

from rtqec.errors import FaultError, PlanError
from rtqec.neural.edges import CLASSES, EdgeMap
from rtqec.neural.effects import Mechanism
from rtqec.neural.experiment import GridExperiment
from rtqec.neural.network import EDGE_OUTPUTS, HARD_OUTPUTS
from rtqec.plan import Plan
from rtqec.plan.edges import graph_edges
from rtqec.plan.model import WindowModel
from rtqec.soft_matcher import FLOOR, SoftMatcher
from tests.harness import make_plan
from tests.orientations import ORIENTATIONS, memory_circuit
from tests.predecoders import effects_of

pytest.importorskip("fusion_blossom")
OUTPUTS = HARD_OUTPUTS + EDGE_OUTPUTS
TASKS = ("surface_code:rotated_memory_z", "surface_code:rotated_memory_x")


def with_edges_as_observables(model: WindowModel) -> tuple[WindowModel, list[tuple[int, ...]]]:
    """The window with one observable per edge, so that an answer says which edges were matched."""
    dem, keys = stim.DetectorErrorModel(), []
    for number, (detectors, (probability, _)) in enumerate(graph_edges(model.dem).items()):
        targets = [stim.target_relative_detector_id(d) for d in detectors]
        dem.append("error", probability, [*targets, stim.target_logical_observable_id(number)])
        keys.append(detectors)
    return WindowModel(
        model.phase, model.num_rounds, 0, model.commit_rounds, len(keys), model.layout, dem,
        np.zeros((0, 2), np.int64), model.mask_b8,
    ), keys  # fmt: skip


def logits_of(rng: np.random.Generator, plan: Plan, layers: int) -> NDArray[np.float32]:
    """Logits as a network's: mostly no, a few likely, a few more likely than not."""
    likely = rng.normal(-6.0, 3.0, (OUTPUTS, layers, plan.distance**2))
    return likely.astype(np.float32)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("number", [0, 1, -1])
def test_matches_with_the_least_weight_and_explains_every_event(task: str, number: int) -> None:
    """Of random windows with random logits: the edges matched explain the events, and weigh what PyMatching's do that
    is built anew with the same weights; negative ones included.
    """
    plan = make_plan(plan__generated=task, plan__noise=0.02, plan__distance=5, plan__rounds=17,
                     window__commit_rounds=5, window__buffer_rounds=5)  # fmt: skip
    model, keys = with_edges_as_observables(plan.models[number])
    layout = effects_of(plan, 17).layout
    matcher = SoftMatcher(model, layout)
    places = matcher.places
    assert (places[:, 0] >= 0).mean() > 0.7
    static = [np.log1p(-p) - np.log(p) for p, _ in graph_edges(model.dem).values()]
    rng = np.random.default_rng(7)
    events, _, _ = model.dem.compile_sampler(seed=3).sample(40)
    turned = 0
    for shot in events:
        logits = logits_of(rng, plan, model.num_rounds + 3)
        first, stop = 3, model.num_rounds + 1
        row = np.zeros(model.row_bytes, np.uint8)
        packed = np.packbits(shot, bitorder="little")
        row[: len(packed)] = packed
        channels_last = np.moveaxis(np.ascontiguousarray(np.moveaxis(logits, 0, 2)), 2, 0)
        answer = np.unpackbits(matcher(row, channels_last, 3, first, stop), bitorder="little")[: len(keys)]
        weights = []
        for place, weight in zip(places.tolist(), static, strict=True):
            counts = place[0] >= 0 and first <= place[1] + 3 < stop
            logit = logits[place[0], place[1] + 3, place[2]] if counts else -np.inf
            weights.append(-float(logit) if logit > FLOOR else weight)
        turned += sum(weight < 0 for weight in weights)
        fresh = pymatching.Matching()
        for edge, (detectors, weight) in enumerate(zip(keys, weights, strict=True)):
            if len(detectors) == 2:
                fresh.add_edge(*detectors, fault_ids=edge, weight=weight)
            else:
                fresh.add_boundary_edge(*detectors, fault_ids=edge, weight=weight)
        best = fresh.decode(shot[: fresh.num_detectors])
        assert np.dot(answer, weights) == pytest.approx(np.dot(best[: len(keys)], weights), abs=2e-3 * len(keys) ** 0.5)
        explained = np.zeros(len(shot), np.int64)
        for detectors, matched in zip(keys, answer, strict=True):
            explained[list(detectors)] += matched
        assert np.array_equal(explained % 2, shot)
    assert turned > 40


def test_a_matching_that_explains_nothing_is_a_fault() -> None:
    """One window in so many is checked: a solver that answers something else ends the lane."""
    plan = make_plan(plan__noise=0.02)
    model = plan.models[1]
    matcher = SoftMatcher(model, effects_of(plan, plan.rounds.num_rounds).layout)
    matcher.check_every = 1

    class Broken:
        """Matches nothing."""

        def solve(self, pattern: object) -> None: ...
        def subgraph(self) -> list[int]:
            return []

        def clear(self) -> None: ...

    logits = np.full((OUTPUTS, model.num_rounds, 9), -9.0, np.float32)
    known = np.unpackbits(model.mask_b8, bitorder="little")
    one = np.zeros_like(known)
    one[np.flatnonzero(known)[0]] = 1
    row = np.packbits(one, bitorder="little")
    matcher(row, logits, 0, 0, model.num_rounds)
    matcher._solver = Broken()
    with pytest.raises(FaultError, match="explain"):
        matcher(row, logits, 0, 0, model.num_rounds)


def test_without_answers_it_is_plain_matching() -> None:
    """Where no layer counts the weights are the error model's: PyMatching's answer, but where two are as good."""
    plan = make_plan(plan__noise=0.01)
    model = plan.models[1]
    matcher = SoftMatcher(model, effects_of(plan, plan.rounds.num_rounds).layout)
    plain = pymatching.Matching.from_detector_error_model(model.dem)
    events, _, _ = model.dem.compile_sampler(seed=3).sample(300)
    rows = np.packbits(events, axis=1, bitorder="little") & model.mask_b8
    wanted = plain.decode_batch(rows, bit_packed_shots=True, bit_packed_predictions=True)
    logits = np.full((OUTPUTS, model.num_rounds, 9), 5.0, np.float32)
    found = np.array([matcher(row, logits, 0, 2, 2) for row in rows])
    assert (found != wanted).any(axis=1).mean() < 0.03


def experiments(distance: int) -> Iterator[GridExperiment]:
    """Both bases of Stim's generator, and of the published orientations."""
    for task in TASKS:
        yield GridExperiment.generated(task, distance, 6, 0.01)
    for orientation, basis in product(ORIENTATIONS, "XZ"):
        yield GridExperiment.of_circuit(memory_circuit(distance, 6, orientation, basis, 0.01))


@pytest.mark.parametrize("distance", [3, 5, 7])
def test_schedules_are_brought_into_one_frame(distance: int) -> None:
    """Whatever the basis and the order of gates, edges in time lean the same way: no error is without a class, all
    classes occur, and no two edges have one place.
    """
    for experiment in experiments(distance):
        check_classes(experiment)


def check_classes(experiment: GridExperiment) -> None:
    """Each edge of an experiment has a place of its own."""
    edges = EdgeMap(experiment.layout)
    seen: dict[tuple[int, int, int], set[frozenset[tuple[int, int, int]]]] = {}
    for mechanism in experiment.mechanisms:
        spots = frozenset(spot for spot in mechanism.spots if spot[0] == experiment.layout.own)
        if spots:
            place = edges.of_mechanism(mechanism)
            assert place is not None
            seen.setdefault(place, set()).add(spots)
    assert {place[0] for place in seen} == set(range(len(CLASSES)))
    assert all(len(spots) == 1 for spots in seen.values())
    exist = edges.exist(experiment.mechanisms, experiment.rounds.num_rounds)
    assert int(exist.sum()) == len(seen)


def test_an_error_with_three_detectors_of_a_kind_is_refused() -> None:
    """What is no edge cannot be labelled as one; the message says what to do."""
    edges = EdgeMap(GridExperiment.generated(TASKS[0], 3, 4, 0.01).layout)
    cells = sorted(edges.cells)[:3]
    with pytest.raises(PlanError, match="edges = false"):
        edges.of_mechanism(Mechanism(0.1, frozenset((0, 2, cell) for cell in cells), 0))


@pytest.mark.parametrize("task", TASKS)
def test_labels_of_edges_explain_every_event(task: str) -> None:
    """The XOR of the ends of the edges that a shot is labelled with is what its own kind of checks saw."""
    experiment = GridExperiment.generated(task, 5, 6, 0.02)
    layout, num_layers = experiment.layout, experiment.rounds.num_rounds
    events, labels, _ = experiment.labelled_shots(edges=True).sample(50, np.random.default_rng(4))
    assert labels.shape[1] == OUTPUTS
    ends: dict[tuple[int, int, int], frozenset[tuple[int, int, int]]] = {}
    edges = EdgeMap(layout)
    for mechanism in experiment.mechanisms:
        place = edges.of_mechanism(mechanism)
        if place is not None:
            ends[place] = frozenset(spot for spot in mechanism.spots if spot[0] == layout.own)
    n = layout.code.num_cells
    for shot, label in zip(events, labels[:, HARD_OUTPUTS:], strict=True):
        explained = np.zeros((num_layers, n), np.uint8)
        for number, t, cell in np.argwhere(label.reshape(EDGE_OUTPUTS, num_layers, n)).tolist():
            for _, layer, check in ends[number, t, cell]:
                explained[layer, check] ^= 1
        assert np.array_equal(explained, shot[layout.own].reshape(num_layers, n))
