"""Match: PyMatching on the detection events of windows. The only door to pymatching."""

from __future__ import annotations

import numpy as np
import pymatching
from numpy.typing import NDArray

from rtqec.batch import WindowBatch
from rtqec.kernels.window import HELD
from rtqec.plan.model import WindowModel

_WARM_SEED = 20261120
_WARM_ROWS = 64
_WARM_DENSITY = 0.03
"""Denser than any surface code below threshold, so that the matcher's own arenas have grown before READY."""


class Matcher:
    """One compiled window model. `__call__` decodes windows of equal shape in one batch.

    Args:
        model: The window.
        correlated: Use the correlations between the components of an error (two passes, about 2.5 times the time).
    """

    def __init__(self, model: WindowModel, correlated: bool) -> None:
        self.model = model
        self.correlated = correlated
        self._matching = pymatching.Matching.from_detector_error_model(model.dem, enable_correlations=correlated)

    def warm(self) -> None:
        """Decode random windows, dense ones too, so that PyMatching's memory has grown to what it will need."""
        rng = np.random.default_rng(_WARM_SEED)
        shape = (_WARM_ROWS, 8 * self.model.row_bytes)
        for density in (_WARM_DENSITY, _WARM_DENSITY / 10):
            rows = np.packbits(rng.random(shape) < density, axis=1, bitorder="little") & self.model.mask_b8
            for row in rows:
                try:
                    self(row[np.newaxis])
                except ValueError:  # A part of the graph without boundary takes only even numbers of events.
                    continue

    def __call__(self, rows_b8: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Decode a batch.

        Args:
            rows_b8: uint8, shape (num_windows, model.row_bytes), LSB first, masked by `model.mask_b8`.

        Returns:
            uint8, shape (num_windows, model.answer_bytes), LSB first: observables, then one bit per seam detector.
            The array is PyMatching's own allocation, the only one of a call.

        Raises:
            ValueError: The events of a window cannot be paired.
        """
        answer: NDArray[np.uint8] = self._matching.decode_batch(
            rows_b8, bit_packed_shots=True, bit_packed_predictions=True, enable_correlations=self.correlated
        )
        return answer

    def edges(self, row_b8: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The edges of one window's matching: pairs of detectors, -1 for the boundary.

        Args:
            row_b8: uint8, shape (model.row_bytes,).

        Returns:
            int64, shape (num_edges, 2).
        """
        dense = np.unpackbits(row_b8, bitorder="little")
        found: NDArray[np.int64] = self._matching.decode_to_edges_array(dense, enable_correlations=self.correlated)
        return found


class Match:
    """The stage: one matcher per distinct window model of the lane.

    Args:
        models: The models, and whether each is matched with correlations.
        batch_windows: Most windows of a batch.
    """

    def __init__(self, models: list[tuple[WindowModel, bool]], batch_windows: int) -> None:
        self.matchers = [Matcher(model, correlated) for model, correlated in models]
        self._views: list[list[NDArray[np.uint8] | None]] = [[None] * (batch_windows + 1) for _ in models]
        self._partial = False

    def warm(self) -> None:
        """Grow every matcher's memory to what it will need."""
        for matcher in self.matchers:
            matcher.warm()

    def __call__(self, batch: WindowBatch) -> None:
        """Fill `answers_b8` and `matched`. A window that cannot be paired, or is held, stays without an answer."""
        if self._partial:
            batch.matched.fill(1)
            self._partial = False
        if batch.model_index == HELD:
            batch.answers_b8 = batch.no_answers_b8
            batch.matched.fill(0)
            self._partial = True
            return
        matcher, rows = self.matchers[batch.model_index], self._rows(batch)
        try:
            batch.answers_b8 = matcher(rows)
        except ValueError:
            self._partial = True
            self._one_by_one(batch, matcher, rows)

    def _rows(self, batch: WindowBatch) -> NDArray[np.uint8]:
        """The batch's memory as rows of its matcher; each shape is made once."""
        views = self._views[batch.model_index]
        view = views[batch.count]
        if view is None:
            row_bytes = self.matchers[batch.model_index].model.row_bytes
            view = batch.rows_b8[: batch.count * row_bytes].reshape(batch.count, row_bytes)
            views[batch.count] = view
        return view

    def _one_by_one(self, batch: WindowBatch, matcher: Matcher, rows: NDArray[np.uint8]) -> None:
        """After a batch failed: find the windows that cannot be paired, so that the others are answered."""
        answers = np.zeros((batch.count, matcher.model.answer_bytes), np.uint8)
        for i in range(batch.count):
            try:
                answers[i] = matcher(rows[i : i + 1])[0]
                batch.matched[i] = 1
            except ValueError:
                batch.matched[i] = 0
        batch.answers_b8 = answers
