"""Hand corrections to the journal and to the transport, without ever waiting, and learn what they took."""

from __future__ import annotations

from typing import Any

from rtqec.kernels.histogram import bin_of
from rtqec.kernels.ladder import learn_cost
from rtqec.kernels.native import DONTWAIT, compiled, load_acquire, now_ns, store_release, zmq_send
from rtqec.kernels.records import PATH_ENDED, SIGNAL_SEQUENCE, PathCounter, Span
from rtqec.kernels.shot import HELD
from rtqec.kernels.signal import sleep_on, wake
from rtqec.wire import CORRECTION_BYTES, CorrectionFlag

_LATE = int(CorrectionFlag.LATE)
_LOSSY = int(CorrectionFlag.LOSSY)
_DEGRADED = int(CorrectionFlag.DEGRADED)
_AMENDMENT = int(CorrectionFlag.AMENDMENT)
_BYTES = CORRECTION_BYTES
_DONTWAIT = DONTWAIT
_RELAY_TIMEOUT_NS = 100_000_000
"""How long an idle relay sleeps before it looks whether the path has ended."""


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
                        outbox: Any, cost_ns: Any, quantile: Any, spec: Any) -> Any:  # fmt: skip
    """Stamp, send and keep a batch, and let it move the predictions.

    Args:
        socket: The C pointer of a PUSH socket; 0 where another process relays what the journal has (`relay`).
        windows: The batch's `WINDOW_SLOT`s.
        corrections: `wire.CORRECTION`; `published_ns` and the late flag are filled. (An amendment is not late: its
            rounds have been answered.)
        memory: The same memory as uint8.
        counters: int64, shape (num_patches, len(PathCounter)).
        span_counts: int64, shape (num_patches, len(Span), NUM_BINS): histograms of times in ns.
        rung_counts: int64, shape (num_patches, len(Rung), len(Reason)).
        journal, journal_sent, written: See `telemetry.TelemetryBlock`.
        outbox: uint32, shape (SIGNAL_WORDS,): where that process sleeps.
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
        rung_counts[p, corrections[i].rung, corrections[i].reason] += 1
        # Kept before it is sent: a lane that dies in between leaves a correction that never came, not one that came and
        # that the lane after it answers in another way, under the same index.
        keep(p, corrections[i], 0, journal, journal_sent, written, counts)
        if socket:
            sent = zmq_send(socket, memory.ctypes.data + i * _BYTES, _BYTES, _DONTWAIT) >= 0
            journal_sent[p, (written[p] - 1) % journal.shape[1]] = 1 if sent else 0
            counts[PathCounter.CORRECTIONS_SENT if sent else PathCounter.CORRECTIONS_UNSENT] += 1
    if count and not socket:
        wake(outbox)
    if count and windows[0].model != HELD:
        took_ns = (time_ns - windows[0].decided_ns) / count
        for i in range(count):
            learn_cost(cost_ns, windows[i].model, windows[i].num_events, took_ns, quantile)


@compiled
def relay(socket: Any, journal: Any, memory: Any, journal_sent: Any, written: Any, relayed: Any, counters: Any,
          outbox: Any, control: Any, spec: Any) -> Any:  # fmt: skip
    """Send what the path of another process writes into the journal, in order, until that path has ended.

    Args:
        socket: The C pointer of a PUSH socket.
        journal, journal_sent, written: See `telemetry.TelemetryBlock`.
        memory: The journal's memory as uint8.
        relayed: int64, shape (num_patches,): the corrections of each patch that are not for this loop any more.
        counters: int64, shape (num_patches, len(PathCounter)): sent and unsent are written here.
        outbox: uint32, shape (SIGNAL_WORDS,): where to sleep.
        control: See `records`.
        spec: Scratch for the clock.
    """
    length = journal.shape[1]
    while True:
        seen = load_acquire(outbox, SIGNAL_SEQUENCE)
        ended = load_acquire(control, PATH_ENDED)
        moved = False
        for p in range(len(written)):
            stop = load_acquire(written, p)
            if stop - relayed[p] >= length:
                counters[p, PathCounter.CORRECTIONS_UNSENT] += stop - relayed[p] - length + 1
                relayed[p] = stop - length + 1
            while relayed[p] < stop:
                place = relayed[p] % length
                address = memory.ctypes.data + (p * length + place) * _BYTES
                sent = zmq_send(socket, address, _BYTES, _DONTWAIT) >= 0
                journal_sent[p, place] = 1 if sent else 0
                counters[p, PathCounter.CORRECTIONS_SENT if sent else PathCounter.CORRECTIONS_UNSENT] += 1
                relayed[p] += 1
                moved = True
        if moved:
            continue
        if ended:
            return
        sleep_on(outbox, seen, _RELAY_TIMEOUT_NS, spec)
