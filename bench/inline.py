"""A lane of one patch without threads: every stage is the real one, and the caller says when each works."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
import zmq

from rtqec.batch import Streams
from rtqec.commit import Commit
from rtqec.config import FeedTable, LadderTable
from rtqec.feed import Intake
from rtqec.kernels.records import HEAD, STOP
from rtqec.match import Match
from rtqec.pipeline import Pipeline
from rtqec.plan import Plan
from rtqec.publish import Publish
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock
from rtqec.window import Window

JOURNAL = 1024
NO_BUDGET_US = 1e12
"""A budget that is never short: every window is decoded by its own matching."""


class InlineLane:
    """Ring, intake and stages of one patch, warm. Use as a context manager.

    The path is told to stop, so that it never waits: `pipeline.step()` carries what has closed.

    Args:
        plan: The patch's plan.
        ladder, budget_us: As configured.
        ring_rounds: Room.
        batch_windows: Most windows of a batch.

    Attributes:
        ring, intake, streams, telemetry: As in a lane.
        window, match, commit, publish: The stages; `pipeline` has them in travelling order, and the batch.
        out: The PUSH socket of `publish`.
        corrections: The PULL socket at which corrections arrive.
    """

    def __init__(
        self, plan: Plan, ladder: LadderTable, budget_us: float = NO_BUDGET_US, ring_rounds: int = 8192,
        batch_windows: int = 1,
    ) -> None:  # fmt: skip
        self.plan = plan
        self._folder = tempfile.TemporaryDirectory()
        self._context = zmq.Context()
        out: zmq.Socket[bytes] = self._context.socket(zmq.PUSH)
        self.corrections: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        for socket in (out, self.corrections):
            socket.set_hwm(0)
            socket.setsockopt(zmq.LINGER, 0)
        out.bind(f"ipc://{self._folder.name}/corrections")
        self.corrections.connect(f"ipc://{self._folder.name}/corrections")
        self.corrections.setsockopt(zmq.RCVTIMEO, 10_000)
        self.out = out
        self.telemetry = TelemetryBlock.create(Path(self._folder.name) / "inline.telemetry", [0], JOURNAL)
        self.ring = Ring([plan], ring_rounds)
        table = FeedTable(endpoint="inproc://inline", round_period_us=1.0)
        self.intake = Intake([plan], [0], self.ring, self.telemetry, table)
        self.streams = Streams([plan], [0], [budget_us], ladder, self.ring, self.telemetry)
        self.window = Window(self.streams, self.ring, np.zeros(2, np.int64))
        self.match = Match(self.streams.models, batch_windows)
        self.commit = Commit(self.streams, self.telemetry)
        self.publish = Publish(out, self.streams, self.telemetry)
        self.pipeline = Pipeline(
            self.streams, self.ring, self.window, self.match, self.commit, self.publish, batch_windows
        )
        self.pipeline.warm()
        self.ring.control[STOP] = 1

    @property
    def head(self) -> int:
        """Rounds written."""
        return int(self.ring.cursors[HEAD])

    @head.setter
    def head(self, rounds: int) -> None:
        self.ring.cursors[HEAD] = rounds

    def __enter__(self) -> InlineLane:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for socket in (self.out, self.corrections):
            socket.close()
        self._context.term()
        self._folder.cleanup()
