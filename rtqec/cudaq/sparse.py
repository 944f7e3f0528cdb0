"""Sparse matrices over GF(2) in CUDA-Q's form: column indices row by row, one flat list, -1 ends a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rtqec.errors import ConfigError

ROW_END = -1
Rows = tuple[tuple[int, ...], ...]
"""Column indices of each row, ascending."""


def rows_of(where: str, flat: Sequence[float], num_rows: int | None, num_columns: int, bound: str) -> Rows:
    """Read a matrix.

    Args:
        where: The key, for the message.
        flat: As in the file: whole numbers, of whatever type.
        num_rows: How many it must have; None where anything goes.
        num_columns: Bound of the indices.
        bound: Where that comes from, for the message.

    Raises:
        ConfigError: The last row does not end, an index repeats or is out of bounds, or rows are missing.
    """
    rows: list[list[int]] = [[]]
    for value in flat:
        if value == ROW_END:
            rows.append([])
        else:
            rows[-1].append(int(value))
    if rows.pop():
        raise ConfigError(
            where, f"ends with {flat[-1]}; a row ends with {ROW_END}, the last one too.",
            "The file was cut short, or another tool wrote it.", f"Append {ROW_END}, or write the file anew.",
        )  # fmt: skip
    if num_rows is not None and len(rows) != num_rows:
        raise ConfigError(
            where, f"has {len(rows)} rows; it must have {num_rows}, one per detector (syndrome_size, or the detectors "
            "of stim_dem_path).", "Each detector has a row of errors and a row of measurements, in the same order.",
            "Write all three numbers from one experiment.",
        )  # fmt: skip
    for number, row in enumerate(rows):
        if len(set(row)) != len(row):
            raise ConfigError(
                where, f"names an index twice in row {number}: {sorted(row)}.",
                "Over GF(2) twice is never, but most readers would take it for once.", "Name it once, or not at all.",
            )  # fmt: skip
        if row and not 0 <= min(row) <= max(row) < num_columns:
            raise ConfigError(
                where, f"has the index {min(row) if min(row) < 0 else max(row)} in row {number}; the bounds are 0 and "
                f"{num_columns - 1} ({bound}).", "There is no such column.", "Correct the index, or its bound.",
            )  # fmt: skip
    return tuple(tuple(sorted(row)) for row in rows)


def flat_of(rows: Iterable[Iterable[int]]) -> list[int]:
    """Write a matrix."""
    return [value for row in rows for value in (*row, ROW_END)]


def transposed(rows: Rows, num_columns: int) -> Rows:
    """Row indices of each column."""
    columns: list[list[int]] = [[] for _ in range(num_columns)]
    for number, row in enumerate(rows):
        for column in row:
            columns[column].append(number)
    return tuple(tuple(column) for column in columns)
