"""Look windows with at most two events up in a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.native import compiled

EVENTS_MAX = 2


@compiled
def entry_of_pair(first: Any, second: Any) -> Any:
    """The row of a table that answers two events, `first` < `second`, counted from 1; 0 stands for no event."""
    return 0 if second == 0 else 1 + second * (second - 1) // 2 + first


@compiled
def look_up(rows: Any, numbers: Any, table: Any, answers: Any) -> Any:
    """Answer a batch from the table; False where a window has more events than the table knows.

    Args:
        rows: uint8, shape (num_windows, row_bytes), LSB first.
        numbers: int32, shape (8 * row_bytes,): the number of each detector, counted from 1, in order.
        table: uint8, shape (num_entries, answer_bytes).
        answers: uint8, shape (num_windows, answer_bytes): filled.
    """
    for i in range(len(rows)):
        found = first = second = 0
        for byte in range(rows.shape[1]):
            left = np.int64(rows[i, byte])
            bit = 8 * byte
            while left:
                if left & 1:
                    found += 1
                    if found > EVENTS_MAX:
                        return False
                    first, second = second, numbers[bit]
                left >>= 1
                bit += 1
        entry = entry_of_pair(first, second)
        for byte in range(answers.shape[1]):
            answers[i, byte] = table[entry, byte]
    return True
