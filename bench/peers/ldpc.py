"""Decoders of the ldpc package: those that suit a surface code memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ldpc.bplsd_decoder import BpLsdDecoder
from ldpc.ckt_noise.dem_matrices import detector_error_model_to_check_matrices
from ldpc.union_find_decoder import UnionFindDecoder
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from bench.peers.graph import task_edges
from bench.peers.peer import ShotPeer, Shots, Task

_UNION_FIND: Any = UnionFindDecoder  # Its stubs do not show the constructor.
_BP_ITERATIONS = 30
_MIN_SUM_SCALE = 0.625
"""As in the package's own decoders for circuit noise."""


class _ErrorPeer(ShotPeer):
    """A decoder that answers with errors, from which the observables are computed, as its user must."""

    package = "ldpc"
    _observables: csr_matrix

    def lay(self, shots: Shots) -> Sequence[Any]:
        """Rows of uint8."""
        return list(shots.detection_events.astype(np.uint8))

    def _projected(self, decode: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Callable[[Any], Any]:
        observables = self._observables
        return lambda syndrome: observables @ decode(syndrome) % 2


class UnionFind(_ErrorPeer):
    """Union-find on the edges of the matching graph, by peeling, every edge of equal weight.

    With weights (`llrs`) it was slower and wrong more often on these graphs (d = 5, 50 rounds, p = 0.003: 146 failures
    of 300 shots instead of 31; version 2.4.1, 2 cores of an EPYC, 2026-11-21).
    """

    name = "ldpc_union_find"
    method = "union-find, unweighted"

    def __init__(self, task: Task) -> None:
        edges = task_edges(task, by_time=False)
        self._observables = edges.observable_matrix()
        self._decoder = _UNION_FIND(edges.check_matrix(), uf_method="peeling")

    def call(self) -> Callable[[Any], Any]:
        """See `ShotPeer.call`."""
        return self._projected(self._decoder.decode)


class LocalisedStatistics(_ErrorPeer):
    """Belief propagation (30 iterations, min-sum), then localised statistics of order 0, on all errors as they are."""

    name = "ldpc_bplsd"
    method = "BP + LSD of order 0"
    shots_max = 200

    def __init__(self, task: Task) -> None:
        matrices = detector_error_model_to_check_matrices(task.experiment.own_dem, allow_undecomposed_hyperedges=True)
        self._observables = csr_matrix(matrices.observables_matrix)
        self._decoder = BpLsdDecoder(
            matrices.check_matrix, error_channel=list(matrices.priors), max_iter=_BP_ITERATIONS,
            bp_method="minimum_sum", ms_scaling_factor=_MIN_SUM_SCALE, schedule="parallel", lsd_order=0,
        )  # fmt: skip

    def call(self) -> Callable[[Any], Any]:
        """See `ShotPeer.call`."""
        return self._projected(self._decoder.decode)
