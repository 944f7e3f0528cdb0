"""Feed: rounds from a ZeroMQ PULL socket, received, checked, folded and placed by compiled code."""

from __future__ import annotations

import threading

import numpy as np
import zmq
from numpy.typing import NDArray

from rtqec.config import FeedTable
from rtqec.kernels.ingest import ingest
from rtqec.kernels.native import precise_timers, timespec
from rtqec.kernels.records import FEED_STATE
from rtqec.plan import Plan
from rtqec.plan.tables import FoldTables
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock
from rtqec.wire import MESSAGE_BYTES_MAX

RECEIVE_TIMEOUT_MS = 100
"""How long an idle ingest sleeps before it looks whether to stop, and beats."""


class Feed:
    """The ingest thread and what it owns.

    Args:
        plans: One per patch.
        patch_ids: Their ids.
        ring: Where rounds go.
        telemetry: Its `feed_counters` are written here.
        table: `[feed]`.
        socket: A bound PULL socket. From `start` on it belongs to the ingest thread.
        waiting: How to wait for a message; see `LaneTable.waiting_ns`.
    """

    def __init__(
        self, plans: list[Plan], patch_ids: list[int], ring: Ring, telemetry: TelemetryBlock, table: FeedTable,
        socket: zmq.Socket[bytes], waiting: NDArray[np.int64],
    ) -> None:  # fmt: skip
        socket.setsockopt(zmq.RCVTIMEO, RECEIVE_TIMEOUT_MS)
        self._socket = socket
        self._ring = ring
        self._waiting = waiting
        self._telemetry = telemetry
        self._tables = FoldTables(plans, patch_ids, table.payload == "detection_events")
        self._tables.patches["require_crc"] = table.require_crc
        self._states = np.zeros(len(plans), FEED_STATE)
        self._states["epoch"] = -1
        self._words = np.zeros(MESSAGE_BYTES_MAX // 8, np.uint64)
        self._message = self._words.view(np.uint8)
        self._events = np.zeros((2, max(plan.layout.scratch_words for plan in plans)), np.uint64)
        self._times = np.zeros(3, np.int64)
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def warm(self) -> None:
        """Compile the loop, without receiving."""
        running = self._ring.control.copy()
        self._ring.control[:] = 1
        self._run()
        self._ring.control[:] = running

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for the thread to end, after `Ring.stop`."""
        self._thread.join()

    def _run(self) -> None:
        ring = self._ring
        precise_timers()
        ingest(
            self._socket.underlying, self._tables.patches, ring.places, self._states, self._tables.layers,
            self._tables.program,
            ring.events_b8, ring.slots, ring.cursors, ring.signal, ring.control, self._telemetry.feed_counters,
            self._message, self._words, self._events, self._times,
            self._waiting, timespec(),
        )  # fmt: skip
