"""Feed: rounds from a ZeroMQ PULL socket, received, checked, folded and placed by compiled code."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import zmq
from numpy.typing import NDArray

from rtqec.config import FeedTable
from rtqec.kernels.ingest import ingest
from rtqec.kernels.native import precise_timers, timespec
from rtqec.kernels.records import FEED_LIMITS, FEED_STATE, STOP
from rtqec.plan import Plan
from rtqec.plan.tables import FoldTables
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock
from rtqec.units import NS_PER_MS, ns_from_us
from rtqec.wire import MESSAGE_BYTES_MAX

RECEIVE_TIMEOUT_MS = 100
"""How long an idle ingest sleeps before it looks whether to stop, and beats."""
_WAITING_BYTES = 4096
"""Room for one message that came before its turn; a longer one does not wait."""


class Intake:
    """What ingest works on: the patches' fold tables, where each stands, and its waiting room. Allocated once.

    Args:
        plans: One per patch.
        patch_ids: Their ids.
        ring: Where rounds go.
        telemetry: Its `feed_counters` and sampled events are written here.
        table: `[feed]`.

    Attributes:
        tables: Fold tables.
        states: `FEED_STATE`, shape (num_patches,).
        feed: What compiled code takes; see `kernels.placing`.
        words, message: The receive buffer, as uint64 and as uint8.
        events, times: Scratch; see `kernels.ingest`.
    """

    def __init__(
        self, plans: list[Plan], patch_ids: list[int], ring: Ring, telemetry: TelemetryBlock, table: FeedTable
    ) -> None:
        self.tables = FoldTables(plans, patch_ids, table.payload == "detection_events")
        self.tables.patches["require_crc"] = table.require_crc
        self.states = np.zeros(len(plans), FEED_STATE)
        self.states["epoch"] = -1
        limits = np.zeros(len(plans), FEED_LIMITS)
        limits["reorder_depth"] = table.reorder_depth
        limits["gap_wait_ns"] = ns_from_us(table.gap_wait_us)
        limits["round_timeout_ns"] = round(table.round_timeout_ms * NS_PER_MS)
        limits["takeover_ns"] = round(table.takeover_ms * NS_PER_MS)
        waiting_words = np.zeros((len(plans), max(table.reorder_depth, 1), _WAITING_BYTES // 8), np.uint64)
        room = (waiting_words, np.full(waiting_words.shape[:2], -1, np.int64), waiting_words.view(np.uint8))
        self.words = np.zeros(MESSAGE_BYTES_MAX // 8, np.uint64)
        self.message = self.words.view(np.uint8)
        self.events = np.zeros((2, max(plan.layout.scratch_words for plan in plans)), np.uint64)
        self.times = np.zeros(3, np.int64)
        self.feed = (
            self.tables.patches, ring.places, self.states, self.tables.layers, self.tables.program, ring.events_b8,
            ring.slots, ring.cursors, ring.signal, telemetry.feed_counters, limits, room,
            (telemetry.event_counts, telemetry.event_rounds, telemetry.heard_tags),
        )  # fmt: skip


class Feed:
    """The ingest thread and what it owns.

    Args:
        intake: What it works on.
        ring: Where rounds go.
        socket: A bound PULL socket, or None until `open`. From `start` on it belongs to the ingest thread.
        waiting: How to wait for a message; see `LaneTable.waiting_ns`.
        place_thread: Called by the thread before it receives.
    """

    def __init__(
        self, intake: Intake, ring: Ring, socket: zmq.Socket[bytes] | None, waiting: NDArray[np.int64],
        place_thread: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._ring, self._intake, self._waiting = ring, intake, waiting
        self._place_thread = place_thread
        self._socket: zmq.Socket[bytes] | None = None
        if socket is not None:
            self.open(socket)
        self._thread: threading.Thread | None = None

    def open(self, socket: zmq.Socket[bytes]) -> None:
        """Receive from a bound PULL socket, once started."""
        socket.setsockopt(zmq.RCVTIMEO, RECEIVE_TIMEOUT_MS)
        self._socket = socket

    def warm(self) -> None:
        """Compile the loop, without receiving. It stops by other control words: a lane may run on those of the ring."""
        stopped = np.zeros_like(self._ring.control)
        stopped[STOP] = 1
        self._run(stopped)
        self._intake.states["draining"] = 0

    def start(self) -> None:
        """Begin to receive. The thread is made here, as one that was made before a fork is dead after it."""
        self._thread = threading.Thread(target=self._receive, name="ingest", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread is not None and self._thread.is_alive()

    def join(self) -> None:
        """Wait for the thread to end, after `Ring.stop`."""
        if self._thread is not None:
            self._thread.join()

    def _receive(self) -> None:
        self._place_thread()
        precise_timers()
        self._run(self._ring.control)

    def _run(self, control: NDArray[np.int64]) -> None:
        intake = self._intake
        pointer = self._socket.underlying if self._socket is not None else 0
        ingest(
            pointer, intake.feed, control, intake.message, intake.words, intake.events, intake.times,
            self._waiting, timespec(),
        )  # fmt: skip
