"""Put checked messages into the ring: shots opened and ended, gaps filled or marked, rounds folded.

What is placed becomes visible to the path by one release store of the patch's head.

The arrays of ingest come in one tuple, `feed`: patches, places, states, layers, program, ring_b8, slots, cursors,
signal, counters, limits, waiting room, what was seen (sampled events, plan tags); see `feed.Intake`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.fold import fill_round, fold_round, load_bits, store_bytes
from rtqec.kernels.message import layer_index
from rtqec.kernels.native import compiled, load_acquire, store_release
from rtqec.kernels.records import (
    CURSOR_STRIDE,
    HEAD,
    NEED,
    SAMPLE_EVERY_ROUNDS,
    SLOT_BLIND,
    SLOT_ECHO,
    SLOT_GUESSED,
    SLOT_JUMP,
    SLOT_LAST,
    SLOT_LOST,
    SLOT_TRUNCATED,
    TAIL,
    FeedCounter,
    ShotState,
)
from rtqec.kernels.signal import wake
from rtqec.wire import ROUNDS_HEADER_BYTES, RoundFlag

_LOW16 = np.uint64(0xFFFF)
_HEADER_BYTES = ROUNDS_HEADER_BYTES
_FIRST = int(RoundFlag.FIRST)
_LAST = int(RoundFlag.LAST)
_SWEEP = int(RoundFlag.SWEEP)
RESYNC_RUN = 16
"""So many messages in a row that are too old, each the one after the other, and none between them that is not: that is
no straggler but a source that counts anew, or one after a damaged number that was believed."""


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
    slot.flips = 0
    state.head += 1
    return ordinal


@compiled
def leave_shot(place: Any, state: Any, slots: Any, times: Any, counts: Any) -> Any:
    """End an open shot before its last round. Needs one free slot."""
    if state.shot_state == ShotState.OPEN:
        counts[FeedCounter.SHOTS_TRUNCATED] += 1
        write_slot(place, state, slots, SLOT_TRUNCATED, times)
        state.shot_state = ShotState.CLOSED


@compiled
def enter_shot(patch: Any, place: Any, state: Any, slots: Any, shot_id: Any, first_round: Any, times: Any,
               counts: Any) -> Any:  # fmt: skip
    """Bring a patch into the shot of a message. Needs two free slots: one to end the shot before, one for a gap."""
    if state.shot_state == ShotState.OPEN and state.shot_id == shot_id:
        return
    leave_shot(place, state, slots, times, counts)
    state.shot_id = shot_id
    state.next_round = first_round
    state.echo_left = 0
    state.shot_state = ShotState.OPEN
    counts[FeedCounter.SHOTS] += 1
    if first_round > 0:
        counts[FeedCounter.SHOTS_HEADLESS] += 1
        blind = patch.num_sweep_bits and not patch.events
        write_slot(place, state, slots, SLOT_JUMP | SLOT_BLIND if blind else SLOT_JUMP, times)


@compiled
def jump_gap(place: Any, state: Any, slots: Any, first_round: Any, times: Any, counts: Any) -> Any:
    """Go on with a shot behind rounds that no ring could hold."""
    counts[FeedCounter.JUMPS] += 1
    state.next_round = first_round
    state.echo_left = 0
    write_slot(place, state, slots, SLOT_JUMP, times)


@compiled
def fill_gap(patch: Any, place: Any, state: Any, layers: Any, program: Any, ring_b8: Any, slots: Any, first_round: Any,
             times: Any, counts: Any, events: Any) -> Any:  # fmt: skip
    """Put a lost round, whose detectors read 0, into every place before `first_round`."""
    constants, sources, sweep_sources, fixes, history, sweeps = program
    while state.next_round < first_round:
        layer = layers[layer_index(patch, state.next_round, False)]
        exact = False
        if not patch.events:
            fill_round(patch, layer, state.next_round, constants, sources, sweep_sources, fixes, history, sweeps,
                       events[0], events[1])  # fmt: skip
            exact = layer.diagonal_back or layer.fix_stop > layer.fix_start or not layer.num_detectors
        ordinal = write_slot(place, state, slots, SLOT_LOST if exact else SLOT_LOST | SLOT_GUESSED, times)
        start = place.byte_offset + ordinal * place.layer_bytes
        for i in range(place.layer_bytes):
            ring_b8[start + i] = 0
        state.next_round += 1
        # Detection events come as they were made, whatever became of the round before.
        state.echo_left = 0 if patch.events else patch.look_back
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
        kind = SLOT_LAST if last else 0
        if state.echo_left > 0:
            kind |= SLOT_ECHO
            state.echo_left -= 1
        ordinal = write_slot(place, state, slots, kind, times)
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
def sample_events(patch: Any, place: Any, state: Any, layers: Any, ring_b8: Any, event_counts: Any, event_rounds: Any,
                  p: Any) -> Any:  # fmt: skip
    """Count the detection events of the newest round, where its layer is a full one."""
    layer = layers[layer_index(patch, state.next_round - 1, state.shot_state == ShotState.CLOSED)]
    if layer.num_detectors != patch.full_detectors:
        return
    event_rounds[p] += 1
    start = place.byte_offset + ((state.head - 1) & place.mask) * place.layer_bytes
    for i in range(min(patch.full_detectors, len(event_counts))):
        event_counts[i] += (ring_b8[start + (i >> 3)] >> np.uint8(i & 7)) & np.uint8(1)


@compiled
def publish_head(p: Any, state: Any, cursors: Any, signal: Any, at_once: Any) -> Any:
    """Show the path what was placed, and wake it where a window may have closed."""
    store_release(cursors, p * CURSOR_STRIDE + HEAD, state.head)
    if at_once or state.head >= load_acquire(cursors, p * CURSOR_STRIDE + NEED):
        wake(signal)


@compiled
def follow_back(state: Any, first_round: Any, num_rounds: Any) -> Any:
    """Whether to believe a message, in its turn, whose rounds lie before what its shot has come to: the last of a run.

    Else one damaged round number, far ahead, would make a stream that never ends late for ever.
    """
    state.back_run = state.back_run + 1 if first_round == state.back_next else 1
    state.back_next = first_round + num_rounds
    return state.back_run >= RESYNC_RUN


@compiled
def place_message(p: Any, feed: Any, message: Any, words: Any, times: Any, events: Any) -> Any:
    """Place the rounds of a message whose turn it is, after what was lost before them; or count why not."""
    patches, places, states, layers, program, ring_b8, slots, cursors, signal, counters, _, _, seen = feed
    patch, place, state, counts = patches[p], places[p], states[p], counters[p]
    num_rounds = np.int64(words[8] & _LOW16)
    first_round = np.int64(words[6])
    shot_id = words[5]
    in_shot = state.shot_state == ShotState.OPEN and state.shot_id == shot_id
    ended = state.shot_state == ShotState.CLOSED and state.shot_id == shot_id
    back = in_shot and first_round < state.next_round
    if ended or (back and not follow_back(state, first_round, num_rounds)):
        counts[FeedCounter.LATE] += 1
        return
    missing = first_round - state.next_round if in_shot and not back else 0
    jumps = missing > place.mask // 2
    if not free_slots(place, state, cursors, p, (0 if jumps else missing) + num_rounds + 2):
        counts[FeedCounter.RING_FULL] += 1
        return
    if state.draining and (back or not in_shot):
        counts[FeedCounter.DRAINED] += 1
        return
    marked = state.shot_state == ShotState.OPEN and (back or not in_shot)
    if back:
        counts[FeedCounter.RESYNCS] += 1
        leave_shot(place, state, slots, times, counts)
    state.back_run = 0
    enter_shot(patch, place, state, slots, shot_id, first_round, times, counts)
    if jumps:
        jump_gap(place, state, slots, first_round, times, counts)
    fill_gap(patch, place, state, layers, program, ring_b8, slots, first_round, times, counts, events)
    place_rounds(patch, place, state, layers, program, ring_b8, slots, message, words, times, events)
    if state.head >= state.sample_at:
        state.sample_at = state.head + SAMPLE_EVERY_ROUNDS
        sample_events(patch, place, state, layers, ring_b8, seen[0][p], seen[1], p)
    counts[FeedCounter.ROUNDS] += num_rounds
    gap = jumps or (first_round > 0 and not in_shot)
    publish_head(p, state, cursors, signal, marked or gap or state.shot_state == ShotState.CLOSED)
