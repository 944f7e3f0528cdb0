"""The ring: fixed slots per patch, allocated once. Ingest writes at the head, the path gives back at the tail.

A slot is free (beyond head), or holds a round (from tail to head). Ingest fills a slot and then publishes it with a
release store of the head; the path may XOR a seam into slots that it has not given back. A full ring drops the
newest message, counted: it never allocates and never waits.
"""

from __future__ import annotations

import mmap
import os
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.errors import FaultError
from rtqec.kernels.records import (
    CONTROL_WORDS,
    CURSOR_STRIDE,
    DRAIN,
    FEED_ENDED,
    NOBODY,
    OPEN_SHOTS,
    PATH_ENDED,
    PATH_LEFT,
    PATH_OWNER,
    RING_PLACE,
    ROUND_SLOT,
    SIGNAL_WORDS,
    STOP,
    WINDOW_STATE,
)
from rtqec.kernels.signal import wake
from rtqec.layout import ring_capacity
from rtqec.plan import Plan


class Ring:
    """Memory of all patches of a lane, and where each stands. A file in memory, so that the path of another process
    can go on in it; see `Lane.inherit`.

    Args:
        plans: One per patch.
        rounds_asked: `[feed] ring_rounds`.
        control: The lane's control words, or None for own ones.
        fd: The memory of a ring with the same layout that is in use, or None for a new one.

    Attributes:
        places: `RING_PLACE`, shape (num_patches,).
        events_b8: uint8, layers of all slots.
        slots: `ROUND_SLOT`, one per slot.
        cursors: int64, shape (num_patches * CURSOR_STRIDE,).
        states, aheads: `WINDOW_STATE`, shape (num_patches,); see `batch.Streams`.
        signal: uint32, shape (SIGNAL_WORDS,): where the path sleeps.
        outbox: uint32, shape (SIGNAL_WORDS,): where a relay sleeps; see `kernels.publish`.
        control: int64, shape (CONTROL_WORDS,); of a lane, in its telemetry block.
        fd: The memory's descriptor.

    Raises:
        FaultError: The memory in use is not that of such a ring.
    """

    def __init__(
        self, plans: list[Plan], rounds_asked: int, control: NDArray[np.int64] | None = None, fd: int | None = None
    ) -> None:
        self.places = np.zeros(len(plans), RING_PLACE)
        num_bytes = num_slots = 0
        for place, plan in zip(self.places, plans, strict=True):
            capacity = ring_capacity(rounds_asked, plan.window.rounds)
            place["byte_offset"], place["slot_offset"] = num_bytes, num_slots
            place["mask"], place["layer_bytes"] = capacity - 1, plan.layout.layer_bytes
            num_bytes += capacity * plan.layout.layer_bytes
            num_slots += capacity
        parts: list[tuple[Any, int]] = [
            (np.int64, len(plans) * CURSOR_STRIDE), (np.uint32, SIGNAL_WORDS), (np.uint32, SIGNAL_WORDS),
            (WINDOW_STATE, len(plans)), (WINDOW_STATE, len(plans)), (ROUND_SLOT, num_slots), (np.uint8, num_bytes),
        ]  # fmt: skip
        self._in_use = fd is not None
        self.fd = fd if fd is not None else os.memfd_create("rtqec-ring")
        weakref.finalize(self, os.close, self.fd)
        arrays = _lay_out(self.fd, parts, self._in_use)
        self.cursors, self.signal, self.outbox, self.states, self.aheads, self.slots, self.events_b8 = arrays
        self.control = np.zeros(CONTROL_WORDS, np.int64) if control is None else control

    def warm(self) -> None:
        """Touch every page of a new ring."""
        if not self._in_use:
            self.events_b8.fill(0)
            self.slots.view(np.uint8).fill(0)

    def reset(self) -> None:
        """Forget what a lane before has written."""
        for array in (self.cursors, self.signal, self.outbox, self.states, self.aheads):
            array.view(np.uint8).fill(0)
        self.control[[STOP, DRAIN, OPEN_SHOTS, PATH_OWNER, PATH_LEFT, FEED_ENDED, PATH_ENDED]] = 0

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return bool(self.control[STOP])

    def stop(self) -> None:
        """Tell ingest and path to return; both look within their wait's timeout."""
        self.control[PATH_OWNER] = NOBODY
        self.control[STOP] = 1
        wake(self.signal)

    def hand_over(self, ticket: int) -> None:
        """Ask the path that runs to leave the ring to another one."""
        self.control[PATH_OWNER] = ticket
        wake(self.signal)


def _lay_out(fd: int, parts: list[tuple[Any, int]], in_use: bool) -> list[NDArray[Any]]:
    """Arrays in a file, each on a cache line of its own.

    Raises:
        FaultError: The file is in use and has another size.
    """
    starts = np.cumsum([0, *(-(-np.dtype(dtype).itemsize * count // 64) * 64 for dtype, count in parts)])
    size = int(starts[-1])
    if not in_use:
        os.ftruncate(fd, size)
    elif os.fstat(fd).st_size != size:
        raise FaultError(f"the ring in use has {os.fstat(fd).st_size} bytes, but this plan's has {size}.")
    memory = mmap.mmap(fd, size)
    return [
        np.frombuffer(memory, dtype, count, start) for (dtype, count), start in zip(parts, starts[:-1], strict=True)
    ]
