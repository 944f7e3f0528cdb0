"""Edges of the matching graph of an error model, parallel ones joined."""

from __future__ import annotations

import stim

Detectors = tuple[int, ...]
"""One or two detectors, in order."""


def graph_edges(dem: stim.DetectorErrorModel) -> dict[Detectors, tuple[float, Detectors]]:
    """The edges of a model.

    Args:
        dem: Errors decomposed into parts of at most two detectors.

    Returns:
        Of each pair of detectors, or single one at the boundary: probability, and observables. Parts that flip the same
        are independent errors; of parallel edges with other observables the likeliest is kept.
    """
    same: dict[tuple[Detectors, Detectors], float] = {}
    for error in dem.flattened():
        if error.type != "error":
            continue
        p = error.args_copy()[0]
        for part in error.target_groups():
            detectors = tuple(sorted(target.val for target in part if target.is_relative_detector_id()))
            observables = tuple(sorted(target.val for target in part if target.is_logical_observable_id()))
            assert len(detectors) <= 2  # The plan has refused all others.
            if detectors and p > 0:
                q = same.get((detectors, observables), 0.0)
                same[detectors, observables] = p * (1 - q) + q * (1 - p)
    edges: dict[Detectors, tuple[float, Detectors]] = {}
    for (detectors, observables), probability in same.items():
        if probability > edges.get(detectors, (0.0,))[0]:
            edges[detectors] = (probability, observables)
    return edges
