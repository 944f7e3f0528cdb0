"""Windows with at most two events: answered from a table that the matcher itself has filled.

At d = 5 and p = 0.001 three windows of four have no more than two events, and matching them takes PyMatching a fraction
of what the call costs. Matching answers equal events equally, so that a table of all its answers to no, one or two
events is exact; what it holds is asked once, before READY.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtqec.kernels.few_events import EVENTS_MAX, look_up
from rtqec.kernels.native import entry_of
from rtqec.plan.model import WindowModel

DETECTORS_MAX = 400
"""Of a window with a table: it has then 80,000 entries. Larger windows hardly ever have so few events."""
SHARE_MIN = 0.1
"""Windows, of the model's own noise, that a table must answer: looking in vain costs a twentieth of a call."""
_NOISE_SEED = 20261121
_NOISE_WINDOWS = 256
_ROWS_AT_ONCE = 4096


class Decoder(Protocol):
    """What decodes batches of one window model; see `match.Matcher`."""

    model: WindowModel

    def __call__(self, rows_b8: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Decode a batch."""


def worthwhile(model: WindowModel) -> bool:
    """Whether a table of this model is small, and its own noise brings few events often enough."""
    if int(np.bitwise_count(model.mask_b8).sum()) > DETECTORS_MAX:
        return False
    events, _, _ = model.dem.compile_sampler(seed=_NOISE_SEED).sample(_NOISE_WINDOWS)
    return float((events.sum(axis=1) <= EVENTS_MAX).mean()) >= SHARE_MIN


class FewEvents:
    """A matcher with a table in front of it.

    Args:
        matcher: Answers all other windows, and the table's once.
        batch_windows: Most windows of a batch.

    Raises:
        ValueError: Some one or two events cannot be paired, so that a table would have gaps.
    """

    def __init__(self, matcher: Decoder, batch_windows: int) -> None:
        self.matcher, self.model = matcher, matcher.model
        known = np.unpackbits(self.model.mask_b8, bitorder="little").astype(np.bool_)
        self._numbers = np.where(known, np.cumsum(known), 0).astype(np.int32)
        self._table = _answers(matcher, np.flatnonzero(known))
        self._answers = np.zeros((batch_windows, self.model.answer_bytes), np.uint8)
        self._views = [self._answers[:count] for count in range(batch_windows + 1)]
        rows = np.zeros((1, self.model.row_bytes), np.uint8)
        self._look_up: Callable[..., bool] = entry_of(look_up, rows, self._numbers, self._table, self._views[1])

    def __call__(self, rows_b8: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Decode a batch; as the matcher's own.

        Returns:
            A view of this object's memory, which the next call overwrites, or the matcher's array.
        """
        answers = self._views[len(rows_b8)]
        if self._look_up(rows_b8, self._numbers, self._table, answers):
            return answers
        return self.matcher(rows_b8)


def _answers(matcher: Decoder, detectors: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The table: uint8, shape (num_entries, answer_bytes), in the order of `kernels.few_events.entry_of_pair`."""
    second = np.repeat(np.arange(len(detectors)), np.arange(1, len(detectors) + 1))
    first = np.arange(len(second)) - second * (second + 1) // 2 - 1
    pairs: list[NDArray[Any]] = [np.zeros((1, matcher.model.row_bytes), np.uint8)]
    for start in range(0, len(second), _ROWS_AT_ONCE):
        piece = slice(start, start + _ROWS_AT_ONCE)
        rows = np.zeros((len(second[piece]), matcher.model.row_bytes), np.uint8)
        every = np.arange(len(rows))
        for chosen in (first[piece], second[piece]):
            bits = detectors[chosen]
            rows[every, bits // 8] |= np.where(chosen >= 0, 1 << bits % 8, 0).astype(np.uint8)
        pairs.append(rows)
    return np.ascontiguousarray(np.concatenate([matcher(rows) for rows in pairs]))
