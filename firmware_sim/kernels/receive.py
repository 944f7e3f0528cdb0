"""The receiving loop: corrections from the socket into a ring that Python checks in large pieces."""

from __future__ import annotations

from typing import Any

import numpy as np

from firmware_sim.kernels.records import CHECKED, PAUSED, RECEIVED
from rtqec.kernels.native import compiled, load_acquire, now_ns, sleep_until, store_release, zmq_recv
from rtqec.kernels.records import STOP
from rtqec.wire import CORRECTION_BYTES

_BYTES = CORRECTION_BYTES
_FULL_SLEEP_NS = 1_000_000


@compiled
def receive_corrections(socket: Any, memory: Any, covered: Any, shot_rounds: Any, patch_ids: Any,
                        records: Any, cursors: Any, control: Any, bad: Any, spec: Any) -> Any:  # fmt: skip
    """Receive until `control[STOP]`.

    Args:
        socket: The C pointer of a PULL socket with a receive timeout.
        memory: uint8, room for `len(records)` corrections; `records` is the same memory.
        covered: int64, rounds up to which each patch has corrections; for the backlog.
        shot_rounds: int64, rounds of a shot of each patch.
        patch_ids: int64.
        cursors: int64, shape (SINK_WORDS,): received by this loop, checked by the reader.
        bad: int64, shape (1,): messages that are no correction.
    """
    capacity = len(records)
    received = cursors[RECEIVED]
    while not load_acquire(control, STOP):
        if load_acquire(control, PAUSED) or received - load_acquire(cursors, CHECKED) >= capacity:
            sleep_until(now_ns(spec) + _FULL_SLEEP_NS, spec)
            continue
        place = received % capacity
        size = zmq_recv(socket, memory.ctypes.data + place * _BYTES, _BYTES, 0)
        if size < 0:
            continue
        if size != _BYTES:
            bad[0] += 1
            continue
        correction = records[place]
        for p in range(len(patch_ids)):
            if patch_ids[p] == correction.patch_id:
                done = np.int64(correction.shot_id) * shot_rounds[p] + np.int64(correction.last_round_needed) + 1
                # An amendment is of rounds that were covered before.
                if done > covered[p]:
                    store_release(covered, p, done)
        received += 1
        store_release(cursors, RECEIVED, received)
