"""Window: wait until windows have closed, and gather those that are decoded together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtqec.batch import Streams, WindowBatch
from rtqec.kernels.native import timespec
from rtqec.kernels.records import WINDOW_SLOT
from rtqec.kernels.window import wait_for_windows
from rtqec.ring import Ring
from rtqec.units import NS_PER_MS

WAIT_TIMEOUT_NS = 100 * NS_PER_MS
"""How long an idle path sleeps before it looks whether to stop."""


class Window:
    """The decisions of the path: which windows have closed, and which are decoded together.

    Args:
        streams: The lane's patches.
        ring: Where rounds come from.
        waiting: How to wait for a window; see `LaneTable.waiting_ns`.
    """

    def __init__(self, streams: Streams, ring: Ring, waiting: NDArray[np.int64]) -> None:
        self._ring, self._streams = ring, streams
        self._waiting = waiting
        self._closed = np.zeros(len(streams.patches), WINDOW_SLOT)
        self._spec = timespec()

    def warm(self) -> None:
        """Compile the loop, without waiting."""
        self._choose(WindowBatch(1, self._streams), 0)

    def __call__(self, batch: WindowBatch) -> bool:
        """Wait for the next batch.

        Args:
            batch: Filled with windows of one matcher.

        Returns:
            False where none has closed for `WAIT_TIMEOUT_NS`, or the lane stops.
        """
        return self._choose(batch, WAIT_TIMEOUT_NS)

    def _choose(self, batch: WindowBatch, timeout_ns: int) -> bool:
        ring, streams = self._ring, self._streams
        batch.count = wait_for_windows(
            streams.patches, ring.places, streams.states, ring.slots, ring.events_b8, ring.cursors,
            streams.open_models, streams.closing_models, streams.model_records, streams.masks, streams.cost_ns,
            batch.windows, self._closed, batch.rows_b8, ring.signal, ring.control, self._waiting, timeout_ns,
            self._spec,
        )  # fmt: skip
        if batch.count:
            batch.model_index = batch.models.item(0)
        return batch.count > 0
