"""The ingest loop: receive, check, fold, place. One thread, no GIL, until it is told to stop.

A message is either placed whole or dropped with one counter. What is placed becomes visible to the path by one
release store of the patch's head.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.fold import fill_round, fold_round, load_bits, store_bytes
from rtqec.kernels.message import ACCEPTED, check_header, check_message, find_patch, layer_index
from rtqec.kernels.native import (
    DONTWAIT,
    compiled,
    fetch_add,
    futex_wake,
    load_acquire,
    now_ns,
    sleep_until,
    store_release,
    zmq_recv,
)
from rtqec.kernels.records import (
    COALESCE_FOR_NS,
    CURSOR_STRIDE,
    HEAD,
    INGEST_BEAT,
    NEED,
    SIGNAL_SEQUENCE,
    SIGNAL_WAITING,
    SLOT_END,
    SLOT_GUESSED,
    SLOT_HEADLESS,
    SLOT_LAST,
    SLOT_LOST,
    SLOT_TRUNCATED,
    STOP,
    TAIL,
    WAIT_COALESCE_NS,
    WAIT_SPIN_NS,
    FeedCounter,
    ShotState,
)
from rtqec.wire import ROUNDS_HEADER_BYTES, RoundFlag

_LOW16 = np.uint64(0xFFFF)
_HEADER_BYTES = ROUNDS_HEADER_BYTES
_FIRST = int(RoundFlag.FIRST)
_LAST = int(RoundFlag.LAST)
_SWEEP = int(RoundFlag.SWEEP)
_LEAP_MAX = np.uint64(1 << 32)
"""Messages that can be missing at once: a controller at 10 MHz would have been away for seven minutes. More is a
damaged number, and following it would make everything after it late."""
_DONTWAIT = DONTWAIT


@compiled
def free_slots(place: Any, state: Any, cursors: Any, p: Any, needed: Any) -> Any:
    """Whether the ring of a patch has `needed` free slots; reads the path's cursor only when it seems full."""
    if state.head - state.tail_seen + needed <= place.mask + 1:
        return True
    state.tail_seen = load_acquire(cursors, p * CURSOR_STRIDE + TAIL)
    return state.head - state.tail_seen + needed <= place.mask + 1


@compiled
def write_slot(place: Any, state: Any, slots: Any, flags: Any, times: Any) -> Any:
    """Describe the round at the head; the head is not yet published. Returns the slot's number in the ring."""
    ordinal = state.head & place.mask
    slot = slots[place.slot_offset + ordinal]
    slot.shot_id = state.shot_id
    slot.round_index = state.next_round
    slot.received_ns = times[0]
    slot.sent_ns = times[1]
    slot.ptp_timestamp = times[2]
    slot.flags = flags
    state.head += 1
    return ordinal


@compiled
def follow_sequence(state: Any, epoch: Any, sequence: Any, counts: Any) -> Any:
    """Account for the message number. False for one that was seen or passed already."""
    if epoch != state.epoch:
        state.epoch = epoch
    elif sequence < state.next_sequence or sequence - state.next_sequence > _LEAP_MAX:
        counts[FeedCounter.LATE_OR_DUPLICATE] += 1
        return False
    else:
        counts[FeedCounter.MESSAGES_MISSING] += np.int64(sequence - state.next_sequence)
    state.next_sequence = sequence + np.uint64(1)
    return True


@compiled
def leave_shot(place: Any, state: Any, slots: Any, times: Any, counts: Any) -> Any:
    """A source that restarts does not go on with the shot that it was in, whatever number the next one has."""
    if state.shot_state == ShotState.OPEN:
        counts[FeedCounter.SHOTS_TRUNCATED] += 1
        write_slot(place, state, slots, SLOT_TRUNCATED, times)
    state.shot_state = ShotState.NONE


@compiled
def enter_shot(patch: Any, place: Any, state: Any, slots: Any, shot_id: Any, first_round: Any, times: Any,
               counts: Any) -> Any:  # fmt: skip
    """Bring a patch into the shot of a message. False where that message cannot be placed.

    Needs two free slots: one to end the shot before, one to report a shot that has no beginning.
    """
    if state.shot_state == ShotState.OPEN and state.shot_id == shot_id:
        return True
    if state.shot_state == ShotState.OPEN:
        counts[FeedCounter.SHOTS_TRUNCATED] += 1
        write_slot(place, state, slots, SLOT_TRUNCATED, times)
    elif state.shot_state != ShotState.NONE and state.shot_id == shot_id:
        late = state.shot_state == ShotState.CLOSED
        counts[FeedCounter.LATE_OR_DUPLICATE if late else FeedCounter.DEAD_SHOT_MESSAGES] += 1
        return False
    state.shot_id = shot_id
    state.next_round = 0
    counts[FeedCounter.SHOTS] += 1
    if first_round == 0:
        state.shot_state = ShotState.OPEN
        return True
    counts[FeedCounter.SHOTS_HEADLESS] += 1
    state.shot_state = ShotState.DEAD
    if patch.num_rounds >= 0:
        write_slot(place, state, slots, SLOT_HEADLESS, times)
    return False


