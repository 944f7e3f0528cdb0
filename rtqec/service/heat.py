"""A small map of where detection events fall, from the coordinates of the detectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from rich.text import Text

_COLOURS = ((24, 28, 60), (40, 80, 150), (30, 150, 140), (240, 210, 70), (235, 70, 50))
"""From never to most often; also in shades of grey each is brighter than the one before, but for the last."""
_UPPER_HALF = "\u2580"
_CELL = 2
"""Columns of a detector, half a line high: wider than high, but to be seen."""
_GRID_MAX = 64


def lattice(places: Sequence[Sequence[float]], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values on the coarsest grid that keeps all places apart; NaN where there is none.

    Args:
        places: Coordinates (x, y).
        values: float64, one per place. Of two in the same place the larger counts.

    Returns:
        float64, shape (rows, columns): y grows downwards, as circuits are drawn.
    """
    columns, rows = (_positions([place[axis] for place in places]) for axis in (0, 1))
    grid = np.full((max(rows) + 1, max(columns) + 1), -np.inf)
    np.maximum.at(grid, (rows, columns), values)
    grid[np.isinf(grid)] = np.nan
    return grid


def _positions(coordinates: list[float]) -> list[int]:
    """Coordinates as whole numbers of the smallest step between them; as ranks, where that is too fine to draw."""
    rounded = np.round(coordinates, 6)
    distinct = np.unique(rounded)
    step = float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0
    found = np.floor((rounded - distinct[0]) / step + 0.5).astype(int)  # Keeps whatever is a step apart apart.
    ranks: list[int] = (found if found.max() < _GRID_MAX else np.searchsorted(distinct, rounded)).tolist()
    return ranks


def draw_lattice(grid: NDArray[np.float64], largest: float) -> Text:
    """Two rows of the grid in each line of text; `largest` has the last colour."""
    if len(grid) % 2:
        grid = np.vstack([grid, np.full(grid.shape[1], np.nan)])
    lines = [_draw_line(upper, lower, largest) for upper, lower in zip(grid[::2], grid[1::2], strict=True)]
    return Text("\n").join(lines)


def _draw_line(upper: NDArray[np.float64], lower: NDArray[np.float64], largest: float) -> Text:
    line = Text()
    for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
        front, back = colour_of(above, largest), colour_of(below, largest)
        if front is None and back is None:
            line.append(" " * _CELL)
        elif front is None:
            line.append("\u2584" * _CELL, Style(color=back))
        else:
            line.append(_UPPER_HALF * _CELL, Style(color=front, bgcolor=back))
    return line


def colour_of(value: float, largest: float) -> Color | None:
    """On the scale from 0 to `largest`; None for NaN."""
    if np.isnan(value):
        return None
    at = min(value / largest, 1.0) * (len(_COLOURS) - 1) if largest > 0 else 0.0
    below = min(int(at), len(_COLOURS) - 2)
    mixed = (round(a + (b - a) * (at - below)) for a, b in zip(_COLOURS[below], _COLOURS[below + 1], strict=True))
    return Color.from_rgb(*mixed)


def draw_scale(largest: float, width: int = 8) -> Text:
    """What the colours mean."""
    line = Text("0 ")
    for k in range(width):
        line.append("\u2588", Style(color=colour_of(largest * k / (width - 1), largest)))
    return line
