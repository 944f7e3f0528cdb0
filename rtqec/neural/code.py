"""The rotated surface code in one frame, the canonical one, and the symmetries that carry others into it.

Data qubits have indices (row, column) from 0 to distance - 1. Checks stand at the corners between them, (i, j) from 0
to distance. The canonical frame is the published models' orientation XV: checks with i + j even are of the first kind,
the others of the second; at the left and right edges only the first kind is kept, at the top and bottom the second.
A mirror at a row or a column carries that code into its *odd* variant, where checks of the first kind have i + j odd.

Source: the layout of NVIDIA's Ising-Decoding (Apache-2.0, 2026): a check of the first kind has its cell at the least
row and column of its support, one of the second at the least row and the *greatest* column.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

FIRST, SECOND = 0, 1
"""Kinds of checks in the canonical frame: channel 0 and channel 1 of a network's input."""

Corner = tuple[int, int]
Symmetry = tuple[bool, int]
"""Whether to mirror columns first, and the quarter turns (clockwise) after that."""


@dataclass(frozen=True)
class SurfaceCode:
    """The code of one distance, in the canonical frame. A *cell* is `row * distance + column`.

    Attributes:
        distance: Data qubits along each side.
        odd: Whether it is the odd variant.
        corners: Of each kind, its checks.
        supports: Of each kind and check, the data qubits that it measures, as cells.
        cells: Of each kind, the cell of each check; within a kind no two are equal.
    """

    distance: int
    odd: bool
    corners: tuple[tuple[Corner, ...], tuple[Corner, ...]]
    supports: tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]
    cells: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def num_cells(self) -> int:
        """Cells of one layer of one channel."""
        return self.distance * self.distance

    @cached_property
    def check_at(self) -> dict[Corner, tuple[int, int]]:
        """Kind and cell of the check at each corner."""
        return {
            corner: (kind, cell)
            for kind in (FIRST, SECOND)
            for corner, cell in zip(self.corners[kind], self.cells[kind], strict=True)
        }

    @cached_property
    def checks_of(self) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
        """Of each kind and data qubit, the cells of the checks that measure it: one or two."""
        found: list[list[list[int]]] = [[[] for _ in range(self.num_cells)] for _ in (FIRST, SECOND)]
        for kind in (FIRST, SECOND):
            for cell, support in zip(self.cells[kind], self.supports[kind], strict=True):
                for qubit in support:
                    found[kind][qubit].append(cell)
        return tuple(tuple(tuple(cells) for cells in kind) for kind in found)  # type: ignore[return-value]

    @cached_property
    def presence(self) -> NDArray[np.float32]:
        """What the network is told of its patch: 1 at a check of four data qubits, 0.5 of two, 0 elsewhere.

        float32, shape (2, distance, distance).
        """
        present = np.zeros((2, self.num_cells), np.float32)
        for kind in (FIRST, SECOND):
            for cell, support in zip(self.cells[kind], self.supports[kind], strict=True):
                present[kind, cell] = len(support) / 4
        return present.reshape(2, self.distance, self.distance)


@cache
def surface_code(distance: int, odd: bool = False) -> SurfaceCode:
    """The rotated surface code of a distance, or its odd variant.

    Raises:
        ValueError: The distance is below 2.
    """
    if distance < 2:
        raise ValueError(f"distance is {distance}; a rotated surface code has at least 2.")
    corners: tuple[list[Corner], list[Corner]] = ([], [])
    supports: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = ([], [])
    cells: tuple[list[int], list[int]] = ([], [])
    for i in range(distance + 1):
        for j in range(distance + 1):
            kind = (i + j + odd) % 2
            if (i in (0, distance) and kind == FIRST) or (j in (0, distance) and kind == SECOND):
                continue
            rows = [row for row in (i - 1, i) if 0 <= row < distance]
            columns = [column for column in (j - 1, j) if 0 <= column < distance]
            corners[kind].append((i, j))
            supports[kind].append(tuple(row * distance + column for row in rows for column in columns))
            cells[kind].append(rows[0] * distance + (columns[0] if kind == FIRST else columns[-1]))
    return SurfaceCode(
        distance,
        odd,
        (tuple(corners[0]), tuple(corners[1])),
        (tuple(supports[0]), tuple(supports[1])),
        (tuple(cells[0]), tuple(cells[1])),
    )


def turned(corner: Corner, distance: int, symmetry: Symmetry) -> Corner:
    """Where a symmetry of the square carries a corner."""
    i, j = corner
    mirror, quarters = symmetry
    if mirror:
        j = distance - j
    for _ in range(quarters % 4):
        i, j = j, distance - i
    return i, j
