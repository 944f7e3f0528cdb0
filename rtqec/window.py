"""Window: wait until windows have closed, choose how they are decoded, and gather those that go together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.batch import Streams, WindowBatch
from rtqec.kernels.native import entry_of, timespec
from rtqec.kernels.records import WINDOW_SLOT
from rtqec.kernels.window import wait_for_windows
from rtqec.ring import Ring
from rtqec.units import NS_PER_MS

WAIT_TIMEOUT_NS = 100 * NS_PER_MS
"""How long an idle path sleeps before it looks whether to stop."""


class Window:
    """The decisions of the path: which windows have closed, on which rung, and which are decoded together.

    Args:
        streams: The lane's patches.
        ring: Where rounds come from.
        waiting: How to wait for a window; see `LaneTable.waiting_ns`.
        timeout_ns: How long a call waits; 0 where whoever calls knows when to look.
    """

    def __init__(
        self, streams: Streams, ring: Ring, waiting: NDArray[np.int64], timeout_ns: int = WAIT_TIMEOUT_NS
    ) -> None:
        self._ring, self._streams = ring, streams
        self._timeout_ns = timeout_ns
        self._waiting = waiting
        self._closed = np.zeros(len(streams.patches), WINDOW_SLOT)
        self._spec = timespec()
        self._wait: Callable[..., int] = wait_for_windows

    def warm(self) -> None:
        """Compile the loop, without waiting."""
        self._wait = entry_of(wait_for_windows, *self._args(WindowBatch(1, self._streams), 0))

    def __call__(self, batch: WindowBatch) -> bool:
        """Wait for the next batch.

        Args:
            batch: Filled with windows of one matcher.

        Returns:
            False where there was nothing to do for so long, or the lane stops.
        """
        batch.count = self._wait(*self._args(batch, self._timeout_ns))
        if batch.count:
            batch.model_index = batch.models.item(0)
        return batch.count > 0

    def _args(self, batch: WindowBatch, timeout_ns: int) -> tuple[Any, ...]:
        return (
            self._streams.streams, self._streams.shelf, batch.windows, self._closed, batch.rows_b8, self._ring.signal,
            self._ring.control, self._waiting, timeout_ns, self._spec,
        )  # fmt: skip
