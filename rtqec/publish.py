"""Publish: corrections to a ZeroMQ PUSH socket. A controller that does not read never stops the lane."""

from __future__ import annotations

import zmq

from rtqec.batch import WindowBatch
from rtqec.kernels.native import timespec
from rtqec.kernels.publish import publish_corrections
from rtqec.telemetry import TelemetryBlock


class Publish:
    """The last stage.

    Args:
        socket: A bound PUSH socket, of the path's thread.
        telemetry: Its `path_counters` and `service_counts` are written here.
    """

    def __init__(self, socket: zmq.Socket[bytes], telemetry: TelemetryBlock) -> None:
        self._socket, self._pointer, self._telemetry = socket, socket.underlying, telemetry
        self._spec = timespec()

    def warm(self, batch: WindowBatch) -> None:
        """Compile, on an empty batch."""
        batch.count = 0
        self(batch)

    def __call__(self, batch: WindowBatch) -> None:
        """Stamp and send the corrections of a batch; those that the transport does not take are counted."""
        publish_corrections(
            self._pointer, batch.windows, batch.corrections, batch.corrections_b8, batch.count,
            self._telemetry.path_counters, self._telemetry.service_counts, self._spec,
        )  # fmt: skip
