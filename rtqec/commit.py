"""Commit: keep what windows may decide, hand the rest on."""

from __future__ import annotations

from rtqec.batch import Streams, WindowBatch
from rtqec.kernels.commit import commit_windows
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock


class Commit:
    """Errors that begin in the commit region are final; their flips join the frame, their seam the ring.

    Args:
        streams: The lane's patches and models; their states are advanced here.
        ring: Where seams go, and slots back.
        telemetry: Its `path_counters` are written here.
    """

    def __init__(self, streams: Streams, ring: Ring, telemetry: TelemetryBlock) -> None:
        self._streams, self._ring, self._telemetry = streams, ring, telemetry

    def warm(self, batch: WindowBatch) -> None:
        """Compile, on an empty batch."""
        batch.count = 0
        self(batch)

    def __call__(self, batch: WindowBatch) -> None:
        """Keep what each window may decide; hand the rest to the next one.

        Args:
            batch: Its `answers_b8` and `matched` are filled. Fills `corrections`.

        Source: Dennis, Kitaev, Landahl, Preskill, J. Math. Phys. 43, 4452 (2002), section VI.
        """
        ring, streams = self._ring, self._streams
        commit_windows(
            streams.patches, ring.places, streams.states, streams.model_records, streams.seam, ring.events_b8,
            ring.cursors, batch.windows, batch.count, batch.answers_b8, batch.matched, batch.corrections,
            self._telemetry.path_counters,
        )  # fmt: skip
