"""An error model as the edges of a matching graph, as libraries that know no error models want it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import stim
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from bench.peers.peer import CannotDecodeError, Task

BOUNDARY = -1


@dataclass(frozen=True)
class Edges:
    """The parts of all errors between two `^`, equal ones merged as independent, in order of time.

    Attributes:
        detectors: int64, shape (num_edges, 2), the earlier one first; the second is `BOUNDARY` where there is none.
        observables: bool, shape (num_edges, num_observables).
        probabilities: float64, shape (num_edges,).
        num_detectors: Of the model.
    """

    detectors: NDArray[np.int64]
    observables: NDArray[np.bool_]
    probabilities: NDArray[np.float64]
    num_detectors: int

    def __len__(self) -> int:
        return len(self.detectors)

    @property
    def weights(self) -> NDArray[np.float64]:
        """Log-likelihood ratios."""
        return np.log((1 - self.probabilities) / self.probabilities)

    def check_matrix(self) -> csr_matrix:
        """Which detectors an edge flips, uint8, shape (num_detectors, num_edges)."""
        return matrix_of(self.detectors, self.num_detectors)

    def observable_matrix(self) -> csr_matrix:
        """Which observables an edge flips, uint8, shape (num_observables, num_edges)."""
        return csr_matrix(self.observables.T.astype(np.uint8))

    def as_dem(self) -> str:
        """As the text of a detector error model whose errors are these edges."""
        lines = []
        for probability, pair, flips in zip(self.probabilities, self.detectors.tolist(), self.observables, strict=True):
            targets = [f"D{detector}" for detector in pair if detector != BOUNDARY]
            targets += [f"L{observable}" for observable in np.flatnonzero(flips)]
            lines.append(f"error({probability:.17g}) {' '.join(targets)}")
        return "\n".join(lines)


def matrix_of(detectors: NDArray[np.int64], num_rows: int) -> csr_matrix:
    """Pairs of rows, `BOUNDARY` for none, as the columns of a matrix, uint8, shape (num_rows, len(detectors))."""
    columns, which = np.nonzero(detectors != BOUNDARY)
    rows = detectors[columns, which]
    matrix = csr_matrix((np.ones(len(rows), np.uint8), (rows, columns)), shape=(num_rows, len(detectors)))
    matrix.sort_indices()
    return matrix


@lru_cache(maxsize=4)
def task_edges(task: Task, by_time: bool) -> Edges:
    """The edges of a task's experiment; see `edges_of`."""
    return edges_of(task.experiment.own_dem, task.rounds.detector_round, by_time)


def edges_of(dem: stim.DetectorErrorModel, detector_round: NDArray[np.int64], by_time: bool) -> Edges:
    """Read an error model.

    Args:
        dem: Errors decomposed, loops flattened.
        detector_round: int64, shape (num_detectors,): when each is known.
        by_time: Whether to number detectors in order of round instead of the model's own order.

    Raises:
        CannotDecodeError: Some part of an error flips more than two detectors.
    """
    order = np.argsort(detector_round, kind="stable")
    number = np.arange(len(order))
    if by_time:
        number[order] = np.arange(len(order))
        detector_round = detector_round[order]
    merged: dict[tuple[int, ...], tuple[float, frozenset[int]]] = {}
    for probability, parts in _errors(dem):
        for part, flips in parts:
            if len(part) > 2:
                raise CannotDecodeError("an error has a part that flips more than two detectors")
            key = tuple(sorted(int(number[detector]) for detector in part))
            if not key or probability == 0:
                continue
            known, kept = merged.get(key, (0.0, flips))
            merged[key] = known * (1 - probability) + probability * (1 - known), kept
    detectors = np.array([(*key, BOUNDARY)[:2] for key in merged], np.int64).reshape(-1, 2)
    # An edge belongs to the round of its earlier detector.
    rounds = np.where(detectors == BOUNDARY, -1, detector_round[detectors])
    swapped = (rounds[:, 0] > rounds[:, 1]) & (detectors[:, 1] != BOUNDARY)
    detectors[swapped] = detectors[swapped][:, ::-1]
    rounds.sort(axis=1)
    last = rounds[:, 1]
    first = np.where(rounds[:, 0] < 0, last, rounds[:, 0])
    placed = np.lexsort((detectors[:, 1], detectors[:, 0], last, first))
    observables = np.zeros((len(merged), dem.num_observables), np.bool_)
    for row, (_, kept) in zip(observables, merged.values(), strict=True):
        row[list(kept)] = True
    probabilities = np.array([probability for probability, _ in merged.values()])
    return Edges(detectors[placed], observables[placed], probabilities[placed], dem.num_detectors)


Part = tuple[list[int], frozenset[int]]
"""Detectors and observables of one part of an error."""


def _errors(dem: stim.DetectorErrorModel) -> list[tuple[float, list[Part]]]:
    """Probability and parts of every error."""
    errors = []
    for instruction in dem.flattened():
        if instruction.type == "error":
            parts = [_part(group) for group in instruction.target_groups()]
            errors.append((instruction.args_copy()[0], parts))
    return errors


def _part(targets: list[stim.DemTarget]) -> Part:
    detectors = [target.val for target in targets if target.is_relative_detector_id()]
    return detectors, frozenset(target.val for target in targets if target.is_logical_observable_id())
