"""The windows of a plan: one model for everything that a lane may have to decode.

Windows begin at multiples of the commit region. A *row* is such a beginning, counted until all later ones are equal.
From a row a window may commit one region, or a *multiple* of it when it catches up; it may end the shot with so many
rounds left; and it may have to begin with an open past, where the rounds before it are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rtqec.config import WindowTable
from rtqec.layout import LayerLayout
from rtqec.plan.model import EDGE_ROUNDS, ErrorTable, WindowModel, window_model

OpenKey = tuple[int, int, bool]
"""Row, multiple of the commit region, open past."""
ClosingKey = tuple[int, int, bool]
"""Row, rounds left, open past."""


@dataclass(frozen=True)
class WindowShapes:
    """The windows of one way of matching, as numbers of the plan's models.

    Attributes:
        open: Windows of a shot that goes on.
        closing: Windows that end it.
    """

    open: dict[OpenKey, int] = field(default_factory=dict)
    closing: dict[ClosingKey, int] = field(default_factory=dict)


class ModelShelf:
    """Distinct window models, by content; equal cuts of equal errors are not made twice."""

    def __init__(self, layout: LayerLayout) -> None:
        self.models: list[WindowModel] = []
        self._layout = layout
        self._index: dict[str, int] = {}
        self._cuts: dict[tuple[object, ...], int] = {}

    def put(self, errors: ErrorTable, start: int, stop: int, commit_stop: int, past: bool = False) -> int:
        """The number of the model of a window; see `window_model`."""
        seen = tuple(id(errors.by_round.get(t)) for t in range(start - errors.extent, stop))
        key = (stop - start, commit_stop - start, past, seen)
        if key not in self._cuts:
            model = window_model(errors, self._layout, start, stop, commit_stop, past)
            if model.content not in self._index:
                self._index[model.content] = len(self.models)
                self.models.append(model)
            self._cuts[key] = self._index[model.content]
        return self._cuts[key]


def finite_windows(
    errors: ErrorTable, num_rounds: int, window: WindowTable, multiples: tuple[int, ...], shelf: ModelShelf
) -> tuple[WindowShapes, int]:
    """All windows of a shot of `num_rounds` rounds, and the number of its rows."""
    shapes = WindowShapes()
    commit = window.commit_rounds
    num_rows = max(-(-(num_rounds - window.buffer_rounds) // commit), 1)
    for row in range(num_rows):
        start, left = row * commit, num_rounds - row * commit
        for past in (False, True) if row else (False,):
            for multiple in multiples:
                stop = start + multiple * commit + window.buffer_rounds
                if stop < num_rounds and not (past and multiple > 1):
                    key = (row, multiple, past)
                    shapes.open[key] = shelf.put(errors, start, stop, start + multiple * commit, past)
            if left <= multiples[-1] * commit + window.buffer_rounds:
                shapes.closing[row, left, past] = shelf.put(errors, start, num_rounds, num_rounds, past)
    return shapes, num_rows


def first_rows(errors: ErrorTable, window: WindowTable, multiples: tuple[int, ...], shelf: ModelShelf) -> int:
    """Rows of an endless stream before the one that repeats."""
    rows = [list(_open_row(errors, window, multiples, shelf, row).values()) for row in range(_rows_max(window))]
    # The first row has no open past.
    return next(k for k in range(len(rows)) if all(row[: len(rows[k])] == rows[-1][: len(rows[k])] for row in rows[k:]))


def endless_windows(
    errors: ErrorTable, of_rounds: Callable[[int], ErrorTable | None], window: WindowTable,
    multiples: tuple[int, ...], num_first: int, shelf: ModelShelf,
) -> WindowShapes:  # fmt: skip
    """First windows, one bulk window for ever, and a last window for every length at which a stream may end.

    Args:
        of_rounds: The errors of the same experiment with so many rounds, or None where there is no such thing.
        num_first: Rows before the one that stands for all later ones.
    """
    shapes = WindowShapes()
    for row in range(num_first + 1):
        shapes.open.update(_open_row(errors, window, multiples, shelf, row))
    for left in range(window.buffer_rounds + 1, window.rounds + 1):
        total = left + 2 * EDGE_ROUNDS
        shapes.closing[num_first, left, False] = shelf.put(errors.stitched(total), total - left, total, total)
    for row in range(num_first):
        start = row * window.commit_rounds
        for left in range(1 if row == 0 else window.buffer_rounds + 1, window.rounds + 1):
            short = of_rounds(start + left)
            if short is not None:
                shapes.closing[row, left, False] = shelf.put(short, start, start + left, start + left)
    return shapes


def _rows_max(window: WindowTable) -> int:
    """By `EDGE_ROUNDS` a stream has forgotten its beginning."""
    return -(-EDGE_ROUNDS // window.commit_rounds) + 1


def _open_row(
    errors: ErrorTable, window: WindowTable, multiples: tuple[int, ...], shelf: ModelShelf, row: int
) -> dict[OpenKey, int]:
    """The windows of an endless stream that begin in a row and do not end it."""
    commit, buffer = window.commit_rounds, window.buffer_rounds
    start = row * commit
    longest = errors.stitched((_rows_max(window) + multiples[-1]) * commit + buffer + EDGE_ROUNDS)
    kinds = [*((multiple, False) for multiple in multiples), *([(1, True)] if row else [])]
    return {
        (row, m, past): shelf.put(longest, start, start + m * commit + buffer, start + m * commit, past)
        for m, past in kinds
    }
