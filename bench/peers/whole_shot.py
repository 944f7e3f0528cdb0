"""PyMatching on whole shots, as its own users run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pymatching

from bench.peers.peer import Decoded, Peer, ShotPeer, Shots, Task, Watch


class Plain(ShotPeer):
    """One `decode_batch` of one bit-packed row per shot: the cheapest way in for shots that come one by one."""

    name = "pymatching"
    package = "pymatching"
    method = "matching"
    correlated = False

    def __init__(self, task: Task) -> None:
        self._matching = pymatching.Matching.from_detector_error_model(
            task.experiment.own_dem, enable_correlations=self.correlated
        )

    def lay(self, shots: Shots) -> Sequence[Any]:
        """Rows of bytes, LSB first."""
        return list(np.packbits(shots.detection_events, axis=1, bitorder="little")[:, np.newaxis])

    def call(self) -> Callable[[Any], Any]:
        """See `ShotPeer.call`."""
        return partial(self._matching.decode_batch, bit_packed_shots=True, enable_correlations=self.correlated)


class Correlated(Plain):
    """The same with correlations between the parts of an error."""

    name = "pymatching_correlated"
    method = "correlated matching"
    correlated = True


class Batch(Peer):
    """All shots in one `decode_batch`, bit-packed."""

    name = "pymatching_batch"
    package = "pymatching"
    takes = "batch"
    method = "matching"

    def __init__(self, task: Task) -> None:
        self._matching = pymatching.Matching.from_detector_error_model(task.experiment.own_dem)

    def decode(self, shots: Shots) -> Decoded:
        """See `Peer.decode`."""
        rows, watch = np.packbits(shots.detection_events, axis=1, bitorder="little"), Watch()
        with watch:
            flips = self._matching.decode_batch(rows, bit_packed_shots=True)
        return Decoded(np.asarray(flips, np.bool_), watch.cpu_ns, watch.wall_ns, np.zeros(0, np.int64))
