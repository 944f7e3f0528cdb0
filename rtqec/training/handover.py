"""The hard hand-over of whole shots, to judge networks by: answers, residual, matching, and who was right.

Shots come from Stim's own sampler, not from the one that makes labels: what is judged shares nothing with what taught.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import stim
from numpy.typing import NDArray

from rtqec.errors import PlanError
from rtqec.neural.card import Matching
from rtqec.neural.experiment import GridExperiment
from rtqec.neural.network import HARD_OUTPUTS
from rtqec.neural.restate import Restatement
from rtqec.reference import WholeShotMatcher

Answers = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Events on the grid, uint8, shape (num_shots, 2, num_layers, distance, distance), to logits, float32, shape
(num_shots, outputs, num_layers, distance, distance): data errors and wrong outcomes of the own kind of checks, then
edges, where the network answers for them."""

MATCHINGS: tuple[Matching, ...] = ("plain", "correlated")


@dataclass(frozen=True)
class Shots:
    """Whole shots, and how matching alone does on them.

    Attributes:
        events: On the grid, uint8, shape (num_shots, 2, num_layers, distance, distance).
        flips: What the observables did, uint64, shape (num_shots,), one bit each.
        wrong: Of each matching, where it fails, bool, shape (num_shots,).
    """

    events: NDArray[np.uint8]
    flips: NDArray[np.uint64]
    wrong: dict[Matching, NDArray[np.bool_]]


