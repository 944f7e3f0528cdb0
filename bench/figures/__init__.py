"""Figures from rows: one module each, drawn only where there are rows for it."""

from __future__ import annotations

from bench.figures import accuracy, comparison, rate, reaction, stages
from bench.figures.page import Drawing
from bench.goals import Goal
from bench.rows import Row

__all__ = ["Drawing", "draw_all"]


def draw_all(rows: list[Row], goals: list[Goal]) -> list[Drawing]:
    """Every figure that the rows have something for, in the order in which a report shows them.

    Args:
        rows: Those that count (`bench.runs.newest`).
        goals: Whose published numbers are marked where the case is the same.
    """
    drawn = (
        rate.draw(rows), reaction.draw(rows, goals), stages.draw(rows), accuracy.draw(rows),
        accuracy.draw_by_budget(rows), comparison.draw(rows),
    )  # fmt: skip
    return [drawing for drawing in drawn if drawing is not None]
