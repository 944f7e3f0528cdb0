"""What a network's answers do: the detectors and observables that an error in each cell flips.

An answer says, of each cell, a data error of the kind that checks of its channel see ("data", at the data qubit of that
cell) and a wrong outcome of the check in that cell ("check"). A data error at layer t flips the detectors of its
checks at t; a wrong outcome those of its check at t and t + 1. Where a layer has no such detectors, nothing flips; what
flips nothing at all is not answered, and neither is an outcome of the last layer, which no measurement follows.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import stim
from numpy.typing import NDArray

from rtqec.errors import PlanError
from rtqec.neural.layout import GridLayout
from rtqec.plan.rounds import RoundMap

DATA, CHECK = 0, 1

Spot = tuple[int, int, int]
"""A detector on the grid: channel, layer, cell."""

Cause = tuple[int, int, int, int]
"""An error in a cell: layer, DATA or CHECK, channel, cell. In order of preference: earlier first, data before check."""


@dataclass(frozen=True)
class Mechanism:
    """One independent error of the model.

    Attributes:
        probability: Of it.
        spots: Detectors that it flips.
        observables: Observables that it flips, as a bit mask.
    """

    probability: float
    spots: frozenset[Spot]
    observables: int


def mechanisms(dem: stim.DetectorErrorModel, rounds: RoundMap, layout: GridLayout) -> list[Mechanism]:
    """The errors of a model on the grid. Those that flip nothing are left out."""
    n = layout.code.num_cells
    spot_of: list[Spot] = []
    for t, slot in zip(rounds.detector_round.tolist(), rounds.detector_slot.tolist(), strict=True):
        place = layout.places(t, rounds.num_rounds)[slot]
        spot_of.append((place // n, t, place % n))
    found = []
    for instruction in dem.flattened():
        if instruction.type != "error":
            continue
        spots: set[Spot] = set()
        observables = 0
        for target in instruction.targets_copy():
            if target.is_relative_detector_id():
                spots ^= {spot_of[target.val]}
            elif target.is_logical_observable_id():
                observables ^= 1 << target.val
        if spots:
            found.append(Mechanism(instruction.args_copy()[0], frozenset(spots), observables))
    return found


class Effects:
    """What each answer flips, in a shot of so many layers.

    Args:
        layout: The grid.
        num_layers: Layers of the shot.
        logical: uint64, shape (2, num_cells): observables that a data error of each channel and cell flips, as bits.
    """

    def __init__(self, layout: GridLayout, num_layers: int, logical: NDArray[np.uint64]) -> None:
        self.layout, self.num_layers, self.logical = layout, num_layers, logical

    def detectors(self, cause: Cause) -> frozenset[Spot]:
        """The detectors that an answer flips."""
        t, kind, channel, cell = cause
        code = self.layout.code
        if kind == DATA:
            spots = {(channel, t, check) for check in code.checks_of[channel][cell]}
        elif t < self.num_layers - 1 and cell in code.cells[channel]:
            spots = {(channel, t, cell), (channel, t + 1, cell)}
        else:
            spots = set()
        return frozenset(spot for spot in spots if self.layout.has(channel, spot[1], self.num_layers))

    def observables(self, cause: Cause) -> int:
        """The observables that it flips, as a bit mask."""
        _, kind, channel, cell = cause
        return int(self.logical[channel, cell]) if kind == DATA and self.detectors(cause) else 0

    def causes(self, spot: Spot) -> list[Cause]:
        """The answers that flip a detector, in order of preference."""
        channel, t, check = spot
        code = self.layout.code
        qubits = [q for q in range(code.num_cells) if check in code.checks_of[channel][q]]
        found = [(t - 1, CHECK, channel, check), (t, CHECK, channel, check)]
        found += [(t, DATA, channel, qubit) for qubit in qubits]
        return sorted(cause for cause in found if cause[0] >= 0 and spot in self.detectors(cause))


def logical_cells(found: list[Mechanism], layout: GridLayout, num_layers: int) -> NDArray[np.uint64]:
    """The observables that a data error of each channel and cell flips, read off the error model.

    A single data error has an edge of its own; where edges with the same detectors flip different observables (below
    distance 5), the likelier one is that of the single error.

    Returns:
        uint64, shape (2, num_cells).

    Raises:
        PlanError: A data qubit of the experiment's own kind has no error of its own.
    """
    weight: dict[frozenset[Spot], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for mechanism in found:
        weight[mechanism.spots][mechanism.observables] += mechanism.probability
    logical = np.zeros((2, layout.code.num_cells), np.uint64)
    effects = Effects(layout, num_layers, logical)
    for cell in range(layout.code.num_cells):
        seen: dict[int, float] = defaultdict(float)
        for t in range(num_layers):
            for observables, probability in weight[effects.detectors((t, DATA, layout.own, cell))].items():
                seen[observables] += probability
        if not seen:
            raise PlanError(
                "[predecode]", f"is given, but no error of [plan] is that of data qubit {cell} alone.",
                "The network's answers are data errors and wrong outcomes; what a data error does to the observables "
                "is read off the error model.", "Give every data qubit some noise, or remove [predecode].",
            )  # fmt: skip
        logical[layout.own, cell] = max(seen, key=lambda o: seen[o])
    return logical
