"""Measurements to detection events, round by round.

A detector is the XOR of measurements of its round and of earlier ones, of the shot's sweep bits, and of a constant
from Stim's reference sample. All three are found by asking Stim: its converter from measurements to detection events
is affine over GF(2), so unit vectors give its matrix and the zero vector gives the constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import stim
from numpy.typing import NDArray

from rtqec.errors import PlanError
from rtqec.plan.rounds import RoundMap

_PROBES_AT_ONCE = 1024
_CHAIN_LIMIT = 64
"""Look-back of more rounds than this is no repeated parity check: the history that a patch keeps would not be small."""


@dataclass(frozen=True)
class FoldProgram:
    """How one layer is folded.

    Attributes:
        num_measurements: Width of the block.
        num_detectors: Width of the layer.
        constants: uint8, shape (num_detectors,).
        sources: int64, shape (num_sources, 3): slot of the detector, rounds back, measurement in that block.
        sweeps: int64, shape (num_sweeps, 2): slot of the detector, sweep bit.
        pivots: int64, shape (num_detectors,): a measurement of this block that only this detector of the layer
            contains, or -1. A missing round is filled by choosing these so that its detectors read 0.
    """

    num_measurements: int
    num_detectors: int
    constants: NDArray[np.uint8]
    sources: NDArray[np.int64]
    sweeps: NDArray[np.int64]
    pivots: NDArray[np.int64]

    @property
    def look_back(self) -> int:
        """Rounds of history that it needs."""
        return int(self.sources[:, 1].max(initial=0))

    @property
    def content(self) -> bytes:
        """What makes two programs equal."""
        sizes = np.array([self.num_measurements, self.num_detectors], np.int64)
        return b"|".join(part.tobytes() for part in (sizes, self.constants, self.sources, self.sweeps))


def fold_programs(circuit: stim.Circuit, rounds: RoundMap) -> list[FoldProgram]:
    """The program of every layer of a shot.

    Raises:
        PlanError: A detector uses a measurement of a later round, or one that is too long ago.
    """
    constant, detector, measurement, swept, sweep = _affine_map(circuit)
    block = np.searchsorted(rounds.block_starts, measurement, side="right") - 1
    back = rounds.detector_round[detector] - block
    if len(back) and back.min() < 0:
        culprit = int(np.argmin(back))
        raise PlanError(
            "[plan] time_coordinate", f"puts detector D{detector[culprit]} into round "
            f"{rounds.detector_round[detector[culprit]]}, but it uses measurement {measurement[culprit]} of round "
            f"{block[culprit]}.",
            "A detector can only be folded when all its measurements have arrived.",
            "Correct time_coordinate or measurements_per_round: one of them is not what the hardware sends.",
        )  # fmt: skip
    if len(back) and back.max() > _CHAIN_LIMIT:
        culprit = int(np.argmax(back))
        raise PlanError(
            "[plan] circuit", f"has detector D{detector[culprit]}, which looks back {back[culprit]} rounds; the bound "
            f"is {_CHAIN_LIMIT}.", "The history of measurements that a patch keeps has a fixed size.",
            "Write detectors as differences of consecutive rounds.",
        )  # fmt: skip
    programs = []
    for t in range(rounds.num_rounds):
        mine = rounds.detector_round[detector] == t
        sources = np.stack(
            [
                rounds.detector_slot[detector[mine]],
                back[mine],
                measurement[mine] - rounds.block_starts[block[mine]],
            ],
            axis=1,
        )
        mine_swept = rounds.detector_round[swept] == t
        sweeps = np.stack([rounds.detector_slot[swept[mine_swept]], sweep[mine_swept]], axis=1)
        members = np.flatnonzero(rounds.detector_round == t)
        constants = np.zeros(len(members), np.uint8)
        constants[rounds.detector_slot[members]] = constant[members]
        programs.append(
            FoldProgram(
                int(rounds.block_widths[t]),
                len(members),
                constants,
                _sorted_rows(sources),
                _sorted_rows(sweeps),
                _pivots(sources, len(members)),
            )
        )
    return programs


def _sorted_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[np.lexsort(rows.T[::-1])] if len(rows) else rows


def _pivots(sources: NDArray[np.int64], num_detectors: int) -> NDArray[np.int64]:
    """A private measurement of this round for each detector, or -1."""
    pivots = np.full(num_detectors, -1, np.int64)
    here = sources[sources[:, 1] == 0]
    bits, counts = np.unique(here[:, 2], return_counts=True)
    private = set(bits[counts == 1].tolist())
    for slot, _, bit in here.tolist():
        if bit in private and pivots[slot] < 0:
            pivots[slot] = bit
    return pivots


def _affine_map(
    circuit: stim.Circuit,
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Constant, (detector, measurement) pairs, (detector, sweep bit) pairs of the folding."""
    convert = circuit.compile_m2d_converter()
    num_measurements, num_sweeps = circuit.num_measurements, circuit.num_sweep_bits
    zero_m = np.zeros((1, num_measurements), np.bool_)
    zero_s = np.zeros((1, num_sweeps), np.bool_)
    constant = convert.convert(measurements=zero_m, sweep_bits=zero_s, append_observables=False)[0]
    pairs_m = []
    for start in range(0, num_measurements, _PROBES_AT_ONCE):
        probes = np.eye(min(_PROBES_AT_ONCE, num_measurements - start), num_measurements, start, dtype=np.bool_)
        sweeps = np.zeros((len(probes), num_sweeps), np.bool_)
        found = convert.convert(measurements=probes, sweep_bits=sweeps, append_observables=False) ^ constant
        probe, detector = np.nonzero(found)
        pairs_m.append(np.stack([detector, probe + start]))
    probes = np.eye(num_sweeps, dtype=np.bool_)
    measurements = np.zeros((num_sweeps, num_measurements), np.bool_)
    found = convert.convert(measurements=measurements, sweep_bits=probes, append_observables=False) ^ constant
    sweep, swept = np.nonzero(found)
    detector, measurement = np.concatenate(pairs_m, axis=1)
    return constant, detector, measurement, swept, sweep
