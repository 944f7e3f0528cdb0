"""Log-linear histograms with fixed bins: 1/64 relative width. How lanes write them is in `kernels.histogram`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SUB_BITS = 6
SUB_BINS = 1 << SUB_BITS
NUM_BINS = SUB_BINS * 42
"""Up to 2^47 ns, a day and a half; larger values fall into the last bin."""


def bin_edges() -> NDArray[np.int64]:
    """The smallest value of each bin, int64, shape (NUM_BINS,)."""
    block, place = np.divmod(np.arange(NUM_BINS), SUB_BINS)
    upper = (SUB_BINS + place) << np.maximum(block - 1, 0)
    return np.where(block == 0, place, upper).astype(np.int64)


def percentile(counts: NDArray[np.int64], fraction: float) -> float | None:
    """The middle of the bin below which `fraction` of the samples lie, in the histogram's unit.

    None where the samples do not carry it: fewer than ten lie above, unless `fraction` is a half.
    """
    total = int(counts.sum())
    if total == 0 or (fraction > 0.5 and total - fraction * total < 10):
        return None
    index = int(np.searchsorted(np.cumsum(counts), fraction * total))
    edges = bin_edges()
    upper = edges[index + 1] if index + 1 < NUM_BINS else edges[index]
    return float(edges[index] + max(upper - 1, edges[index])) / 2
