"""What surrounds the network, on a GPU: packed rounds to its input, its answers to packed changes and flips.

The twin of `kernels.stencils`, bit for bit. One block per layer and chunk. Each detector looks for the answers that
flip it, so that nothing is added up in the order in which threads arrive: the result is the same each time. numba's
simulator runs them in tests, without a GPU.

This is the door to `numba.cuda`; nobody imports it who does not use a GPU.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rtqec.device.engine import ChunkShape
from rtqec.kernels.records import EDGE, LAST, OUTSIDE

THREADS = 256
"""Of a block, a power of two: a layer of d=13 has 168 detectors and 338 spots."""

# A chunk is a few hundred small blocks; that they do not fill the GPU is the nature of one call at a time.
numba.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


@cuda.jit
def unpack_chunks(
    own: Any, slot_of: Any, presence: Any, rounds_b8: Any, kinds: Any, patches: Any, volume: Any, inside: Any
) -> None:
    """Unpack rounds into the network's input, float32, shapes (chunks, 4, layers, num_cells) and (chunks, layers)."""
    layer, k = cuda.blockIdx.x, cuda.blockIdx.y
    n = presence.shape[2]
    p, kind = patches[k], kinds[k, layer]
    edge = 1 if kind >= EDGE else 0
    if cuda.threadIdx.x == 0:
        inside[k, layer] = np.float32(0) if kind == OUTSIDE else np.float32(1)
    for spot in range(cuda.threadIdx.x, 2 * n, cuda.blockDim.x):
        channel, cell = spot // n, spot % n
        event, present = np.float32(0), np.float32(0)
        if kind != OUTSIDE:
            slot = slot_of[p, edge, spot]
            if slot >= 0 and (rounds_b8[k, layer, slot >> 3] >> (slot & 7)) & 1:
                event = np.float32(1)
            if edge == 0 or channel == own[p]:
                present = presence[p, channel, cell]
        volume[k, channel, layer, cell] = event
        volume[k, 2 + channel, layer, cell] = present


@cuda.jit(device=True)
def is_flipped(
    own: Any, thresholds: Any, slot_of: Any, qubits_of: Any, kinds: Any, spans: Any, logits: Any, k: Any, p: Any,
    layer: Any, spot: Any,
) -> Any:  # fmt: skip
    """Whether a chunk's answers flip a detector."""
    n, num_channels = logits.shape[3], 2 if logits.shape[1] == 4 else 1
    channel, cell = spot // n, spot % n
    if num_channels == 1 and channel != own[p]:
        return 0
    output = 0 if num_channels == 1 else channel
    kind = kinds[k, layer]
    is_answered = spans[k, 0] <= layer and layer < spans[k, 1]
    parity = 0
    if is_answered and (kind < EDGE or channel == own[p]):
        for i in range(4):
            qubit = qubits_of[p, channel, cell, i]
            if qubit >= 0 and logits[k, output, layer, qubit] >= thresholds[p, 0]:
                parity ^= 1
    # A wrong outcome of a check: the bulk knows where there are any.
    if slot_of[p, 0, spot] < 0:
        return parity
    reaches = kind != LAST and layer + 1 < logits.shape[2] and kinds[k, layer + 1] != OUTSIDE
    if is_answered and reaches and logits[k, num_channels + output, layer, cell] >= thresholds[p, 1]:
        parity ^= 1
    before = layer - 1
    was_answered = spans[k, 0] <= before and before < spans[k, 1] and kinds[k, before] != LAST
    if was_answered and logits[k, num_channels + output, before, cell] >= thresholds[p, 1]:
        parity ^= 1
    return parity


@cuda.jit
def answer_chunks(
    own: Any, thresholds: Any, spots: Any, slot_of: Any, logical: Any, qubits_of: Any, kinds: Any, spans: Any,
    patches: Any, logits: Any, changes_b8: Any, flips: Any, bad: Any,
) -> None:  # fmt: skip
    """Turn answers, float32, shape (chunks, outputs, layers, num_cells), into what they flip."""
    bits = cuda.shared.array(THREADS, np.uint8)
    parts = cuda.shared.array(THREADS, np.uint64)
    wrong = cuda.shared.array(THREADS, np.uint8)
    layer, k, thread = cuda.blockIdx.x, cuda.blockIdx.y, cuda.threadIdx.x
    layer_bytes, n = changes_b8.shape[2], logits.shape[3]
    # Two answers are of the own kind, four of both; what follows two of them is for the soft hand-over.
    num_channels = 2 if logits.shape[1] == 4 else 1
    p, kind = patches[k], kinds[k, layer]
    edge = 1 if kind >= EDGE else 0

    for start in range(0, 8 * layer_bytes, THREADS):
        slot = start + thread
        bits[thread] = 0
        if slot < 8 * layer_bytes and kind != OUTSIDE:
            spot = spots[p, edge, slot]
            if spot >= 0:
                bits[thread] = is_flipped(
                    own, thresholds, slot_of, qubits_of, kinds, spans, logits, k, p, layer, spot
                )  # fmt: skip
        cuda.syncthreads()
        byte = start // 8 + thread
        if thread < THREADS // 8 and byte < layer_bytes:
            packed = 0
            for i in range(8):
                packed |= bits[8 * thread + i] << i
            changes_b8[k, layer, byte] = packed
        cuda.syncthreads()

    part, is_bad = np.uint64(0), 0
    if spans[k, 0] <= layer and layer < spans[k, 1]:
        for at in range(thread, logits.shape[1] * n, THREADS):
            output, cell = at // n, at % n
            value = logits[k, output, layer, cell]
            if value != value:
                is_bad = 1
            if output < num_channels and value >= thresholds[p, 0]:
                channel = own[p] if num_channels == 1 else output
                if edge == 0 or channel == own[p]:
                    part ^= logical[p, channel, cell]
    parts[thread], wrong[thread] = part, is_bad
    half = THREADS // 2
    while half > 0:
        cuda.syncthreads()
        if thread < half:
            parts[thread] ^= parts[thread + half]
            wrong[thread] |= wrong[thread + half]
        half //= 2
    if thread == 0:
        flips[k, layer], bad[k, layer] = parts[0], wrong[0]


def use(gpu_index: int) -> None:
    """Launch from this thread on a GPU, in the context that CuPy and TensorRT use too."""
    cuda.select_device(gpu_index)


def shared(array: Any) -> Any:
    """An array of another library as numba's. It is not waited for: the stream of the launches orders them."""
    return cuda.as_cuda_array(array, sync=False)


def launch(kernel: Any, shape: ChunkShape, stream: int, *arrays: Any) -> None:
    """Enqueue a kernel over all layers of all chunks on a stream, given its handle."""
    kernel[(shape.layers, shape.chunks), THREADS, cuda.external_stream(stream)](*arrays)
