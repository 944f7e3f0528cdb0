"""Commit: keep what windows may decide, hand the rest on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rtqec.batch import Streams, WindowBatch
from rtqec.kernels.commit import commit_windows
from rtqec.kernels.native import entry_of
from rtqec.telemetry import TelemetryBlock


class Commit:
    """Errors that begin in the commit region are final; their flips join the frame, their seam the ring.

    Args:
        streams: The lane's patches and models; their states are advanced here.
        telemetry: Its `resets` are obeyed here.
    """

    def __init__(self, streams: Streams, telemetry: TelemetryBlock) -> None:
        self._streams, self._resets = streams, telemetry.resets
        self._commit: Callable[..., None] = commit_windows

    def warm(self, batch: WindowBatch) -> None:
        """Compile, on an empty batch."""
        batch.count = 0
        self._commit = entry_of(commit_windows, *self._args(batch))

    def __call__(self, batch: WindowBatch) -> None:
        """Keep what each window may decide; hand the rest to the next one.

        Args:
            batch: Its `answers_b8` and `matched` are filled. Fills `corrections`.

        Source: Dennis, Kitaev, Landahl, Preskill, J. Math. Phys. 43, 4452 (2002), section VI.
        """
        self._commit(*self._args(batch))

    def _args(self, batch: WindowBatch) -> tuple[Any, ...]:
        streams = self._streams
        return (
            streams.streams, streams.model_records, streams.seam, self._resets, batch.windows, batch.count,
            batch.answers_b8, batch.matched, batch.corrections,
        )  # fmt: skip
