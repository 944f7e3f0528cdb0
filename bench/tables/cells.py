"""What tables are made of: cells, blanks, spreads over repeats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bench.estimates import TAIL_SAMPLES_MIN, spread
from bench.rows import Row
from bench.runs import full_wording, number, refusal, value_at

Kind = Literal["", "good", "bad", "quiet"]
BLANK_PERCENTILE = f"Blank: fewer than {TAIL_SAMPLES_MIN} samples lie above it, so that its rank is a matter of chance."


_EQUAL = 1e-6
"""Relative differences below this come from rounding."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: Empty where there is nothing to say.
        small: A second, quieter line.
        kind: How it is meant.
        url: What `small` links to.
    """

    text: str = ""
    small: str = ""
    kind: Kind = ""
    url: str = ""


@dataclass
class Table:
    """One table.

    Attributes:
        name: For links.
        columns: Their heads. Those before `text_columns` hold text, the others numbers.
        rows: Cells, as many as columns; or one, a heading for those that follow or a remark.
        notes: What stands under it.
    """

    name: str
    columns: tuple[str, ...]
    text_columns: int = 1
    rows: list[list[Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_heading(self, text: str) -> None:
        """A row that is one cell."""
        self.rows.append([Cell(text, kind="quiet")])

    def add_remark(self, text: str) -> None:
        """A quiet row that is one cell."""
        self.rows.append([Cell(small=text, kind="quiet")])

    def add(self, *cells: Cell | str) -> None:
        """A row."""
        assert len(cells) == len(self.columns)
        self.rows.append([cell if isinstance(cell, Cell) else Cell(cell) for cell in cells])


def cell_of(value: float | None, digits: int = 3) -> Cell:
    """A number, or a blank."""
    return Cell() if value is None else Cell(number(value, digits))


def spread_cell(values: Sequence[float], digits: int = 3) -> Cell:
    """Least and most of the repeats, and how far apart they are for their median."""
    if not values:
        return Cell()
    found = spread(list(values))
    relative = found["relative"]
    apart = "" if relative is None else "equal" if relative < _EQUAL else f"{100 * relative:.2g} % apart"
    count = f"{len(values)} repeat{'' if len(values) == 1 else 's'}"
    if len(values) == 1:
        return Cell(count, kind="quiet")
    text = f"{number(found['min'], digits)} to {number(found['max'], digits)}"
    return Cell(text, ", ".join(filter(None, (count, apart))))


def interval_text(interval: Sequence[float | None] | None, digits: int = 3) -> str:
    """An interval, or nothing."""
    if not interval or None in interval:
        return ""
    return " to ".join(number(end, digits) for end in interval if end is not None)


def values_of(repeats: Iterable[Row], path: str) -> list[float]:
    """A number of all repeats that count."""
    found = [value_at(row["result"], path) for row in repeats if refusal(row) is None]
    return [value for value in found if value is not None]


def median_of(repeats: Sequence[Row], path: str) -> float | None:
    """Of all repeats that count; None where one of them leaves it blank."""
    counted = [row for row in repeats if refusal(row) is None]
    values = values_of(repeats, path)
    return float(np.median(values)) if values and len(values) == len(counted) else None


def case_text(row: Row) -> str:
    """A case without its period, which a result says itself."""
    return full_wording({**row, "case": {**row["case"], "period_us": None}})
