"""Publish: corrections to the journal and a ZeroMQ PUSH socket. A controller that does not read stops nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from rtqec.batch import Streams, WindowBatch
from rtqec.kernels.native import entry_of, timespec
from rtqec.kernels.publish import publish_corrections, relay
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock


class Publish:
    """The last stage.

    Args:
        socket: A PUSH socket, of the path's thread; None until `open`.
        streams: Its `cost_ns` learns here.
        telemetry: Its journal, `path_counters`, `span_counts` and `rung_counts` are written here.
    """

    def __init__(self, socket: zmq.Socket[bytes] | None, streams: Streams, telemetry: TelemetryBlock) -> None:
        self._socket, self._pointer = socket, socket.underlying if socket is not None else 0
        self._telemetry, self._outbox = telemetry, streams.outbox
        self._kept = (
            telemetry.path_counters, telemetry.span_counts, telemetry.rung_counts, telemetry.journal,
            telemetry.journal_sent, telemetry.written, streams.outbox, streams.cost_ns, streams.quantile,
        )  # fmt: skip
        self._publish: Callable[..., int] = publish_corrections
        self._spec = timespec()

    def open(self, socket: zmq.Socket[bytes]) -> None:
        """Send to a bound PUSH socket from now on."""
        self._socket, self._pointer = socket, socket.underlying

    def relay(self, ring: Ring, relayed: NDArray[np.int64]) -> None:
        """Send what the path of another process keeps, until that has ended.

        Args:
            ring: Where it works.
            relayed: int64, shape (num_patches,): the corrections of each patch before it.
        """
        relay(*self._relay_args(ring.outbox, ring.control, relayed))

    def _relay_args(self, outbox: NDArray[Any], control: NDArray[Any], relayed: NDArray[np.int64]) -> tuple[Any, ...]:
        telemetry = self._telemetry
        return (
            self._pointer, telemetry.journal, telemetry.journal.reshape(-1).view(np.uint8), telemetry.journal_sent,
            telemetry.written, relayed, telemetry.path_counters, outbox, control, self._spec,
        )  # fmt: skip

    def warm(self, batch: WindowBatch) -> None:
        """Compile, on an empty batch."""
        batch.count = 0
        self._publish = entry_of(publish_corrections, *self._args(batch))
        telemetry = self._telemetry
        entry_of(relay, *self._relay_args(self._outbox, telemetry.control, telemetry.written.copy()))

    def __call__(self, batch: WindowBatch) -> None:
        """Stamp, send and keep the corrections of a batch; those that the transport does not take are counted."""
        self._publish(*self._args(batch))

    def _args(self, batch: WindowBatch) -> tuple[Any, ...]:
        return (
            self._pointer, batch.windows, batch.corrections, batch.corrections_b8, batch.count, *self._kept, self._spec,
        )  # fmt: skip
