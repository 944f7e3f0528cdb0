"""What surrounds the network, on the host: packed rounds to its input, its answers to packed changes and flips.

The same on a GPU, in `device.gpu_kernels`: bit for bit equal, a test. Here answers are followed to the detectors that
they flip, since few cells answer yes; there each detector looks for the answers that flip it, as the check here does
(`flipped_by_answers`).

The arrays come as `tables`: own, thresholds, spots, slot_of, logical, presence, checks_of, qubits_of; see
`device.chunks.ChunkTables`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.native import compiled
from rtqec.kernels.records import EDGE, LAST, OUTSIDE

_ONE = np.uint8(1)
_ZERO = np.uint8(0)


@compiled
def lay_out(own: Any, kind: Any, presence: Any, volume: Any, inside: Any, layer: Any) -> Any:
    """Write what a layer of a kind has besides its events: presence, and whether it exists."""
    inside[layer] = 0.0 if kind == OUTSIDE else 1.0
    for channel in range(2):
        exists = kind != OUTSIDE and (kind < EDGE or channel == own)
        for cell in range(volume.shape[2]):
            volume[2 + channel, layer, cell] = presence[channel, cell] if exists else 0.0


@compiled
def unpack_chunks(tables: Any, inputs: Any, count: Any, volume: Any, inside: Any, laid: Any) -> Any:
    """Unpack rounds into the network's input.

    Args:
        inputs: rounds_b8, kinds, spans, patches; see `device.chunks.ChunkDevice`.
        count: Number of chunks.
        volume: float32, shape (chunks, 4, layers, num_cells); filled.
        inside: float32, shape (chunks, layers); filled.
        laid: int32, shape (chunks, layers): for which patch and kind each layer was laid out last, from call to call;
            writing presence anew costs as much as unpacking.
    """
    own, _, spots, _, _, presence, _, _ = tables
    rounds_b8, kinds, _, patches = inputs
    n = volume.shape[3]
    for k in range(count):
        p = patches[k]
        for layer in range(volume.shape[2]):
            kind = kinds[k, layer]
            wanted = 4 * p + kind
            if laid[k, layer] != wanted:
                lay_out(own[p], kind, presence[p], volume[k], inside[k], layer)
                laid[k, layer] = wanted
            for channel in range(2):
                for cell in range(n):
                    volume[k, channel, layer, cell] = 0.0
            if kind == OUTSIDE:
                continue
            edge = 1 if kind >= EDGE else 0
            for i in range(rounds_b8.shape[2]):
                byte = rounds_b8[k, layer, i]
                slot = i << 3
                while byte:
                    if byte & _ONE:
                        spot = spots[p, edge, slot]
                        if spot >= 0:
                            volume[k, spot // n, layer, spot % n] = 1.0
                    byte >>= _ONE
                    slot += 1


@compiled
def flip_spot(slot_of: Any, spot: Any, row_b8: Any) -> Any:
    """Flip the detector of a spot in a packed layer; nothing where the layer has none there."""
    slot = slot_of[spot]
    if slot >= 0:
        row_b8[slot >> 3] ^= np.uint8(1 << (slot & 7))


@compiled
def answer_layer(tables: Any, p: Any, kinds: Any, layer: Any, logits: Any, changes_b8: Any) -> Any:
    """Follow a layer's answers to the detectors that they flip, in it and in the next one.

    Args:
        p: Patch.
        kinds: uint8, shape (layers,): the chunk's.
        logits: float32, shape (outputs, layers, num_cells).
        changes_b8: uint8, shape (layers, layer_bytes); XORed into.

    Returns:
        The observables that they flip.
    """
    own, thresholds, _, slot_of, logical, _, checks_of, _ = tables
    n = logits.shape[2]
    num_channels = 2 if logits.shape[0] == 4 else 1
    edge = 1 if kinds[layer] >= EDGE else 0
    reaches = kinds[layer] != LAST and layer + 1 < len(kinds) and kinds[layer + 1] != OUTSIDE
    next_edge = 1 if reaches and kinds[layer + 1] >= EDGE else 0
    flips = np.uint64(0)
    for k in range(num_channels):
        channel = own[p] if num_channels == 1 else k
        if not edge or channel == own[p]:
            threshold = thresholds[p, 0]
            for cell in range(n):
                if logits[k, layer, cell] >= threshold:
                    flips ^= logical[p, channel, cell]
                    for i in range(2):
                        check = checks_of[p, channel, cell, i]
                        if check >= 0:
                            flip_spot(slot_of[p, edge], channel * n + check, changes_b8[layer])
        if not reaches:
            continue
        threshold = thresholds[p, 1]
        for cell in range(n):
            spot = channel * n + cell
            # A wrong outcome of a check: the bulk knows where there are any.
            if logits[num_channels + k, layer, cell] >= threshold and slot_of[p, 0, spot] >= 0:
                flip_spot(slot_of[p, edge], spot, changes_b8[layer])
                flip_spot(slot_of[p, next_edge], spot, changes_b8[layer + 1])
    return flips


@compiled
def answer_chunks(tables: Any, inputs: Any, count: Any, logits: Any, changes_b8: Any, flips: Any, bad: Any) -> Any:
    """Turn answers into what they flip.

    Args:
        inputs: As for `unpack_chunks`.
        count: Number of chunks.
        logits: float32, shape (chunks, outputs, layers, num_cells).
        changes_b8, flips, bad: As of `device.chunks.ChunkDevice`; filled.
    """
    _, kinds, spans, patches = inputs
    outputs, _, n = logits.shape[1:]
    for k in range(count):
        for layer in range(changes_b8.shape[1]):
            flips[k, layer] = np.uint64(0)
            bad[k, layer] = _ZERO
            for i in range(changes_b8.shape[2]):
                changes_b8[k, layer, i] = _ZERO
        for layer in range(spans[k, 0], spans[k, 1]):
            # Without a branch, so that it is done many at a time.
            found = 0
            for output in range(outputs):
                for cell in range(n):
                    found |= logits[k, output, layer, cell] != logits[k, output, layer, cell]
            bad[k, layer] = np.uint8(found)
            flips[k, layer] = answer_layer(tables, patches[k], kinds[k], layer, logits[k], changes_b8[k])


@compiled
def flipped_by_answers(tables: Any, p: Any, kinds: Any, span: Any, layer: Any, spot: Any, logits: Any) -> Any:
    """Whether a chunk's answers flip a detector, looked at from the detector.

    Args:
        p, kinds, logits: As for `answer_layer`.
        span: First and stop layer that are answered.
        spot: `channel * num_cells + cell` of a detector that the layer has.
    """
    own, thresholds, _, slot_of, _, _, _, qubits_of = tables
    n = logits.shape[2]
    channel, cell = spot // n, spot % n
    num_channels = 2 if logits.shape[0] == 4 else 1
    if num_channels == 1 and channel != own[p]:
        return 0
    k = 0 if num_channels == 1 else channel
    parity = 0
    answered = span[0] <= layer < span[1]
    if answered and (kinds[layer] < EDGE or channel == own[p]):
        for i in range(4):
            qubit = qubits_of[p, channel, cell, i]
            if qubit >= 0 and logits[k, layer, qubit] >= thresholds[p, 0]:
                parity ^= 1
    if slot_of[p, 0, spot] < 0:
        return parity
    reaches = kinds[layer] != LAST and layer + 1 < len(kinds) and kinds[layer + 1] != OUTSIDE
    if answered and reaches and logits[num_channels + k, layer, cell] >= thresholds[p, 1]:
        parity ^= 1
    before = span[0] <= layer - 1 < span[1] and kinds[layer - 1] != LAST and kinds[layer] != OUTSIDE
    if before and logits[num_channels + k, layer - 1, cell] >= thresholds[p, 1]:
        parity ^= 1
    return parity


@compiled
def observables_flipped(tables: Any, p: Any, kind: Any, layer: Any, logits: Any) -> Any:
    """The observables that a layer's answers flip: observable by observable, the parity of the cells that do."""
    own, thresholds, _, _, logical, _, _, _ = tables
    num_channels = 2 if logits.shape[0] == 4 else 1
    flips = np.uint64(0)
    for bit in range(64):
        parity = np.uint64(0)
        for k in range(num_channels):
            channel = own[p] if num_channels == 1 else k
            if kind >= EDGE and channel != own[p]:
                continue
            for cell in range(logits.shape[2]):
                if logits[k, layer, cell] >= thresholds[p, 0]:
                    parity ^= (logical[p, channel, cell] >> np.uint64(bit)) & np.uint64(1)
        flips |= parity << np.uint64(bit)
    return flips
