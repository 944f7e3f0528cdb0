"""The ring: fixed slots per patch, allocated once. Ingest writes at the head, the path gives back at the tail.

A slot is free (beyond head), or holds a round (from tail to head). Ingest fills a slot and then publishes it with a
release store of the head; the path may XOR a seam into slots that it has not given back. A full ring drops the
newest message, counted: it never allocates and never waits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtqec.kernels.records import (
    CONTROL_WORDS,
    CURSOR_STRIDE,
    DRAIN,
    OPEN_SHOTS,
    RING_PLACE,
    ROUND_SLOT,
    SIGNAL_SEQUENCE,
    SIGNAL_WORDS,
    STOP,
)
from rtqec.layout import ring_capacity
from rtqec.plan import Plan


class Ring:
    """Memory of all patches of a lane.

    Attributes:
        places: `RING_PLACE`, shape (num_patches,).
        events_b8: uint8, layers of all slots.
        slots: `ROUND_SLOT`, one per slot.
        cursors: int64, shape (num_patches * CURSOR_STRIDE,).
        signal: uint32, shape (SIGNAL_WORDS,).
        control: int64, shape (CONTROL_WORDS,); of a lane, in its telemetry block.
    """

    def __init__(self, plans: list[Plan], rounds_asked: int, control: NDArray[np.int64] | None = None) -> None:
        self.places = np.zeros(len(plans), RING_PLACE)
        num_bytes = num_slots = 0
        for place, plan in zip(self.places, plans, strict=True):
            capacity = ring_capacity(rounds_asked, plan.window.rounds)
            place["byte_offset"], place["slot_offset"] = num_bytes, num_slots
            place["mask"], place["layer_bytes"] = capacity - 1, plan.layout.layer_bytes
            num_bytes += capacity * plan.layout.layer_bytes
            num_slots += capacity
        self.events_b8 = np.empty(num_bytes, np.uint8)
        self.slots = np.empty(num_slots, ROUND_SLOT)
        self.cursors = np.zeros(len(plans) * CURSOR_STRIDE, np.int64)
        self.signal = np.zeros(SIGNAL_WORDS, np.uint32)
        self.control = np.zeros(CONTROL_WORDS, np.int64) if control is None else control

    def warm(self) -> None:
        """Touch every page."""
        self.events_b8.fill(0)
        self.slots.view(np.uint8).fill(0)

    def reset(self) -> None:
        """Forget what a lane before has written."""
        self.cursors.fill(0)
        self.signal.fill(0)
        self.control[[STOP, DRAIN, OPEN_SHOTS]] = 0

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return bool(self.control[STOP])

    def stop(self) -> None:
        """Tell ingest and path to return; both look within their wait's timeout."""
        self.control[STOP] = 1
        self.signal[SIGNAL_SEQUENCE] += 1
