"""fusion-blossom's serial solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import fusion_blossom
import numpy as np

from bench.peers.graph import BOUNDARY, task_edges
from bench.peers.peer import ShotPeer, Shots, Task

_WEIGHT_UNITS = 1000
"""Weights are even whole numbers: of a natural logarithm so many parts, twice."""


class FusionBlossom(ShotPeer):
    """`SolverSerial` on the whole graph: solve, read the matched edges, clear."""

    name = "fusion_blossom"
    package = "fusion-blossom"
    method = "matching"

    def __init__(self, task: Task) -> None:
        edges = task_edges(task, by_time=False)
        boundary = edges.num_detectors
        weights = 2 * np.maximum(np.round(edges.weights * _WEIGHT_UNITS), 1).astype(np.int64)
        pairs = np.where(edges.detectors == BOUNDARY, boundary, edges.detectors)
        weighted = [(a, b, weight) for (a, b), weight in zip(pairs.tolist(), weights.tolist(), strict=True)]
        initializer = fusion_blossom.SolverInitializer(boundary + 1, weighted, [boundary])
        self._solver = fusion_blossom.SolverSerial(initializer)
        bits = 1 << np.arange(edges.observables.shape[1], dtype=object)
        self._flips: list[int] = (edges.observables.astype(object) @ bits).tolist()
        self._num_observables = edges.observables.shape[1]

    def lay(self, shots: Shots) -> Sequence[Any]:
        """Its own syndrome patterns."""
        return [fusion_blossom.SyndromePattern(np.flatnonzero(events).tolist()) for events in shots.detection_events]

    def call(self) -> Callable[[Any], int]:
        """See `ShotPeer.call`."""
        solver, flips_of = self._solver, self._flips

        def decode(pattern: Any) -> int:
            solver.solve(pattern)
            flips = 0
            for edge in solver.subgraph():
                flips ^= flips_of[edge]
            solver.clear()
            return flips

        return decode

    def flips(self, answers: list[Any]) -> Any:
        """See `ShotPeer.flips`."""
        return np.array([[answer >> i & 1 for i in range(self._num_observables)] for answer in answers], np.bool_)
