"""The ingest loop: receive, check, order, fold, place. One thread, no GIL, until it is told to stop.

A message is either placed whole or dropped with one counter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.message import ACCEPTED, check_header, check_message, find_patch
from rtqec.kernels.native import DONTWAIT, compiled, load_acquire, now_ns, sleep_until, store_release, zmq_recv
from rtqec.kernels.records import (
    COALESCE_FOR_NS,
    DRAIN,
    FEED_ENDED,
    INGEST_BEAT,
    OPEN_SHOTS,
    STOP,
    WAIT_COALESCE_NS,
    WAIT_SPIN_NS,
    FeedCounter,
)
from rtqec.kernels.sequence import accept_message, end_shots, follow_source, look_at_clocks, order_message

_LOW16 = np.uint64(0xFFFF)
_DONTWAIT = DONTWAIT
_GAP_POLL_NS = 50_000
"""While a gap is waited for, ingest looks so often whether to give it up."""


@compiled
def ingest_message(feed: Any, message: Any, words: Any, size: Any, times: Any, events: Any) -> Any:
    """Check one message and place it, or count why not. The last row of the counters is for unknown patches.

    Args:
        feed: See `kernels.placing`.
        message, words: The message, as uint8 and as uint64; one buffer.
        size: Its bytes.
        times: int64, shape (3,): when it came; the other two are scratch.
        events: uint64, shape (2, ..): scratch for one layer, and zeros.
    """
    patches, _, _, layers, _, _, _, _, _, counters, limits, _, seen = feed
    lane = len(patches)
    wrong = check_header(words, size, len(message))
    if wrong != ACCEPTED:
        counters[lane, wrong] += 1
        return
    p = find_patch(patches, np.int64(words[3] >> np.uint64(32)))
    if p < 0:
        counters[lane, FeedCounter.UNKNOWN_PATCH] += 1
        return
    counters[p, FeedCounter.MESSAGES] += 1
    wrong = check_message(patches[p], layers, words, size)
    if wrong != ACCEPTED:
        counters[p, wrong] += 1
        return
    seen[2][p] = np.int64(words[9] >> np.uint64(32))
    if not follow_source(p, feed, np.int64((words[8] >> np.uint64(16)) & _LOW16), words[4], times):
        return
    if limits[p].reorder_depth:
        order_message(p, feed, message, words, size, times, events)
    else:
        accept_message(p, feed, message, words, times, events)


@compiled
def receive(socket: Any, message: Any, last_ns: Any, waiting: Any, gap_open: Any, spec: Any) -> Any:
    """The next message's bytes, or -1 after the socket's timeout.

    Looks again without sleeping while the last message is younger than `waiting[WAIT_SPIN_NS]`, then every
    `waiting[WAIT_COALESCE_NS]` while it is younger than `COALESCE_FOR_NS`, then sleeps until woken. With `gap_open` it
    looks once more after `_GAP_POLL_NS`, and no longer.
    """
    while True:
        size = zmq_recv(socket, message.ctypes.data, message.size, _DONTWAIT)
        if size >= 0:
            return size
        time_ns = now_ns(spec)
        if gap_open:
            sleep_until(time_ns + _GAP_POLL_NS, spec)
            return zmq_recv(socket, message.ctypes.data, message.size, _DONTWAIT)
        if time_ns - last_ns >= waiting[WAIT_SPIN_NS]:
            if not waiting[WAIT_COALESCE_NS] or time_ns - last_ns >= COALESCE_FOR_NS:
                return zmq_recv(socket, message.ctypes.data, message.size, 0)
            sleep_until(time_ns + waiting[WAIT_COALESCE_NS], spec)


@compiled
def ingest(socket: Any, feed: Any, control: Any, message: Any, words: Any, events: Any, times: Any, waiting: Any,
           spec: Any) -> Any:  # fmt: skip
    """Receive until `control[STOP]`; then end the shots that are open.

    After `control[DRAIN]` no shot begins, and `control[OPEN_SHOTS]` says how many are still to end, plus one.

    Args:
        socket: The C pointer of a PULL socket with a receive timeout.
        feed, message, words, events, times: See `ingest_message`.
        control: See `records`.
        waiting: int64, shape (2,): how to wait for a message; see `receive`.
        spec: Scratch for the clock.
    """
    last_ns = np.int64(0)
    gap_open = False
    watches = False
    for limit in feed[10]:
        watches |= limit.reorder_depth > 0 or limit.round_timeout_ns > 0
    while not load_acquire(control, STOP):
        size = receive(socket, message, last_ns, waiting, gap_open, spec)
        control[INGEST_BEAT] += 1
        if size >= 0:
            last_ns = now_ns(spec)
            times[0] = last_ns
            ingest_message(feed, message, words, size, times, events)
        if watches:
            times[0] = now_ns(spec)
            gap_open = look_at_clocks(feed, times, events)
        if load_acquire(control, DRAIN):
            times[0] = now_ns(spec)
            control[OPEN_SHOTS] = end_shots(feed, times, False) + 1
    times[0] = now_ns(spec)
    end_shots(feed, times, True)
    store_release(control, FEED_ENDED, 1)
