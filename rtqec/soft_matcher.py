"""The soft hand-over: matching with weights that a network sets anew for every window. The door to fusion-blossom.

The matcher is given the window's own events; nothing is decided before it. An edge that the network thinks likely
weighs minus its logit, all others what the error model says. Whatever the network answers, the edges that are matched
explain every event: only which ones they are depends on it.

Source: Wu, Zhong, Fusion Blossom, arXiv:2305.08307 (2023), whose solver takes weights with each syndrome.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.errors import ConfigError, FaultError
from rtqec.kernels.native import entry_of
from rtqec.kernels.soft import reweigh
from rtqec.neural.edges import EdgeMap
from rtqec.neural.layout import GridLayout
from rtqec.neural.network import HARD_OUTPUTS
from rtqec.plan.edges import graph_edges
from rtqec.plan.model import WindowModel

FLOOR = -3.5
"""Logits up to it change nothing: such edges are unlikely enough, and there are many of them."""
CHECK_EVERY = 61
_UNITS = 1000
"""Weights are even whole numbers: of a natural logarithm so many parts, twice."""


def fusion_blossom() -> ModuleType:
    """The library.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import fusion_blossom as library
    except ImportError as error:
        raise ConfigError(
            "[predecode] hand_over", 'is "soft", but fusion-blossom is not installed.',
            "The soft hand-over needs a matcher whose weights change from window to window; PyMatching's do not.",
            "pip install 'rtqec[soft]', or set hand_over = \"hard\".",
        ) from error  # fmt: skip
    module: ModuleType = library
    return module


class SoftMatcher:
    """One compiled window model, decoded one window at a time.

    Args:
        model: The window; plain matching's, without the parts of the graph that flip no observable.
        layout: The grid of its detectors.

    Attributes:
        places: int32, shape (num_edges, 3): of each edge, the plane of its answer, or -1 where it has none, its layer
            in the window, and its cell.
        weighed: Edges whose weight was the network's, in the last window.
        check_every: One window in so many is checked: the edges that are matched explain its events.

    Raises:
        ConfigError: fusion-blossom is not installed.
    """

    def __init__(self, model: WindowModel, layout: GridLayout) -> None:
        self.model = model
        library = fusion_blossom()
        self._boundary = 8 * model.row_bytes
        self.weighed = 0
        self.check_every, self._calls = CHECK_EVERY, 0
        edges = graph_edges(model.dem)
        self._ends = np.array([(*key, self._boundary)[:2] for key in edges], np.int32).reshape(-1, 2)
        self.places = _places(model, layout, list(edges))
        self._flips = [sum(1 << number for number in numbers) for _, numbers in edges.values()]
        weights = [_even(np.log1p(-p) - np.log(p)) for p, _ in edges.values()]
        weighted = [(a, b, weight) for (a, b), weight in zip(self._ends.tolist(), weights, strict=True)]
        initializer = library.SolverInitializer(self._boundary + 1, weighted, [self._boundary])
        self._solver: Any = library.SolverSerial(initializer)
        self._pattern: Callable[..., Any] = library.SyndromePattern
        self._events = np.zeros(self._boundary + 1, np.uint8)
        self._found = np.zeros(len(edges), np.int64)
        self._weights = np.zeros(len(edges))
        self._turned = np.zeros(len(edges), np.uint8)
        row_b8 = np.zeros(model.row_bytes, np.uint8)
        nothing = np.zeros((1, 1, 1), np.float32)
        self._reweigh: Callable[..., int] = entry_of(reweigh, *self._arguments(row_b8, nothing, 0, 0, 0))

    def __call__(
        self, row_b8: NDArray[np.uint8], answers: NDArray[np.float32], behind: int, first: int, stop: int
    ) -> NDArray[np.uint8]:
        """Decode one window.

        Args:
            row_b8: uint8, shape (model.row_bytes,), LSB first, masked by `model.mask_b8`.
            answers: Logits of the network, float32, shape (outputs, layers, num_cells); no NaN where they count.
            behind: Layers of the answers before the window's first.
            first, stop: Layers of the answers that count; an edge has the layer of its earlier detector.

        Returns:
            uint8, shape (model.answer_bytes,), LSB first: observables, then one bit per seam detector.

        Raises:
            FaultError: The window was checked, and its matching is none.
        """
        # Compiled code takes memory as it lies, and PyTorch likes to have channels last.
        answers = np.ascontiguousarray(answers)
        self.weighed = count = self._reweigh(*self._arguments(row_b8, answers, behind, first, stop))
        found = self._found[:count].tolist()
        weights = (2 * np.rint(self._weights[:count] * _UNITS)).astype(np.int64).tolist()
        defects = np.flatnonzero(self._events[: self._boundary]).tolist()
        self._solver.solve(self._pattern(defects, dynamic_weights=list(zip(found, weights, strict=True))))
        matched: list[int] = self._solver.subgraph()
        self._solver.clear()
        self._calls += 1
        if self._calls % self.check_every == 0:
            self._check(matched)
        flips = 0
        for edge in matched:
            flips ^= self._flips[edge]
        for edge, turned in zip(found, self._turned[:count].tolist(), strict=True):
            if turned:
                flips ^= self._flips[edge]
        return np.frombuffer(flips.to_bytes(self.model.answer_bytes, "little"), np.uint8)

    def _check(self, matched: list[int]) -> None:
        """The ends of the edges that are matched are the events that the solver was given."""
        ends = np.bincount(self._ends[matched].ravel(), minlength=self._boundary + 1) & 1
        if (ends != self._events)[: self._boundary].any():
            raise FaultError("the edges of a soft matching do not explain the window's events.")

    def _arguments(
        self, row_b8: NDArray[np.uint8], answers: NDArray[np.float32], behind: int, first: int, stop: int
    ) -> tuple[Any, ...]:
        return (
            self.places, self._ends, row_b8, answers, behind, first, stop, FLOOR, self._events, self._found,
            self._weights, self._turned,
        )  # fmt: skip


def _even(weight: float) -> int:
    """A weight as fusion-blossom takes it; an edge that is as likely as not weighs nothing."""
    return 2 * max(0, round(float(weight) * _UNITS))


def _places(model: WindowModel, layout: GridLayout, edges: list[tuple[int, ...]]) -> NDArray[np.int32]:
    """See `SoftMatcher.places`."""
    edge_map, num_cells = EdgeMap(layout), layout.code.num_cells
    ends = {"first": {0}, "last": {model.num_rounds - 1}, "whole": {0, model.num_rounds - 1}}.get(model.phase, set())
    places = np.full((len(edges), 3), -1, np.int32)
    for number, detectors in enumerate(edges):
        spots = []
        for detector in detectors:
            t, slot = divmod(detector, model.layout.layer_bits)
            place = (layout.edge_places if t in ends else layout.bulk_places)[slot]
            spots.append((place // num_cells, t, place % num_cells))
        if any(channel != layout.own for channel, _, _ in spots):
            continue
        found = edge_map.place(spots)
        if found is not None:
            places[number] = (HARD_OUTPUTS + found[0], *found[1:])
    return places
