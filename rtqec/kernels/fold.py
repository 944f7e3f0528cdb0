"""Fold one round: measurements of this and earlier rounds to detection events."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.native import compiled


@compiled
def unpack_bits(packed: Any, packed_start: Any, num_bits: Any, bits: Any, bits_start: Any) -> Any:
    """Bit-packed bytes (LSB first) to one byte per bit."""
    for i in range(num_bits):
        bits[bits_start + i] = (packed[packed_start + (i >> 3)] >> np.uint8(i & 7)) & np.uint8(1)


@compiled
def pack_bits(bits: Any, num_bits: Any, packed: Any, packed_start: Any, num_bytes: Any) -> Any:
    """One byte per bit to bit-packed bytes (LSB first), zero-padded to `num_bytes`."""
    for byte in range(num_bytes):
        value = np.uint8(0)
        for i in range(8 * byte, min(8 * byte + 8, num_bits)):
            value |= np.uint8(bits[i] << np.uint8(i & 7))
        packed[packed_start + byte] = value


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
        constants: uint8, all layers' constants.
        sources: int32, shape (num_sources, 3): slot, rounds back, measurement.
        sweep_sources: int32, shape (num_sweeps, 2): slot, sweep bit.
        history: uint8, one byte per measurement.
        sweeps: uint8, one byte per sweep bit.
        events: uint8, one byte per detector; filled.
    """
    for slot in range(layer.num_detectors):
        events[slot] = constants[layer.constant_offset + slot]
    for i in range(layer.source_start, layer.source_stop):
        row = (round_index - sources[i, 1]) & patch.history_mask
        events[sources[i, 0]] ^= history[patch.history_offset + row * patch.history_width + sources[i, 2]]
    for i in range(layer.sweep_start, layer.sweep_stop):
        events[sweep_sources[i, 0]] ^= sweeps[patch.sweep_offset + sweep_sources[i, 1]]


@compiled
def fill_round(
    patch: Any, layer: Any, round_index: Any, constants: Any, sources: Any, sweep_sources: Any, pivots: Any,
    history: Any, sweeps: Any, events: Any,
) -> Any:  # fmt: skip
    """Invent the measurements of a round that never came, so that its own detectors read 0.

    Start from the round before, fold, and flip the private measurement of each detector that reads 1. The next
    round's detectors then carry the news of both. Arguments as for `fold_round`; `pivots` are the private ones.
    """
    here = patch.history_offset + (round_index & patch.history_mask) * patch.history_width
    before = patch.history_offset + ((round_index - 1) & patch.history_mask) * patch.history_width
    for i in range(layer.num_measurements):
        history[here + i] = history[before + i]
    fold_round(patch, layer, round_index, constants, sources, sweep_sources, history, sweeps, events)
    for slot in range(layer.num_detectors):
        pivot = pivots[layer.constant_offset + slot]
        if pivot >= 0:
            history[here + pivot] ^= events[slot]
        events[slot] = 0
