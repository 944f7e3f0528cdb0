"""Shots as the wire carries them, with what is known of their truth."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.layout import bytes_for_bits
from rtqec.plan import Plan
from rtqec.wire import padded


@dataclass(frozen=True)
class Shots:
    """Finite shots of one patch.

    Attributes:
        rounds_b8: uint8, shape (num_shots, shot_bytes): rounds one after the other, each in whole bytes.
        sweep_b8: uint8, shape (num_shots, sweep_bytes), padded to whole words; width 0 where there are none.
        messages: int64, shape (messages_per_shot, 5): of each message of a shot its first round,
            number of rounds, byte offset, number of bytes, bits per round.
        num_rounds: Rounds of a shot.
        detection_events_b8: uint8, shape (num_shots, ceil(num_detectors / 8)), in the circuit's own order.
        observable_flips: uint64, shape (num_shots,): the truth, one bit per own observable; None where unknown.
    """

    rounds_b8: NDArray[np.uint8]
    sweep_b8: NDArray[np.uint8]
    messages: NDArray[np.int64]
    num_rounds: int
    detection_events_b8: NDArray[np.uint8]
    observable_flips: NDArray[np.uint64] | None

    @property
    def num_shots(self) -> int:
        """How many there are."""
        return len(self.rounds_b8)


def words_from_bits(bits: NDArray[Any]) -> NDArray[np.uint64]:
    """Observable flips, bool, shape (num_shots, num_observables), as one word per shot."""
    weights = np.uint64(1) << np.arange(bits.shape[1], dtype=np.uint64)
    words: NDArray[np.uint64] = (bits.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
    return words


def pack_measurements(plan: Plan, measurements: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Cut raw shots into rounds as the hardware sends them.

    Args:
        plan: Knows the blocks.
        measurements: bool, shape (num_shots, num_measurements).

    Returns:
        uint8, shape (num_shots, shot_bytes).
    """
    starts = plan.rounds.block_starts
    blocks = [measurements[:, a:b] for a, b in itertools.pairwise(starts.tolist())]
    return np.concatenate([np.packbits(block, axis=1, bitorder="little") for block in blocks], axis=1)


def pack_detection_events(plan: Plan, detection_events: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Cut shots of detection events, in the circuit's order, into rounds; each round in order of detector number."""
    rounds = plan.rounds.detector_round
    layers = [detection_events[:, np.flatnonzero(rounds == t)] for t in range(plan.rounds.num_rounds)]
    return np.concatenate([np.packbits(layer, axis=1, bitorder="little") for layer in layers], axis=1)


def pack_sweeps(sweep_bits: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Sweep bits, bool, shape (num_shots, num_sweep_bits), as the wire's block."""
    packed = np.packbits(sweep_bits, axis=1, bitorder="little")
    return np.pad(packed, ((0, 0), (0, padded(packed.shape[1]) - packed.shape[1])))


def message_table(plan: Plan, events: bool, rounds_per_message: int) -> NDArray[np.int64]:
    """How a finite shot is cut into messages: neighbours of equal width, at most `rounds_per_message` together."""
    assert plan.num_rounds is not None
    rows: list[list[int]] = []
    offset = 0
    for t in range(plan.num_rounds):
        layer = plan.layer(t, t == plan.num_rounds - 1)
        bits = layer.num_detectors if events else layer.num_measurements
        if rows and rows[-1][4] == bits and rows[-1][1] < rounds_per_message:
            rows[-1][1] += 1
            rows[-1][3] += bytes_for_bits(bits)
        else:
            rows.append([t, 1, offset, bytes_for_bits(bits), bits])
        offset += bytes_for_bits(bits)
    return np.array(rows, np.int64)
