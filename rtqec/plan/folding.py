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
        fixes: int64, shape (num_fixes, 2): slot of a detector, measurement of this block. Flipping all measurements
            of one slot flips that detector and no other of the layer; so a missing round is filled such that its
            detectors read 0. Empty where the layer's detectors are not independent.
    """

    num_measurements: int
    num_detectors: int
    constants: NDArray[np.uint8]
    sources: NDArray[np.int64]
    sweeps: NDArray[np.int64]
    fixes: NDArray[np.int64]

    @property
    def look_back(self) -> int:
        """Rounds of history that it needs."""
        return int(self.sources[:, 1].max(initial=0))

    @property
    def diagonal_back(self) -> int:
        """k where detector i is measurement i of this round and of k rounds before, for all i; else 0."""
        now = np.arange(self.num_detectors)
        back = self.look_back
        pairs = np.stack([np.repeat(now, 2), np.tile([0, back], len(now)), np.repeat(now, 2)], axis=1)
        plain = not len(self.sweeps) and self.num_detectors == self.num_measurements
        return back if plain and np.array_equal(self.sources, pairs) else 0

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
                _fixes(sources, len(members), int(rounds.block_widths[t])),
            )
        )
    return programs


def _sorted_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[np.lexsort(rows.T[::-1])] if len(rows) else rows


def _fixes(sources: NDArray[np.int64], num_detectors: int, num_measurements: int) -> NDArray[np.int64]:
    """A right inverse over GF(2) of the map from this block's measurements to the layer's detectors, as pairs."""
    parity = np.zeros((num_detectors, num_measurements), np.bool_)
    here = sources[sources[:, 1] == 0]
    parity[here[:, 0], here[:, 2]] = True
    transform = np.eye(num_detectors, dtype=np.bool_)
    pivots: list[int] = []
    # Measurements of few detectors first: most layers then need one measurement per detector.
    for column in np.argsort(parity.sum(axis=0), kind="stable").tolist():
        row = len(pivots)
        candidates = np.flatnonzero(parity[row:, column]) + row
        if row == num_detectors or not len(candidates):
            continue
        swap = [row, int(candidates[0])]
        parity[swap], transform[swap] = parity[swap[::-1]], transform[swap[::-1]]
        others = parity[:, column].copy()
        others[row] = False
        parity[others] ^= parity[row]
        transform[others] ^= transform[row]
        pivots.append(column)
    if len(pivots) < num_detectors:
        return np.zeros((0, 2), np.int64)
    row_of, slot = np.nonzero(transform)
    return _sorted_rows(np.stack([slot, np.array(pivots, np.int64)[row_of]], axis=1))


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
