"""An endless stream, made round by round from a detector error model.

Each error of the model happens independently with its own probability in every round; its detectors are flipped in
this and later rounds. Raw measurements are then random, as a first round's opposite-type outcomes are, but for
those that must be flipped so that they fold to these detection events.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.fold import fold_round, force_events
from rtqec.kernels.native import compiled

_UNIT = 1.0 / (1 << 53)


@compiled
def random_word(state: Any) -> Any:
    """The next word of xorshift64* (Vigna, 2016), from `state.random`, which is never zero."""
    word = state.random
    word ^= word >> np.uint64(12)
    word ^= word << np.uint64(25)
    word ^= word >> np.uint64(27)
    state.random = word
    return word * np.uint64(0x2545F4914F6CDD1D)


@compiled
def random_unit(state: Any) -> Any:
    """A float in (0, 1]."""
    return (np.float64(random_word(state) >> np.uint64(11)) + 1.0) * _UNIT


@compiled
def group_of_round(patch: Any, round_index: Any) -> Any:
    """The errors that begin in a round."""
    left = patch.num_rounds - 1 - round_index
    if left < patch.num_tail_groups:
        return patch.tail_groups + left
    if round_index < patch.num_head_groups:
        return patch.head_groups + round_index
    return patch.bulk_group


@compiled
def flip_error(patch: Any, state: Any, error: Any, observables: Any, flip_start: Any, flips: Any, pending: Any) -> Any:
    """Let one error happen in `state.round_index`."""
    state.observables ^= observables[error]
    for i in range(flip_start[error], flip_start[error + 1]):
        row = (state.round_index + flips[i, 0]) & patch.pending_mask
        word = patch.pending_offset + row * patch.layer_words + (flips[i, 1] >> 6)
        pending[word] ^= np.uint64(1) << np.uint64(flips[i, 1] & 63)


@compiled
def sample_errors(patch: Any, state: Any, groups: Any, accept: Any, observables: Any, flip_start: Any, flips: Any,
                  pending: Any) -> Any:  # fmt: skip
    """Let the errors that begin in `state.round_index` happen.

    Walks over them in geometric steps of the largest probability, and thins to each one's own.

    Args:
        accept: float64, probability of each error over the largest of its group.
        observables: uint64, observables that it flips.
        flip_start: int64, its rows of `flips`.
        flips: int64, shape (num_flips, 2): rounds after the anchor, slot.
        pending: uint64, rows of `patch.layer_words`: detection events of the rounds to come.
    """
    group = groups[group_of_round(patch, state.round_index)]
    error = group.start - 1
    while True:
        error += 1 + np.int64(np.log(random_unit(state)) / group.log_miss)
        if error >= group.stop:
            return
        if random_unit(state) <= accept[error]:
            flip_error(patch, state, error, observables, flip_start, flips, pending)


@compiled
def take_events(patch: Any, state: Any, pending: Any, events: Any) -> Any:
    """Move the detection events of this round out of `pending`."""
    start = patch.pending_offset + (state.round_index & patch.pending_mask) * patch.layer_words
    for w in range(patch.layer_words):
        events[w] = pending[start + w]
        pending[start + w] = 0


@compiled
def measure(feed: Any, layer: Any, state: Any, program: Any, events: Any, folded: Any) -> Any:
    """Choose the measurements of this round so that they fold to `events`. Returns where they lie in the history."""
    constants, sources, sweep_sources, fixes, history, sweeps = program
    row = feed.history_offset + (state.round_index & feed.history_mask) * feed.history_words
    for w in range((layer.num_measurements + 63) >> 6):
        history[row + w] = random_word(state)
    rest = layer.num_measurements & 63
    if rest:
        history[row + (layer.num_measurements >> 6)] &= (np.uint64(1) << np.uint64(rest)) - np.uint64(1)
    fold_round(feed, layer, state.round_index, constants, sources, sweep_sources, history, sweeps, folded)
    force_events(feed, layer, state.round_index, fixes, history, folded, events)
    return row
