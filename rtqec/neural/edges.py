"""Edges of the matching graph on the grid: what a network is asked for the soft hand-over.

An edge joins one or two detectors of the own kind of checks. Its *class* is the way from the earlier one to the other,
in the canonical frame; its place is that of the earlier one. One answer per class and place says how likely the edge
has fired, given all that was seen; a matcher then takes that for its weight. Edges of no class keep the weight that
the error model gives them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rtqec.errors import PlanError
from rtqec.neural.code import Corner
from rtqec.neural.effects import Mechanism, Spot
from rtqec.neural.layout import GridLayout
from rtqec.neural.network import EDGE_OUTPUTS

Step = tuple[int, int, int]
"""From one detector of an edge to the other: layers, and rows and columns of the code's corners."""

CLASSES: tuple[Step | None, ...] = (None, (1, 0, 0), (0, 1, -1), (0, 1, 1), (1, -1, -1), (1, 1, -1), (1, 0, -2))
"""The classes, in the order of the network's answers; None is that of edges to the boundary. These are all that circuit
noise makes, at any distance, where gates are in the usual order; the own frame has made them lean the canonical way."""
assert len(CLASSES) == EDGE_OUTPUTS

EdgePlace = tuple[int, int, int]
"""Class, layer and cell of an edge."""


class EdgeMap:
    """Finds the place of an edge.

    Args:
        layout: The grid, in the own frame.

    Attributes:
        own: The channel of its checks.
        cells: Their cells.
    """

    def __init__(self, layout: GridLayout) -> None:
        code, self.own = layout.code, layout.own
        self.num_cells, self.cells = code.num_cells, code.cells[self.own]
        self._corner: dict[int, Corner] = dict(zip(self.cells, code.corners[self.own], strict=True))
        self._class = {step: number for number, step in enumerate(CLASSES)}

    def place(self, spots: Iterable[Spot]) -> EdgePlace | None:
        """Class, layer and cell of the edge between some detectors of the own kind; None where it has no class."""
        ends = sorted((t, *self._corner[cell], cell) for _, t, cell in spots)
        if not 1 <= len(ends) <= 2:
            return None
        t, i, j, cell = ends[0]
        step = None if len(ends) == 1 else (ends[1][0] - t, ends[1][1] - i, ends[1][2] - j)
        number = self._class.get(step)
        return None if number is None else (number, t, cell)

    def of_mechanism(self, mechanism: Mechanism) -> EdgePlace | None:
        """The place of what an error is to the own kind of checks; None where these do not see it.

        Raises:
            PlanError: It flips more than two of their detectors: no edge.
        """
        spots = [spot for spot in mechanism.spots if spot[0] == self.own]
        if len(spots) > 2:
            raise PlanError(
                "[network] edges", f"is true, but an error flips {len(spots)} detectors of one kind of checks: "
                f"{sorted(spots)} (channel, round, cell).",
                "An edge of the matching graph joins two; what such an error is to it cannot be learned.",
                "Set edges = false, or leave such errors out.",
            )  # fmt: skip
        return self.place(spots) if spots else None

    def exist(self, found: list[Mechanism], num_layers: int) -> NDArray[np.bool_]:
        """Which edges there are: bool, shape (EDGE_OUTPUTS, num_layers, num_cells)."""
        there = np.zeros((EDGE_OUTPUTS, num_layers, self.num_cells), np.bool_)
        for mechanism in found:
            place = self.of_mechanism(mechanism)
            if place is not None:
                there[place] = True
        return there
