"""Fold one round: measurements of this and earlier rounds to detection events, all in 64-bit words, LSB first."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.native import compiled

_ONE = np.uint64(1)
_EIGHT = np.uint64(8)


@compiled
def load_bits(message: Any, start: Any, num_bits: Any, words: Any, at: Any) -> Any:
    """Bit-packed bytes to whole words; bits beyond `num_bits` are dropped, so that padding cannot say anything."""
    num_bytes = (num_bits + 7) >> 3
    byte = 0
    for w in range((num_bits + 63) >> 6):
        word = np.uint64(0)
        stop = min(byte + 8, num_bytes)
        shift = np.uint64(0)
        while byte < stop:
            word |= np.uint64(message[start + byte]) << shift
            shift += _EIGHT
            byte += 1
        words[at + w] = word
    rest = num_bits & 63
    if rest:
        words[at + (num_bits >> 6)] &= (_ONE << np.uint64(rest)) - _ONE


@compiled
def store_bytes(words: Any, at: Any, num_bytes: Any, packed: Any, start: Any) -> Any:
    """Whole words to bytes."""
    for byte in range(num_bytes):
        packed[start + byte] = np.uint8(words[at + (byte >> 3)] >> np.uint64(8 * (byte & 7)))


@compiled
def fold_round(
    patch: Any, layer: Any, round_index: Any, constants: Any, sources: Any, sweep_sources: Any, history: Any,
    sweeps: Any, events: Any,
) -> Any:  # fmt: skip
    """XOR what each detector of a layer is made of.

    Args:
        patch: `FEED_PATCH` record.
        layer: `LAYER` record.
        round_index: Round of the shot; `history` holds its measurements and those of the rounds that it looks back to.
        constants: uint64, all layers' constants.
        sources: int32, shape (num_sources, 3): slot, rounds back, measurement.
        sweep_sources: int32, shape (num_sweeps, 2): slot, sweep bit.
        history: uint64, rows of `patch.history_words`.
        sweeps: uint64.
        events: uint64; filled.
    """
    num_words = (layer.num_detectors + 63) >> 6
    here = patch.history_offset + (round_index & patch.history_mask) * patch.history_words
    if layer.diagonal_back:
        # Detector i is measurement i now and some rounds ago: the bulk of most circuits, a word at a time.
        before = patch.history_offset + ((round_index - layer.diagonal_back) & patch.history_mask) * patch.history_words
        for w in range(num_words):
            events[w] = constants[layer.constant_offset + w] ^ history[here + w] ^ history[before + w]
        return
    for w in range(num_words):
        events[w] = constants[layer.constant_offset + w]
    for i in range(layer.source_start, layer.source_stop):
        row = patch.history_offset + ((round_index - sources[i, 1]) & patch.history_mask) * patch.history_words
        bit = (history[row + (sources[i, 2] >> 6)] >> np.uint64(sources[i, 2] & 63)) & _ONE
        events[sources[i, 0] >> 6] ^= bit << np.uint64(sources[i, 0] & 63)
    for i in range(layer.sweep_start, layer.sweep_stop):
        place = patch.sweep_offset + (sweep_sources[i, 1] >> 6)
        bit = (sweeps[place] >> np.uint64(sweep_sources[i, 1] & 63)) & _ONE
        events[sweep_sources[i, 0] >> 6] ^= bit << np.uint64(sweep_sources[i, 0] & 63)


@compiled
def force_events(
    patch: Any, layer: Any, round_index: Any, fixes: Any, history: Any, events: Any, wanted: Any
) -> Any:  # fmt: skip
    """Flip measurements of a round so that it folds to `wanted` instead of `events`; which becomes `wanted`.

    Args:
        fixes: int32, shape (num_fixes, 2): slot, measurement; see `plan.folding.FoldProgram`.
        events, wanted: uint64.
    """
    here = patch.history_offset + (round_index & patch.history_mask) * patch.history_words
    if layer.diagonal_back:
        for w in range((layer.num_detectors + 63) >> 6):
            history[here + w] ^= events[w] ^ wanted[w]
            events[w] = wanted[w]
        return
    for i in range(layer.fix_start, layer.fix_stop):
        slot, measurement = fixes[i, 0], fixes[i, 1]
        flip = ((events[slot >> 6] ^ wanted[slot >> 6]) >> np.uint64(slot & 63)) & _ONE
        history[here + (measurement >> 6)] ^= flip << np.uint64(measurement & 63)
    for w in range((layer.num_detectors + 63) >> 6):
        events[w] = wanted[w]


@compiled
def fill_round(
    patch: Any, layer: Any, round_index: Any, constants: Any, sources: Any, sweep_sources: Any, fixes: Any,
    history: Any, sweeps: Any, events: Any, zeros: Any,
) -> Any:  # fmt: skip
    """Invent the measurements of a round that never came, so that its own detectors read 0.

    Start from the round before and flip what must be flipped. The next round's detectors then carry the news of both.
    Arguments as for `fold_round` and `force_events`; `zeros` are zeros.
    """
    here = patch.history_offset + (round_index & patch.history_mask) * patch.history_words
    before = patch.history_offset + ((round_index - 1) & patch.history_mask) * patch.history_words
    for w in range((layer.num_measurements + 63) >> 6):
        history[here + w] = history[before + w]
    fold_round(patch, layer, round_index, constants, sources, sweep_sources, history, sweeps, events)
    force_events(patch, layer, round_index, fixes, history, events, zeros)
