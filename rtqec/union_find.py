"""Union-find: a matcher's answer in bounded time, somewhat less often the right one. Same door as `match.Matcher`.

PyMatching's time explodes where half of the detectors fire, as after a particle's impact; here the number of steps of a
window has a hard bound, and nothing is allocated after the constructor (`bench.studies.fallback`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtqec.kernels.union_find import (
    BOUNDARY,
    EDGE,
    EDGE_INDEX,
    LIGHTEST,
    NUM_WORK,
    UNTOUCHED,
    VERTEX,
    VISITS,
    decode_windows,
)
from rtqec.plan.edges import graph_edges
from rtqec.plan.model import WindowModel

MEDIAN_WEIGHT = 12
"""Units of growth of the median edge. Logical failures in 10,000 shots of 70 rounds, windows of 7 + 7, p = 0.004, of
which matching fails 468: 756 with 2 units, 598 with 8, 525 with 12, 532 with 64 (2026-11-20). Units cost time."""
MAX_WEIGHT = 4 * MEDIAN_WEIGHT
"""Bounds the work. An edge that takes the place of four median ones is hardly ever the right one; how rare it is
beyond that decides nothing."""


class UnionFind:
    """One compiled window model. `__call__` decodes windows of equal shape in one batch.

    Attributes:
        model: The window.
        detectors: int32, shape (num_edges, 2): the detectors of each edge, -1 for the boundary.
        weights: int32, shape (num_edges,): lengths in units of growth; edges of probability 1/2 are free.
        visits_max: Most looks at an edge while one window's clusters grow: each edge once per unit of its weight, and
            once more. Everything else (touch, join, peel, reset) is done at most once per end of an edge; finding a
            root takes at most log2 of the number of detectors steps.

    Args:
        model: The window. Components that flip equal detectors become one edge.
        batch_windows: Most windows of a batch.
    """

    def __init__(self, model: WindowModel, batch_windows: int = 1) -> None:
        self.model = model
        edges = graph_edges(model.dem)
        num_edges, num_vertices = len(edges), 8 * model.row_bytes
        self.detectors = np.array([(*key, BOUNDARY)[:2] for key in edges], np.int32).reshape(-1, 2)
        self.weights = _weights(np.array([probability for probability, _ in edges.values()]))
        self.visits_max = int(np.maximum(self.weights + 1, 2).sum())
        flips = [observables for _, observables in edges.values()]
        self._flips = np.array([bit for bits in flips for bit in bits], np.int32)
        self._edges = np.zeros(num_edges, EDGE)
        self._edges["near"], self._edges["far"] = self.detectors.T
        self._edges["weight"] = self.weights
        self._edges["end_flip"] = np.cumsum([len(bits) for bits in flips])
        self._edges["first_flip"][1:] = self._edges["end_flip"][:-1]
        self._vertices, self._halves = _vertices(self.detectors, num_vertices)
        self._open_edges = np.zeros_like(self._halves)
        self._lacking = self.weights.copy()
        self._touched = np.zeros(num_vertices, np.int32)
        self._active = np.zeros(num_vertices, np.int32)
        self._full = np.zeros(2 * num_edges, EDGE_INDEX)
        self._work = np.zeros(NUM_WORK, np.int64)
        self._work[LIGHTEST] = self.weights.min(initial=MAX_WEIGHT, where=self.weights > 0)
        self._none_erased = np.zeros(0, EDGE_INDEX)
        self._answers = np.zeros((batch_windows, model.answer_bytes), np.uint8)

    @property
    def visits(self) -> int:
        """Looks at an edge during the last call, all its windows together."""
        return int(self._work[VISITS])

    def warm(self) -> None:
        """Compile, or load from the cache."""
        self(np.zeros((1, self.model.row_bytes), np.uint8))

    def __call__(self, rows_b8: NDArray[np.uint8], erased: NDArray[np.uint32] | None = None) -> NDArray[np.uint8]:
        """Decode a batch.

        Args:
            rows_b8: uint8, shape (num_windows, model.row_bytes), LSB first, masked by `model.mask_b8`.
            erased: uint32, indices of edges that have flipped with probability 1/2 in all these windows.

        Returns:
            uint8, shape (num_windows, model.answer_bytes), LSB first: observables, then one bit per seam detector.
            A view of this object's memory; the next call overwrites it.

        Raises:
            ValueError: The events of a window cannot be paired.
        """
        answers = self._answers[: len(rows_b8)]
        failed = decode_windows(
            rows_b8, self._none_erased if erased is None else erased, self._vertices, self._edges, self._halves,
            self._open_edges, self._lacking, self._flips, self._touched, self._active, self._full, self._work, answers,
        )  # fmt: skip
        if failed >= 0:
            raise ValueError(
                f"Window {failed} of the batch has an odd number of events in a part of the graph without boundary, so "
                "that they cannot be paired. It has no answer; decode the others without it."
            )
        return answers


def _weights(probabilities: NDArray[np.float64]) -> NDArray[np.int32]:
    """Log-likelihoods in units of growth, int32, same shape."""
    weights: NDArray[np.float64] = np.log1p(-probabilities) - np.log(probabilities)
    positive = weights[weights > 0]
    unit = np.median(positive) / MEDIAN_WEIGHT if len(positive) else 1.0
    return np.where(weights > 0, np.clip(np.rint(weights / unit), 1, MAX_WEIGHT), 0).astype(np.int32)


def _vertices(detectors: NDArray[np.int32], num_vertices: int) -> tuple[NDArray[np.void], NDArray[np.uint32]]:
    """Vertices with their half-edges: `VERTEX`, and the edges of each vertex in order of their number."""
    ends = detectors.T.reshape(-1)
    edge_of = np.tile(np.arange(len(detectors), dtype=EDGE_INDEX), 2)[ends != BOUNDARY]
    ends = ends[ends != BOUNDARY]
    vertices = np.zeros(num_vertices, VERTEX)
    vertices["parent"] = UNTOUCHED
    vertices["end_half"] = np.cumsum(np.bincount(ends, minlength=num_vertices))
    vertices["first_half"][1:] = vertices["end_half"][:-1]
    return vertices, edge_of[np.lexsort((edge_of, ends))]
