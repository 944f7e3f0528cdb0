"""The stages in travelling order. Nothing else orchestrates.

    feed | ring | window | predecode | match | commit | publish

`feed` runs in its own thread and meets the others in the ring; the rest is one loop, Python per window.
"""

from __future__ import annotations

from rtqec.batch import Streams, WindowBatch
from rtqec.commit import Commit
from rtqec.kernels.records import PATH_OWNER
from rtqec.match import Match
from rtqec.predecode import Predecode
from rtqec.publish import Publish
from rtqec.ring import Ring
from rtqec.window import Window


class Pipeline:
    """One lane's path.

    Args:
        ring, window, match, commit, publish: The stages.
        predecode: The stage between window and match, or None.
        streams: The lane's patches and models.
        batch_windows: Most windows decoded together.
    """

    def __init__(
        self, streams: Streams, ring: Ring, window: Window, match: Match, commit: Commit, publish: Publish,
        batch_windows: int, predecode: Predecode | None = None,
    ) -> None:  # fmt: skip
        self._streams, self._ring = streams, ring
        self._predecode = predecode
        self._window, self._match, self._commit, self._publish = window, match, commit, publish
        self.batch = WindowBatch(batch_windows, streams)

    def warm(self) -> None:
        """Pay for JIT, matchers and pages before READY."""
        self._ring.warm()
        self._window.warm()
        if self._predecode is not None:
            self._predecode.warm(self.batch)
        self._streams.cost_ns[:] = self._match.warm()
        self._commit.warm(self.batch)
        self._publish.warm(self.batch)

    def run(self, ticket: int = 0) -> None:
        """Carry windows until `Ring.stop`, or until another path is to go on."""
        control = self._ring.control
        while control.item(PATH_OWNER) == ticket:
            self.step()

    def step(self) -> bool:
        """Carry one batch along the path; False where there was none."""
        batch = self.batch
        if not self._window(batch):
            return False
        if self._predecode is not None:
            self._predecode(batch)
        self._match(batch)
        self._commit(batch)
        self._publish(batch)
        return True
