"""Whose messages they are, and in which order they came: one source per patch, each message once and in its turn.

A message that comes before its turn waits in the patch's waiting room, at most `[feed] reorder_depth` messages ahead
and `gap_wait_us` long; then what is missing is given up as lost. A source that counts anew is followed when it says
so (another epoch, after the one before has gone silent) or when it keeps on doing so (`RESYNC_RUN`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.native import compiled
from rtqec.kernels.placing import RESYNC_RUN, free_slots, leave_shot, place_message, publish_head
from rtqec.kernels.records import FeedCounter, ShotState

_LOW16 = np.uint64(0xFFFF)
_ONE = np.uint64(1)
_SEEN_BITS = 64
_LEAP_MAX = np.uint64(1 << 32)
"""Messages that can be missing at once: a controller at 10 MHz would have been away for seven minutes. More is a
damaged number, and following it would make everything after it late."""


@compiled
def follow_source(p: Any, feed: Any, epoch: Any, sequence: Any, times: Any) -> Any:
    """Whether a message comes from the patch's source. Another one takes over only when that has gone silent."""
    _, places, states, _, _, _, _, cursors, signal, counters, limits, _, _ = feed
    place, state, counts = places[p], states[p], counters[p]
    if epoch == state.epoch:
        return True
    if state.epoch >= 0:
        if times[0] - state.heard_ns < limits[p].takeover_ns:
            counts[FeedCounter.SECOND_SOURCE] += 1
            return False
        if not free_slots(place, state, cursors, p, 1):
            counts[FeedCounter.RING_FULL] += 1
            return False
        counts[FeedCounter.RESTARTS] += 1
        leave_source(p, feed, times)
        publish_head(p, state, cursors, signal, True)
    state.epoch = epoch
    restart_sequence(state, sequence)
    return True


@compiled
def leave_source(p: Any, feed: Any, times: Any) -> Any:
    """A source that restarts does not go on with the shot that it was in, whatever number the next one has."""
    _, places, states, _, _, _, slots, _, _, counters, _, room, _ = feed
    state = states[p]
    leave_shot(places[p], state, slots, times, counters[p])
    state.shot_state = ShotState.NONE
    for i in range(room[1].shape[1]):
        room[1][p, i] = -1
    counters[p, FeedCounter.LATE] += state.num_waiting
    state.num_waiting = 0


@compiled
def restart_sequence(state: Any, sequence: Any) -> Any:
    """Begin to count with a message."""
    state.next_sequence = sequence
    state.highest = sequence
    state.seen = 0
    state.late_run = 0


@compiled
def follow_sequence(p: Any, feed: Any, sequence: Any, times: Any) -> Any:
    """Account for the number of a message whose turn it is. False for one that was seen or given up already."""
    _, places, states, _, _, _, _, cursors, _, counters, _, _, _ = feed
    state, counts = states[p], counters[p]
    if sequence < state.next_sequence or sequence - state.next_sequence > _LEAP_MAX:
        age = state.next_sequence - _ONE - sequence
        if age < _SEEN_BITS and (state.seen >> age) & _ONE:
            counts[FeedCounter.DUPLICATE] += 1
            return False
        counts[FeedCounter.LATE] += 1
        state.late_run = state.late_run + 1 if sequence == state.late_next else 1
        state.late_next = sequence + _ONE
        if state.late_run < RESYNC_RUN or not free_slots(places[p], state, cursors, p, 1):
            return False
        counts[FeedCounter.LATE] -= 1
        counts[FeedCounter.RESYNCS] += 1
        leave_source(p, feed, times)
        restart_sequence(state, sequence)
    ahead = sequence - state.next_sequence + _ONE
    counts[FeedCounter.MESSAGES_MISSING] += np.int64(ahead) - 1
    state.seen = (state.seen << ahead | _ONE) if ahead < _SEEN_BITS else _ONE
    state.next_sequence = sequence + _ONE
    state.late_run = 0
    return True


@compiled
def accept_message(p: Any, feed: Any, message: Any, words: Any, times: Any, events: Any) -> Any:
    """Place a message now, and give up whatever is missing before it."""
    if follow_sequence(p, feed, words[4], times):
        feed[2][p].heard_ns = times[0]
        times[1], times[2] = np.int64(words[7]), np.int64(words[2])
        place_message(p, feed, message, words, times, events)


