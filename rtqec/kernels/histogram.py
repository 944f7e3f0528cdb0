"""Where a value falls in a log-linear histogram; allocated once, written by one thread."""

from __future__ import annotations

from typing import Any

from rtqec.histogram import NUM_BINS, SUB_BINS
from rtqec.kernels.native import compiled


@compiled
def bin_of(value: Any) -> Any:
    """The bin of a value >= 0; bins below 64 are exact."""
    if value < SUB_BINS:
        return max(value, 0)
    shift = 0
    while (value >> shift) >= 2 * SUB_BINS:
        shift += 1
    return min((shift + 1) * SUB_BINS + (value >> shift) - SUB_BINS, NUM_BINS - 1)