class HardHandOver:
    """One experiment: its shots, its matchers, and the way from logits to failures.

    Args:
        experiment: On the grid, in the own frame.

    Raises:
        PlanError: Its error model does not decompose into edges of one kind of checks.
    """

    def __init__(self, experiment: GridExperiment) -> None:
        self.experiment = experiment
        layout, rounds = experiment.layout, experiment.rounds
        n = layout.code.num_cells
        places = [
            layout.places(t, rounds.num_rounds)[slot]
            for t, slot in zip(rounds.detector_round.tolist(), rounds.detector_slot.tolist(), strict=True)
        ]
        channel, cell = np.divmod(np.array(places, np.int64), n)
        self._place = (channel * rounds.num_rounds + rounds.detector_round) * n + cell
        self._own = channel == layout.own
        self.restate = Restatement(experiment.effects, (layout.own,))

    @property
    def volume_shape(self) -> tuple[int, int, int, int]:
        """Of one shot on the grid."""
        size = self.experiment.layout.code.distance
        return 2, self.experiment.rounds.num_rounds, size, size

    @cached_property
    def matchers(self) -> dict[Matching, WholeShotMatcher]:
        """Plain matching sees the own kind of checks only: the other kind's edges flip no observable."""
        dem = decomposed(self.experiment)
        plain = WholeShotMatcher(edges_between(dem, self._own), correlated=False)
        return {"plain": plain, "correlated": WholeShotMatcher(dem, correlated=True)}

    def sampler(self, seed: int) -> Callable[[int], Shots]:
        """A source of fresh shots; equal seeds give equal shots on equal machines (Stim's promise, and its limit)."""
        if self.experiment.circuit is not None:
            circuit_sampler = self.experiment.circuit.compile_detector_sampler(seed=seed)

            def draw(count: int) -> Shots:
                return self.shots(*circuit_sampler.sample(count, separate_observables=True))
        else:
            dem_sampler = self.experiment.dem.compile_sampler(seed=seed)

            def draw(count: int) -> Shots:
                events, flips, _ = dem_sampler.sample(count)
                return self.shots(events, flips)

        return draw

    def shots(self, detection_events: NDArray[np.bool_], observables: NDArray[np.bool_]) -> Shots:
        """Put sampled shots on the grid, and match them as they are."""
        grid = np.zeros((len(detection_events), int(np.prod(self.volume_shape))), np.uint8)
        grid[:, self._place] = detection_events
        events = grid.reshape(-1, *self.volume_shape)
        flips = as_bits(observables)
        return Shots(events, flips, {m: self.wrong(events, np.zeros_like(flips), flips, m) for m in MATCHINGS})

    def detection_events(self, events: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Events on the grid in the order of the error model, uint8, shape (num_shots, num_detectors)."""
        bits: NDArray[np.uint8] = events.reshape(len(events), -1)[:, self._place]
        return bits

    def wrong(
        self,
        events: NDArray[np.uint8],
        flips: NDArray[np.uint64],
        truth: NDArray[np.uint64],
        matching: Matching,
    ) -> NDArray[np.bool_]:
        """Where matching some (residual) events, together with flips already answered, misses the truth."""
        bits = self.detection_events(events)
        if matching == "plain":
            bits = bits & self._own
        predicted = self.matchers[matching](np.packbits(bits, axis=1, bitorder="little"))
        missed: NDArray[np.bool_] = (as_bits(predicted) ^ flips) != truth
        return missed

    def failures(
        self, shots: Shots, logits: NDArray[np.float32], thresholds: Sequence[float], matching: Matching
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Decide, restate and match, for several thresholds.

        Returns:
            Where it fails, bool, shape (len(thresholds), num_shots); events of the own kind of checks that are left,
            int64, shape (len(thresholds),).
        """
        wrong = np.empty((len(thresholds), len(shots.events)), np.bool_)
        left = np.empty(len(thresholds), np.int64)
        for at, threshold in enumerate(thresholds):
            residual, flips = self.restate(shots.events, logits[:, :HARD_OUTPUTS] >= threshold)
            wrong[at] = self.wrong(residual, flips, shots.flips, matching)
            left[at] = self.num_events(residual)
        return wrong, left

    def num_events(self, events: NDArray[np.uint8]) -> int:
        """Events of the own kind of checks, the one that is answered."""
        return int(np.count_nonzero(events[:, self.experiment.layout.own]))


def decomposed(experiment: GridExperiment) -> stim.DetectorErrorModel:
    """The error model that matchers read.

    Raises:
        PlanError: An error flips more than two detectors in one part.
    """
    if experiment.circuit is not None:
        try:
            return experiment.circuit.detector_error_model(
                decompose_errors=True, approximate_disjoint_errors=True, flatten_loops=True
            )
        except ValueError as error:
            raise _not_matchable(str(error).splitlines()[0]) from error
    for instruction in experiment.dem:
        if instruction.type == "error":
            most = max(sum(t.is_relative_detector_id() for t in group) for group in instruction.target_groups())
            if most > 2:
                raise _not_matchable(f"`{instruction}`, a part of which flips {most} detectors")
    return experiment.dem


def edges_between(dem: stim.DetectorErrorModel, own: NDArray[np.bool_]) -> stim.DetectorErrorModel:
    """The edges between some detectors only; numbers of detectors and observables stay.

    Args:
        dem: Decomposed, without loops.
        own: Which detectors, bool, shape (num_detectors,).

    Raises:
        PlanError: An edge joins one of them to another one.
    """
    kept = stim.DetectorErrorModel()
    for instruction in dem:
        if instruction.type != "error":
            continue
        targets: list[stim.DemTarget] = []
        for group in instruction.target_groups():
            owned = {bool(own[target.val]) for target in group if target.is_relative_detector_id()}
            if len(owned) > 1:
                raise _not_matchable(f"`{instruction}`, an edge between checks of both kinds")
            if True in owned:
                targets += [stim.target_separator(), *group] if targets else group
        if targets:
            kept.append("error", instruction.args_copy(), targets)
    kept.append("detector", [], [stim.target_relative_detector_id(len(own) - 1)])
    kept.append("logical_observable", [], [stim.target_logical_observable_id(dem.num_observables - 1)])
    return kept


def as_bits(observables: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """One bit per observable, uint64, shape (num_shots,)."""
    places = np.arange(observables.shape[1], dtype=np.uint64)
    bits: NDArray[np.uint64] = np.bitwise_or.reduce(observables.astype(np.uint64) << places, axis=1)
    return bits


def _not_matchable(found: str) -> PlanError:
    return PlanError(
        "[[point]]", f"has an error model with {found}.",
        "Networks are judged by matching what they leave, and matching pairs detection events.",
        "Decompose the errors: stim analyze_errors --decompose_errors.",
    )  # fmt: skip