@compiled
def fill_gap(patch: Any, place: Any, state: Any, layers: Any, program: Any, ring_b8: Any, slots: Any, first_round: Any,
             times: Any, counts: Any, events: Any) -> Any:  # fmt: skip
    """Put a lost round, whose detectors read 0, into every place before `first_round`."""
    constants, sources, sweep_sources, fixes, history, sweeps = program
    while state.next_round < first_round:
        layer = layers[layer_index(patch, state.next_round, False)]
        if not patch.events:
            fill_round(patch, layer, state.next_round, constants, sources, sweep_sources, fixes, history, sweeps,
                       events[0], events[1])  # fmt: skip
        exact = patch.events or layer.diagonal_back or layer.fix_stop > layer.fix_start or not layer.num_detectors
        ordinal = write_slot(place, state, slots, SLOT_LOST if exact else SLOT_LOST | SLOT_GUESSED, times)
        start = place.byte_offset + ordinal * place.layer_bytes
        for i in range(place.layer_bytes):
            ring_b8[start + i] = 0
        state.next_round += 1
        counts[FeedCounter.ROUNDS_FILLED] += 1


@compiled
def place_rounds(patch: Any, place: Any, state: Any, layers: Any, program: Any, ring_b8: Any, slots: Any,
                 message: Any, words: Any, times: Any, events: Any) -> Any:  # fmt: skip
    """Fold the rounds of a checked message into the ring."""
    constants, sources, sweep_sources, _, history, sweeps = program
    flags = np.int64((words[3] >> np.uint64(16)) & _LOW16)
    num_rounds = np.int64(words[8] & _LOW16)
    bits = np.int64(words[8] >> np.uint64(32))
    at = np.int64(_HEADER_BYTES)
    if flags & _FIRST:
        for w in range((patch.num_sweep_bits + 63) >> 6):
            sweeps[patch.sweep_offset + w] = 0
    if flags & _SWEEP:
        load_bits(message, at, patch.num_sweep_bits, sweeps, patch.sweep_offset)
        at += (patch.num_sweep_bits + 63) // 64 * 8
    for i in range(num_rounds):
        last = (flags & _LAST) != 0 and i == num_rounds - 1
        ordinal = write_slot(place, state, slots, SLOT_LAST if last else 0, times)
        if patch.events:
            load_bits(message, at, bits, events[0], 0)
        else:
            row = patch.history_offset + (state.next_round & patch.history_mask) * patch.history_words
            load_bits(message, at, bits, history, row)
            layer = layers[layer_index(patch, state.next_round, last)]
            fold_round(patch, layer, state.next_round, constants, sources, sweep_sources, history, sweeps, events[0])
        store_bytes(events[0], 0, place.layer_bytes, ring_b8, place.byte_offset + ordinal * place.layer_bytes)
        at += (bits + 7) // 8
        state.next_round += 1
    if flags & _LAST:
        state.shot_state = ShotState.CLOSED
    return num_rounds


@compiled
def wake_path(signal: Any) -> Any:
    """Tell the path that a window may have closed."""
    fetch_add(signal, SIGNAL_SEQUENCE, np.uint32(1))
    if load_acquire(signal, SIGNAL_WAITING):
        futex_wake(signal)


