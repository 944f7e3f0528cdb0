"""Match: a decoder for the detection events of windows. The only door to pymatching."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pymatching
from numpy.typing import NDArray

from rtqec.batch import Decoding, Weighing, WindowBatch
from rtqec.few_events import FewEvents, worthwhile
from rtqec.kernels.ladder import NUM_BUCKETS, bucket_of
from rtqec.kernels.shot import HELD
from rtqec.neural.layout import GridLayout
from rtqec.plan.model import WindowModel
from rtqec.soft_matcher import SoftMatcher
from rtqec.union_find import UnionFind

_WARM_SEED = 20261120
_WARM_ROWS = 48
_WARM_DENSITIES = (0.003, 0.03, 0.1, 0.5)
"""Of random events: up to what a burst may bring."""
_OVERHEAD_NS = 5_000
"""What the rest of the path adds to a decoding, until that is learned."""


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


class SoftWindows:
    """A window model decoded with the weights that a network gives its edges. Where that has said nothing, as plain
    matching does it.

    Args:
        grid: Of its detectors.
        plain: Plain matching of the window.
    """

    def __init__(self, grid: GridLayout, plain: Matcher | FewEvents) -> None:
        self.model = plain.model
        self._soft, self._plain = SoftMatcher(plain.model, grid), plain
        self._nothing = np.zeros((0, 0, 0), np.float32)

    def __call__(self, rows_b8: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Decode a batch with the model's own weights; as `Matcher`."""
        return np.array([self._soft(row, self._nothing, 0, 0, 0) for row in rows_b8])

    def weighed(self, rows_b8: NDArray[np.uint8], weighing: Weighing | None) -> NDArray[np.uint8]:
        """Decode a batch.

        Args:
            rows_b8: As for `Matcher`.
            weighing: What the network said of its windows.

        Returns:
            As of `Matcher`.
        """
        if weighing is None:
            return self._plain(rows_b8)
        answers = []
        for row, chunk in zip(rows_b8, weighing.chunk_of.tolist(), strict=False):
            if chunk < 0:
                answers.append(self._plain(row[np.newaxis])[0].copy())
            else:
                first, stop = weighing.spans[chunk].tolist()
                answers.append(self._soft(row, weighing.answers[chunk], weighing.behind, first, stop))
        return np.array(answers)


Decoder = Matcher | FewEvents | UnionFind | SoftWindows
"""What decodes the windows of one model."""


def warm_costs(decoder: Decoder) -> NDArray[np.float64]:
    """Decode windows of the model's own noise, and random dense ones, so that the decoder's memory has grown.

    Returns:
        float64, shape (NUM_BUCKETS,): what a window took, by its number of events, ns: a first guess of its cost. For
        as many events as the noise brings, that of the noise: events strewn at random cost more.
    """
    rng = np.random.default_rng(_WARM_SEED)
    model = decoder.model
    events, _, _ = model.dem.compile_sampler(seed=_WARM_SEED).sample(_WARM_ROWS)
    costs = _measure(decoder, np.packbits(events, axis=1, bitorder="little"))
    most = int(np.flatnonzero(costs).max(initial=-1))
    for density in _WARM_DENSITIES:
        strewn = rng.random((_WARM_ROWS // len(_WARM_DENSITIES), 8 * model.row_bytes)) < density
        found = _measure(decoder, np.packbits(strewn, axis=1, bitorder="little"))
        rarer = (np.arange(NUM_BUCKETS) > most) & (costs == 0)
        costs[rarer] = found[rarer]
    known = np.flatnonzero(costs)
    if not len(known):
        return np.full(NUM_BUCKETS, float(_OVERHEAD_NS))
    # More events never cost less.
    return np.maximum.accumulate(np.interp(np.arange(NUM_BUCKETS), known, costs[known]))


def _measure(decoder: Decoder, rows_b8: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The least that a window with so many events took, ns, by bucket; 0 where there was none."""
    costs = np.zeros(NUM_BUCKETS)
    for row in rows_b8 & decoder.model.mask_b8:
        started = time.perf_counter_ns()
        try:
            decoder(row[np.newaxis])
        except ValueError:  # A part of the graph without boundary takes only even numbers of events.
            continue
        bucket = bucket_of(int(np.bitwise_count(row).sum()))
        took = time.perf_counter_ns() - started + _OVERHEAD_NS
        costs[bucket] = min(costs[bucket] or took, took)
    return costs


def _matcher(model: WindowModel, decoding: Decoding, batch_windows: int) -> Matcher | FewEvents:
    """What matches a model; with a table in front where its own noise often brings few events."""
    matcher = Matcher(model, decoding.matching == "correlated")
    if not worthwhile(model):
        return matcher
    try:
        return FewEvents(matcher, batch_windows)
    except ValueError:  # A part of the graph without boundary takes only even numbers of events.
        return matcher


class Match:
    """The stage: one decoder per distinct window model of the lane.

    Args:
        models: The models, and what decodes each.
        batch_windows: Most windows of a batch.
        grids: Of each model, the grid of its detectors; None where no network knows it.

    Attributes:
        matchers: Of each model.
    """

    def __init__(
        self, models: list[tuple[WindowModel, Decoding]], batch_windows: int,
        grids: Sequence[GridLayout | None] | None = None,
    ) -> None:  # fmt: skip
        self.matchers: list[Decoder] = []
        made: dict[tuple[str, str], Matcher | FewEvents] = {}
        bounded: dict[str, UnionFind] = {}
        for number, (model, decoding) in enumerate(models):
            if decoding is Decoding.UNION_FIND:
                if model.content not in bounded:
                    bounded[model.content] = UnionFind(model, batch_windows)
                self.matchers.append(bounded[model.content])
                continue
            # Windows that come out of the network are decoded by the same matcher, only their cost is another.
            key = (model.content, decoding.matching)
            if key not in made:
                made[key] = _matcher(model, decoding, batch_windows)
            grid = None if grids is None else grids[number]
            # What reaches in from an unknown past has no place on the grid.
            if decoding is Decoding.SOFT and grid is not None and not model.past_rounds:
                self.matchers.append(SoftWindows(grid, made[key]))
            else:
                self.matchers.append(made[key])
        self._views: list[list[NDArray[np.uint8] | None]] = [[None] * (batch_windows + 1) for _ in models]
        self._partial = False

    def warm(self) -> NDArray[np.float64]:
        """Grow every decoder's memory to what it will need.

        Returns:
            float64, shape (num_models, NUM_BUCKETS); see `warm_costs`.
        """
        return np.array([warm_costs(matcher) for matcher in self.matchers])

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
            if isinstance(matcher, SoftWindows):
                batch.answers_b8 = matcher.weighed(rows, batch.weighing)
            else:
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

    def _one_by_one(self, batch: WindowBatch, matcher: Decoder, rows: NDArray[np.uint8]) -> None:
        """After a batch failed: find the windows that cannot be paired, so that the others are answered."""
        answers = np.zeros((batch.count, matcher.model.answer_bytes), np.uint8)
        for i in range(batch.count):
            try:
                answers[i] = matcher(rows[i : i + 1])[0]
                batch.matched[i] = 1
            except ValueError:
                batch.matched[i] = 0
        batch.answers_b8 = answers
