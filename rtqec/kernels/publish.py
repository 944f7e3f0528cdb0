"""Hand corrections to the transport, without ever waiting for it."""

from __future__ import annotations

from typing import Any

from rtqec.kernels.histogram import bin_of
from rtqec.kernels.native import DONTWAIT, compiled, now_ns, zmq_send
from rtqec.kernels.records import PathCounter
from rtqec.wire import CORRECTION_BYTES, CorrectionFlag

_LATE = int(CorrectionFlag.LATE)
_LOSSY = int(CorrectionFlag.LOSSY)
_DEGRADED = int(CorrectionFlag.DEGRADED)
_BYTES = CORRECTION_BYTES
_DONTWAIT = DONTWAIT


@compiled
def publish_corrections(socket: Any, windows: Any, corrections: Any, memory: Any, count: Any, counters: Any,
                        service_counts: Any, spec: Any) -> Any:  # fmt: skip
    """Stamp and send a batch.

    Args:
        socket: The C pointer of a PUSH socket.
        windows: The batch's `WINDOW_SLOT`s, for their deadlines.
        corrections: `wire.CORRECTION`; `published_ns` and the late flag are filled.
        memory: The same memory as uint8.
        counters: int64, shape (num_patches, len(PathCounter)).
        service_counts: int64, shape (num_patches, NUM_BINS): histograms of service time in ns.
        spec: Scratch for the clock.

    Returns:
        Time of the last hand-over, ns.
    """
    time_ns = 0
    for i in range(count):
        p = windows[i].patch_index
        counts = counters[p]
        time_ns = now_ns(spec)
        corrections[i].published_ns = time_ns
        if time_ns > windows[i].deadline_ns:
            corrections[i].flags |= _LATE
            counts[PathCounter.LATE] += 1
        flags = corrections[i].flags
        counts[PathCounter.LOSSY] += 1 if flags & _LOSSY else 0
        counts[PathCounter.DEGRADED] += 1 if flags & _DEGRADED else 0
        service_counts[p, bin_of(time_ns - windows[i].received_ns)] += 1
        sent = zmq_send(socket, memory.ctypes.data + i * _BYTES, _BYTES, _DONTWAIT)
        counts[PathCounter.CORRECTIONS_SENT if sent >= 0 else PathCounter.CORRECTIONS_UNSENT] += 1
    return time_ns
