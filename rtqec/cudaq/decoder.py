"""A CUDA-Q decoder as tables, and the plan that decodes it.

CUDA-Q says which measurements each detector is the XOR of (`D`) and what each error flips (`H`, `O`); of rounds it
knows nothing. Windows do: a detector belongs to the round whose block brings its last measurement.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import stim
from numpy.typing import NDArray

from rtqec.config import LadderTable, PlanTable, WindowTable
from rtqec.plan import Plan
from rtqec.plan.compile import compile_experiment
from rtqec.plan.experiment import Experiment


@dataclass(frozen=True)
class CudaqDecoder:
    """One decoder.

    Attributes:
        dem: What each error flips, errors decomposed at `^`.
        measurements_of: Of each detector, in the order of the model: the measurements that it is the XOR of.
        num_observables: Bits of a correction.
        rounds: Of each detector: its round, where that is known. The blocks of measurements follow from it.
    """

    dem: stim.DetectorErrorModel
    measurements_of: tuple[tuple[int, ...], ...]
    num_observables: int
    rounds: tuple[int, ...] | None = None

    @classmethod
    def of_plan(cls, plan: Plan) -> CudaqDecoder:
        """The decoder that decodes as a plan does.

        Raises:
            ValueError: The plan is endless, has no measurements, or folds with constants or sweep bits, which CUDA-Q's
                tables cannot say.
        """
        layers = [*plan.first_layers, plan.last_layer]
        starts, rounds = plan.rounds.block_starts.tolist(), plan.rounds.detector_round
        if plan.endless:
            raise ValueError("an endless plan has no last measurement")
        found: list[list[int]] = [[] for _ in rounds]
        members = [np.flatnonzero(rounds == t) for t in range(plan.rounds.num_rounds)]
        for t, layer in enumerate(layers):
            program = layer.program
            if program is None or program.constants.any() or len(program.sweeps):
                raise ValueError(f"round {t} is not folded by XOR of measurements alone")
            detector_at = {int(plan.rounds.detector_slot[k]): int(k) for k in members[t]}
            for slot, back, measurement in program.sources.tolist():
                found[detector_at[slot]].append(starts[t - back] + measurement)
        tables = tuple(tuple(sorted(measurements)) for measurements in found)
        return cls(plan.experiment.dem, tables, plan.num_observables, tuple(rounds.tolist()))

    @property
    def num_measurements(self) -> int:
        """Measurements of a shot: CUDA-Q decodes when so many have come."""
        return 1 + max(max(measurements, default=0) for measurements in self.measurements_of)

    @cached_property
    def block_stops(self) -> NDArray[np.int64]:
        """Where each block of measurements ends, int64, shape (num_rounds,)."""
        last = np.array([max(measurements, default=0) for measurements in self.measurements_of])
        rounds = np.array(self.rounds if self.rounds is not None else rounds_of_blocks(self.measurements_of))
        stops = np.array([1 + last[rounds == t].max() for t in np.unique(rounds)])
        # A round without a measurement of its own is one with the round before it.
        return np.unique(np.maximum.accumulate(stops))

    @property
    def block_widths(self) -> list[int]:
        """Measurements of each round."""
        return [int(width) for width in np.diff(self.block_stops, prepend=0)]

    @property
    def detector_rounds(self) -> NDArray[np.int64]:
        """Of each detector, the round whose block brings its last measurement, int64, shape (num_detectors,)."""
        last = np.array([max(measurements, default=0) for measurements in self.measurements_of])
        return np.searchsorted(self.block_stops, last, side="right")

    def circuit(self) -> stim.Circuit:
        """A circuit with these measurements and detectors: it can be folded, not sampled."""
        total = self.num_measurements
        circuit = stim.Circuit()
        circuit.append("M", range(total))
        for measurements, t in zip(self.measurements_of, self.detector_rounds.tolist(), strict=True):
            circuit.append("DETECTOR", [stim.target_rec(k - total) for k in measurements], [t])
        return circuit

    def model(self) -> stim.DetectorErrorModel:
        """The errors, each detector with its round as its only coordinate."""
        model = stim.DetectorErrorModel()
        for instruction in self.dem.flattened():
            if instruction.type == "error":
                model.append(instruction)
        for detector, t in enumerate(self.detector_rounds.tolist()):
            model.append("detector", [t], [stim.target_relative_detector_id(detector)])
        for observable in range(self.num_observables):
            model.append("logical_observable", [], [stim.target_logical_observable_id(observable)])
        return model

    def compile(self, window: WindowTable, ladder: LadderTable, matching: str = "plain") -> Plan:
        """The plan that decodes it.

        Raises:
            PlanError: Matching cannot decode it, or the windows do not fit.
        """
        model = self.model()
        table = PlanTable(
            circuit="(tables)", measurements_per_round=self.block_widths, distance=_distance(model),
            matching="correlated" if matching == "correlated" else "plain",
        )  # fmt: skip
        return compile_experiment(table, window, ladder, Experiment(self.circuit(), model, model))


def rounds_of_blocks(measurements_of: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """The rounds of detectors, where only their measurements are known: the blocks that detectors look back over.

    A bulk detector is the XOR of one ancilla's measurements in two rounds, so that they lie one block apart. Where most
    detectors of two measurements agree on that distance, it is the width of a block, and what comes behind the last
    block of ancillas is the data readout. Otherwise all of it is one round.
    """
    last = [max(measurements, default=0) for measurements in measurements_of]
    apart = Counter(max(pair) - min(pair) for pair in measurements_of if len(pair) == 2)
    width, count = apart.most_common(1)[0] if apart else (0, 0)
    if 2 * count <= sum(apart.values()) or width < 1:
        return (0,) * len(last)
    # Detectors of the readout XOR data qubits with an ancilla of the last block before them.
    early = [max(m) for m in measurements_of if len(m) <= 2 and max(m) - min(m) in (0, width)]
    whole = (max(early) + 1) // width
    return tuple(min(k // width, whole) for k in last)


def _distance(model: stim.DetectorErrorModel) -> int:
    """The fewest errors that flip an observable unseen; 1 where there are none, as any buffer is long enough then."""
    try:
        return len(model.shortest_graphlike_error())
    except ValueError:
        return 1
