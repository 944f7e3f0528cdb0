"""Hand corrections to the journal and to the transport, without ever waiting, and learn what they took."""

from __future__ import annotations

from typing import Any

from rtqec.kernels.histogram import bin_of
from rtqec.kernels.ladder import learn_cost
from rtqec.kernels.native import DONTWAIT, compiled, now_ns, store_release, zmq_send
from rtqec.kernels.records import PathCounter, Span
from rtqec.kernels.shot import HELD
from rtqec.wire import CORRECTION_BYTES, CorrectionFlag

_LATE = int(CorrectionFlag.LATE)
_LOSSY = int(CorrectionFlag.LOSSY)
_DEGRADED = int(CorrectionFlag.DEGRADED)
_AMENDMENT = int(CorrectionFlag.AMENDMENT)
_BYTES = CORRECTION_BYTES
_DONTWAIT = DONTWAIT


@compiled
def keep(p: Any, correction: Any, sent: Any, journal: Any, journal_sent: Any, written: Any, counts: Any) -> Any:
    """Write a correction into the patch's journal, over the oldest one."""
    place = written[p] % journal.shape[1]
    if written[p] >= journal.shape[1] and not journal_sent[p, place]:
        counts[PathCounter.JOURNAL_DROPS] += 1
    journal[p, place] = correction
    journal_sent[p, place] = sent
    store_release(written, p, written[p] + 1)


@compiled
def count_spans(window: Any, time_ns: Any, counts: Any) -> Any:
    """Add the times of one correction to the patch's histograms."""
    counts[Span.SERVICE, bin_of(time_ns - window.received_ns)] += 1
    counts[Span.QUEUE, bin_of(window.decided_ns - window.received_ns)] += 1
    counts[Span.DECODE, bin_of(time_ns - window.decided_ns)] += 1
    if window.sent_ns > 0:
        counts[Span.REACTION, bin_of(time_ns - window.sent_ns)] += 1


@compiled
def publish_corrections(socket: Any, windows: Any, corrections: Any, memory: Any, count: Any, counters: Any,
                        span_counts: Any, rung_counts: Any, journal: Any, journal_sent: Any, written: Any,
                        cost_ns: Any, quantile: Any, spec: Any) -> Any:  # fmt: skip
    """Stamp, send and keep a batch, and let it move the predictions.

    Args:
        socket: The C pointer of a PUSH socket.
        windows: The batch's `WINDOW_SLOT`s.
        corrections: `wire.CORRECTION`; `published_ns` and the late flag are filled. (An amendment is not late: its
            rounds have been answered.)
        memory: The same memory as uint8.
        counters: int64, shape (num_patches, len(PathCounter)).
        span_counts: int64, shape (num_patches, len(Span), NUM_BINS): histograms of times in ns.
        rung_counts: int64, shape (num_patches, len(Rung)).
        journal, journal_sent, written: See `telemetry.TelemetryBlock`.
        cost_ns, quantile: See `kernels.ladder`.
        spec: Scratch for the clock.
    """
    time_ns = 0
    for i in range(count):
        p = windows[i].patch_index
        counts = counters[p]
        time_ns = now_ns(spec)
        corrections[i].published_ns = time_ns
        amendment = corrections[i].flags & _AMENDMENT
        if time_ns > windows[i].deadline_ns and not amendment:
            corrections[i].flags |= _LATE
            counts[PathCounter.CORRECTIONS_LATE] += 1
            predicted = windows[i].predicted_ns
            if predicted and windows[i].decided_ns + predicted <= windows[i].deadline_ns:
                counts[PathCounter.MISPREDICTED] += 1
        flags = corrections[i].flags
        counts[PathCounter.LOSSY] += 1 if flags & _LOSSY else 0
        counts[PathCounter.DEGRADED] += 1 if flags & _DEGRADED else 0
        if not amendment:
            count_spans(windows[i], time_ns, span_counts[p])
        rung_counts[p, corrections[i].rung] += 1
        sent = zmq_send(socket, memory.ctypes.data + i * _BYTES, _BYTES, _DONTWAIT) >= 0
        counts[PathCounter.CORRECTIONS_SENT if sent else PathCounter.CORRECTIONS_UNSENT] += 1
        keep(p, corrections[i], 1 if sent else 0, journal, journal_sent, written, counts)
    if count and windows[0].model != HELD:
        took_ns = (time_ns - windows[0].decided_ns) / count
        for i in range(count):
            learn_cost(cost_ns, windows[i].model, windows[i].num_events, took_ns, quantile)