@compiled
def accept_waiting(p: Any, feed: Any, times: Any, events: Any) -> Any:
    """Place the messages in the waiting room whose turn has come."""
    state, room = feed[2][p], feed[11]
    depth = np.uint64(room[1].shape[1])
    while state.num_waiting:
        i = np.int64(state.next_sequence % depth)
        if room[1][p, i] != np.int64(state.next_sequence):
            return
        room[1][p, i] = -1
        state.num_waiting -= 1
        state.gap_since_ns = times[0]
        accept_message(p, feed, room[2][p, i], room[0][p, i], times, events)


@compiled
def earliest_waiting(p: Any, room: Any) -> Any:
    """The place in the waiting room of the message whose turn comes first; one waits."""
    earliest = -1
    for i in range(room[1].shape[1]):
        if room[1][p, i] >= 0 and (earliest < 0 or room[1][p, i] < room[1][p, earliest]):
            earliest = i
    return earliest


@compiled
def give_up_gap(p: Any, feed: Any, times: Any, events: Any) -> Any:
    """Stop waiting for what is missing before the first message in the waiting room."""
    state, room = feed[2][p], feed[11]
    earliest = earliest_waiting(p, room)
    room[1][p, earliest] = -1
    state.num_waiting -= 1
    state.gap_since_ns = times[0]
    accept_message(p, feed, room[2][p, earliest], room[0][p, earliest], times, events)
    accept_waiting(p, feed, times, events)


@compiled
def order_message(p: Any, feed: Any, message: Any, words: Any, size: Any, times: Any, events: Any) -> Any:
    """Place a message if it is its turn, else let it wait."""
    state, depth, room = feed[2][p], np.uint64(feed[10][p].reorder_depth), feed[11]
    sequence = words[4]
    if sequence < state.next_sequence or sequence - state.next_sequence > _LEAP_MAX:
        accept_message(p, feed, message, words, times, events)
        return
    while state.num_waiting and sequence > state.next_sequence + depth:
        give_up_gap(p, feed, times, events)
    if sequence < state.next_sequence:
        accept_message(p, feed, message, words, times, events)
        return
    ahead = sequence - state.next_sequence
    i = np.int64(sequence % np.uint64(room[1].shape[1]))
    waits = 0 < ahead <= depth and size <= room[2].shape[2]
    if waits and room[1][p, i] >= 0:
        feed[9][p, FeedCounter.DUPLICATE] += 1
        return
    if sequence < state.highest:
        feed[9][p, FeedCounter.REORDERED] += 1
    state.highest = max(state.highest, sequence)
    if not waits:
        while ahead and state.num_waiting and room[1][p, earliest_waiting(p, room)] < np.int64(sequence):
            give_up_gap(p, feed, times, events)
        accept_message(p, feed, message, words, times, events)
        accept_waiting(p, feed, times, events)
        return
    if not state.num_waiting:
        state.gap_since_ns = times[0]
    room[1][p, i] = np.int64(sequence)
    state.num_waiting += 1
    for w in range(size >> 3):
        room[0][p, i, w] = words[w]


@compiled
def look_at_clocks(feed: Any, times: Any, events: Any) -> Any:
    """Give up what has been waited for long enough. True while something is waited for."""
    _, places, states, _, _, _, slots, cursors, signal, counters, limits, _, _ = feed
    waits = False
    for p in range(len(states)):
        state, limit = states[p], limits[p]
        while state.num_waiting and times[0] - state.gap_since_ns >= limit.gap_wait_ns:
            give_up_gap(p, feed, times, events)
        waits |= state.num_waiting > 0
        silent = limit.round_timeout_ns > 0 and times[0] - state.heard_ns >= limit.round_timeout_ns
        if silent and state.shot_state == ShotState.OPEN and free_slots(places[p], state, cursors, p, 1):
            counters[p, FeedCounter.SHOTS_TIMED_OUT] += 1
            leave_shot(places[p], state, slots, times, counters[p])
            publish_head(p, state, cursors, signal, True)
    return waits


@compiled
def end_shots(feed: Any, times: Any, at_once: Any) -> Any:
    """Take no further shots, and end those that would go on for ever; with `at_once`, all of them.

    Returns:
        The shots that are still open.
    """
    patches, places, states, _, _, _, slots, cursors, signal, counters, _, _, _ = feed
    num_open = 0
    for p in range(len(states)):
        state = states[p]
        state.draining = 1
        if state.shot_state != ShotState.OPEN:
            continue
        if (at_once or patches[p].num_rounds < 0) and free_slots(places[p], state, cursors, p, 1):
            leave_shot(places[p], state, slots, times, counters[p])
            publish_head(p, state, cursors, signal, True)
        else:
            num_open += 1
    return num_open
