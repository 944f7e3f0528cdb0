"""Which round a detector belongs to, where a file says only which measurements make it.

The record is cut into blocks, one per round. Two sources are asked, and whatever they answer is checked: every detector
has all its measurements in its own round and in earlier ones, and every round after the first that has detectors has
some. Where neither holds nothing is guessed: the shot is one round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from rtqec.cudaq.sparse import Rows

Blocks = tuple[int, ...]
"""Measurements of each round."""


def rounds_from_coordinates(
    measurements_of: Rows, coordinates: Mapping[int, Sequence[float]], time_index: int
) -> tuple[tuple[int, ...], Blocks] | None:
    """Rounds and blocks where detectors have a time coordinate.

    Args:
        measurements_of: Measurements of each detector, ascending.
        coordinates: Of each detector that has some.
        time_index: The coordinate that counts rounds.

    Returns:
        Round of each detector and width of each block; None where this coordinate is not time.
    """
    places = [coordinates.get(detector, ()) for detector in range(len(measurements_of))]
    if not all(-len(place) <= time_index < len(place) for place in places):
        return None
    times = np.array([place[time_index] for place in places])
    if not np.array_equal(times, np.round(times)):
        return None
    rounds = (times - times.min()).astype(np.int64)
    if rounds.max() >= len(rounds):
        return None  # Rounds have detectors, so that there are at most as many: this coordinate is a place.
    last = np.array([row[-1] for row in measurements_of])
    repeating = blocks_that_repeat(measurements_of)
    if repeating is not None:
        late = rounds + len(repeating) - 1 - rounds.max()
        if late.min() >= 0 and (_block_of(last, repeating) <= late).all():
            return tuple(late.tolist()), repeating
    stops = [int(last[rounds == t].max(initial=-1)) + 1 for t in range(int(rounds.max()) + 1)]
    widths = np.diff([0, *stops])
    return (tuple(rounds.tolist()), tuple(widths.tolist())) if widths.min() > 0 else None


def rounds_from_blocks(measurements_of: Rows, blocks: Blocks | None) -> tuple[tuple[int, ...], Blocks] | None:
    """The same where only measurements are known: a detector belongs to the round of its last one.

    Args:
        measurements_of: Measurements of each detector, ascending.
        blocks: How the record is cut; None where that is not known.
    """
    if blocks is None:
        return None
    rounds = _block_of(np.array([row[-1] for row in measurements_of]), blocks)
    per_round = np.bincount(rounds, minlength=len(blocks))
    if (per_round[rounds.min() :] == 0).any():
        return None
    return tuple(rounds.tolist()), blocks


def blocks_that_repeat(measurements_of: Rows, width: int | None = None) -> Blocks | None:
    """Blocks of one repeated round and a data readout, read off the detectors that compare a measurement with the one
    before it; None where there are none, or where they say nothing of the whole record.

    Args:
        measurements_of: Measurements of each detector, ascending.
        width: Measurements of the repeated round; by default, how far most of these detectors look back.
    """
    pairs = [row for row in measurements_of if len(row) == 2]
    lags = Counter(late - early for early, late in pairs)
    if not lags or (width is not None and width not in lags):
        return None
    width = width or lags.most_common(1)[0][0]
    rounds = max(late for early, late in pairs if late - early == width) // width + 1
    num_measurements = 1 + max(row[-1] for row in measurements_of)
    rest = num_measurements - rounds * width
    blocks = (*[width] * rounds, *([rest] if rest > 0 else []))
    first = _block_of(np.array([row[0] for row in measurements_of]), blocks)
    last = _block_of(np.array([row[-1] for row in measurements_of]), blocks)
    # A cut that does not follow the hardware would put detectors across more than two blocks.
    return blocks if (last - first <= 1).all() and rest >= 0 else None


def _block_of(measurements: np.ndarray, blocks: Blocks) -> np.ndarray:
    starts = [0, *accumulate(blocks)][:-1]
    return np.searchsorted(starts, measurements, side="right") - 1