@compiled
def accept_message(p: Any, patches: Any, places: Any, states: Any, layers: Any, program: Any, ring_b8: Any, slots: Any,
                   cursors: Any, signal: Any, counters: Any, message: Any, words: Any, received_ns: Any,
                   events: Any, times: Any) -> Any:  # fmt: skip
    """Place a checked message, after what was lost before it; publish the head and wake the path."""
    patch, place, state, counts = patches[p], places[p], states[p], counters[p]
    num_rounds = np.int64(words[8] & _LOW16)
    first_round = np.int64(words[6])
    epoch, old_epoch = np.int64((words[8] >> np.uint64(16)) & _LOW16), state.epoch
    restarted = old_epoch >= 0 and epoch != old_epoch
    if not follow_sequence(state, epoch, words[4], counts):
        return
    in_shot = state.shot_state == ShotState.OPEN and state.shot_id == words[5] and not restarted
    if in_shot and first_round < state.next_round:
        counts[FeedCounter.LATE_OR_DUPLICATE] += 1
        return
    missing = first_round - state.next_round if in_shot else 0
    # A gap that no ring could hold ends the shot; else the rounds would be refused for ever.
    broken = missing > place.mask // 2
    if not free_slots(place, state, cursors, p, (0 if broken else missing) + num_rounds + 2):
        counts[FeedCounter.RING_FULL] += 1
        state.epoch = old_epoch
        return
    times[0], times[1], times[2] = received_ns, np.int64(words[7]), np.int64(words[2])
    ended = state.head
    if restarted:
        leave_shot(place, state, slots, times, counts)
    if broken:
        counts[FeedCounter.SHOTS_TRUNCATED] += 1
        write_slot(place, state, slots, SLOT_TRUNCATED, times)
        state.shot_state = ShotState.DEAD
        counts[FeedCounter.DEAD_SHOT_MESSAGES] += 1
    elif enter_shot(patch, place, state, slots, words[5], first_round, times, counts):
        fill_gap(patch, place, state, layers, program, ring_b8, slots, first_round, times, counts, events)
        place_rounds(patch, place, state, layers, program, ring_b8, slots, message, words, times, events)
        counts[FeedCounter.ROUNDS] += num_rounds
    cursor = p * CURSOR_STRIDE
    ended = state.head != ended and (slots[place.slot_offset + (ended & place.mask)].flags & SLOT_END) != 0
    store_release(cursors, cursor + HEAD, state.head)
    if ended or state.shot_state == ShotState.CLOSED or state.head >= load_acquire(cursors, cursor + NEED):
        wake_path(signal)


@compiled
def ingest_message(patches: Any, places: Any, states: Any, layers: Any, program: Any, ring_b8: Any, slots: Any,
                   cursors: Any, signal: Any, counters: Any, message: Any, words: Any, size: Any, received_ns: Any,
                   events: Any, times: Any) -> Any:  # fmt: skip
    """Check one message and place it, or count why not. The last row of `counters` is for unknown patches."""
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
    accept_message(p, patches, places, states, layers, program, ring_b8, slots, cursors, signal, counters, message,
                   words, received_ns, events, times)  # fmt: skip


@compiled
def receive(socket: Any, message: Any, last_ns: Any, waiting: Any, spec: Any) -> Any:
    """The next message's bytes, or -1 after the socket's timeout.

    Looks again without sleeping while the last message is younger than `waiting[WAIT_SPIN_NS]`, then every
    `waiting[WAIT_COALESCE_NS]` while it is younger than `COALESCE_FOR_NS`, then sleeps until woken.
    """
    while True:
        size = zmq_recv(socket, message.ctypes.data, message.size, _DONTWAIT)
        if size >= 0:
            return size
        time_ns = now_ns(spec)
        if time_ns - last_ns >= waiting[WAIT_SPIN_NS]:
            if not waiting[WAIT_COALESCE_NS] or time_ns - last_ns >= COALESCE_FOR_NS:
                return zmq_recv(socket, message.ctypes.data, message.size, 0)
            sleep_until(time_ns + waiting[WAIT_COALESCE_NS], spec)


@compiled
def ingest(socket: Any, patches: Any, places: Any, states: Any, layers: Any, program: Any, ring_b8: Any, slots: Any,
           cursors: Any, signal: Any, control: Any, counters: Any, message: Any, words: Any, events: Any, times: Any,
           waiting: Any, spec: Any) -> Any:  # fmt: skip
    """Receive until `control[STOP]`.

    Args:
        socket: The C pointer of a PULL socket with a receive timeout.
        patches, places, states, layers: `FEED_PATCH`, `RING_PLACE`, `FEED_STATE` per patch; `LAYER` per layer.
        program: Flat arrays; see `plan.tables.FoldTables`.
        ring_b8, slots, cursors, signal, control: The ring and its words; see `records`.
        counters: int64, shape (num_patches + 1, len(FeedCounter)).
        message, words: One buffer, as uint8 and as uint64.
        events: uint64, shape (2, ..): scratch for one layer, and zeros.
        waiting: int64, shape (2,): how to wait for a message; see `receive`.
        times, spec: Scratch.
    """
    last_ns = np.int64(0)
    while not load_acquire(control, STOP):
        size = receive(socket, message, last_ns, waiting, spec)
        fetch_add(control, INGEST_BEAT, 1)
        if size >= 0:
            last_ns = now_ns(spec)
            ingest_message(patches, places, states, layers, program, ring_b8, slots, cursors, signal, counters,
                           message, words, size, last_ns, events, times)  # fmt: skip
