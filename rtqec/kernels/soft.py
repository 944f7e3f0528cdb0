"""The soft hand-over in compiled code: from a network's answers for edges to what a matcher is given."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.native import compiled


@compiled
def reweigh(edges: Any, ends: Any, row_b8: Any, answers: Any, behind: Any, first: Any, stop: Any, floor: Any,
            events: Any, found: Any, weights: Any, turned: Any) -> Any:  # fmt: skip
    """Find the edges that a network thinks likely, with their weights: minus the logit.

    A matcher takes no negative weights. An edge more likely than not is *turned*: taken as fired, its ends flipped,
    and matching it means that it has not.

    Args:
        edges: int32, shape (num_edges, 3): the plane of its answer, or -1, layer and cell of each edge.
        ends: int32, shape (num_edges, 2): its detectors; a number behind the last one stands for the boundary.
        row_b8: uint8, shape (row_bytes,): the detection events, LSB first.
        answers: float32, shape (outputs, layers, num_cells): logits.
        behind: Layers of the answers before the window's first.
        first, stop: Layers of the answers that count.
        floor: Logits up to it change nothing.
        events: uint8, shape (num_detectors + 1,): filled with the events, ends of turned edges flipped.
        found, weights: int64 and float64, shape (num_edges,): filled with the edges and their new weights.
        turned: uint8, shape (num_edges,): filled with whether each found edge is turned.

    Returns:
        Number of edges found.
    """
    for i in range(len(row_b8)):
        for bit in range(8):
            events[8 * i + bit] = (row_b8[i] >> np.uint8(bit)) & np.uint8(1)
    count = 0
    for edge in range(len(edges)):
        layer = edges[edge, 1] + behind
        if edges[edge, 0] < 0 or layer < first or layer >= stop:
            continue
        logit = answers[edges[edge, 0], layer, edges[edge, 2]]
        if logit <= floor:
            continue
        found[count], weights[count], turned[count] = edge, abs(logit), 0
        if logit > 0:
            turned[count] = 1
            for end in range(2):
                events[ends[edge, end]] ^= np.uint8(1)
        count += 1
    return count
