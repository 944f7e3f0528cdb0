"""Chunks as hostile as they may be: for what must be equal on the host and on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.device.chunks import ChunkTables
from rtqec.device.engine import ChunkShape
from rtqec.kernels.records import BULK, EDGE, LAST, OUTSIDE
from rtqec.neural.code import surface_code
from rtqec.neural.layout import GridLayout
from rtqec.predecode import PatchFilter, chunk_tables

CASES: dict[str, tuple[int, int, int]] = {
    "d3 2 outputs": (3, 6, 2), "d3 4 outputs": (3, 6, 4), "d5 4 outputs": (5, 5, 4), "d13 2 outputs": (13, 3, 2),
    "d5 with edges": (5, 5, 9),
}  # fmt: skip
"""Distance, layers and outputs."""


def make_tables(rng: np.random.Generator, distance: int) -> ChunkTables:
    """Three patches: of either own kind, on the code and its odd variant, detectors in any order, any observables; and
    one without a predecoder.
    """
    n = distance * distance
    filters: list[PatchFilter | None] = []
    for own in (0, 1):
        code = surface_code(distance, odd=bool(own))
        edge = [own * n + cell for cell in code.cells[own]]
        bulk = [kind * n + cell for kind in (0, 1) for cell in code.cells[kind]]
        rng.shuffle(edge)
        rng.shuffle(bulk)
        layout = GridLayout(code, own, (False, 0), tuple(edge), tuple(bulk))
        logical = rng.integers(0, 2**63, (2, n), np.uint64) * rng.integers(0, 2, (2, n), np.uint64)
        filters.append(PatchFilter(layout, logical, 2, float(rng.normal()), float(rng.normal())))
    # One byte more than the detectors need, as where another patch of the lane has more of them.
    return chunk_tables([*filters, None], (n - 1) // 8 + 1)


def fill(rng: np.random.Generator, shape: ChunkShape, inputs: list[NDArray[Any]]) -> None:
    """Random rounds, padding bits included; shots that begin or end anywhere; spans of any length."""
    rounds_b8, kinds, spans, patches = inputs
    rounds_b8[...] = rng.integers(0, 256, rounds_b8.shape)
    patches[...] = rng.integers(0, 2, shape.chunks)
    for k in range(shape.chunks):
        first = int(rng.integers(0, 3)) * int(rng.integers(0, 2))
        stop = shape.layers - int(rng.integers(0, 2))
        kinds[k] = OUTSIDE
        kinds[k, first:stop] = BULK
        if rng.random() < 0.5:
            kinds[k, first] = EDGE
        if rng.random() < 0.5:
            kinds[k, stop - 1] = LAST
        spans[k] = np.sort(rng.integers(first, stop + 1, 2))
        if kinds[k, stop - 1] == LAST and rng.random() < 0.5:
            spans[k, 1] = stop


def logits_of(rng: np.random.Generator, shape: ChunkShape, tables: ChunkTables) -> NDArray[np.float32]:
    """Answers of either sign, some of them exactly a threshold, infinite, or no number in some chunks."""
    logits = rng.normal(size=shape.logits).astype(np.float32)
    dice = rng.random(shape.logits)
    exact = dice < 0.1
    logits[exact] = rng.choice(tables.thresholds[:2].ravel(), int(exact.sum()))
    logits[(dice > 0.1) & (dice < 0.12)] = np.inf
    logits[(dice > 0.12) & (dice < 0.15)] = -np.inf
    logits[(dice > 0.15) & (dice < 0.15 + 0.5 / logits[0].size)] = np.nan
    return logits
