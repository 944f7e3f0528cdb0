"""The sending loop: message k leaves when its last round is due, whatever the daemon does.

Sleeps while the next message is far, yields when it is near, never skips one: a sender that fell behind catches up,
and says by how much it was late. A transport that takes no more loses the message, as an FPGA's would.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from firmware_sim.kernels.endless import measure, sample_errors, take_events
from firmware_sim.kernels.rates import sample_errors_at_rates
from firmware_sim.kernels.records import LATE_BOUND_NS, LATE_MAX_NS, LATE_ROUNDS, MESSAGES, ROUNDS, UNSENT
from rtqec.kernels.crc32c import crc32c_words
from rtqec.kernels.fold import store_bytes
from rtqec.kernels.message import layer_width
from rtqec.kernels.native import (
    DONTWAIT,
    compiled,
    load_acquire,
    now_ns,
    sched_yield,
    sleep_until,
    store_release,
    zmq_send,
)
from rtqec.kernels.records import STOP
from rtqec.wire import REQUEST_MAGIC, ROUNDS_FUNCTION, ROUNDS_HEADER_BYTES, VERSION, RoundFlag

_MAGIC_AND_FUNCTION = np.uint64(REQUEST_MAGIC | ROUNDS_FUNCTION << 32)
_VERSION = VERSION
_HEADER = ROUNDS_HEADER_BYTES
_EVENTS = int(RoundFlag.DETECTION_EVENTS)
_FIRST = int(RoundFlag.FIRST)
_LAST = int(RoundFlag.LAST)
_SWEEP = int(RoundFlag.SWEEP)
_CRC = int(RoundFlag.CRC)
_CRC_WORD = 9
_SHIFT16 = np.uint64(16)
_SHIFT32 = np.uint64(32)
_HIGH32 = np.uint64(0xFFFFFFFF00000000)
_DONTWAIT = DONTWAIT
_NEVER = np.int64(1 << 62)
_SLEEP_MARGIN_NS = 30_000
"""Woken this long before a round is due: a timer with 1 ns slack comes 5 to 20 us late on a shared core."""


@compiled
def copy_bytes(source: Any, source_start: Any, count: Any, message: Any, at: Any) -> Any:
    """Copy into the message and zero the padding behind. Returns the place after it, a multiple of 8."""
    for i in range(count):
        message[at + i] = source[source_start + i]
    at += count
    while at & 7:
        message[at] = 0
        at += 1
    return at


@compiled
def fill_tape_message(patch: Any, state: Any, messages: Any, tape: Any, sweep_tape: Any, message: Any) -> Any:
    """The payload of the next message of a tape: its size, rounds, bits per round and flags."""
    row = messages[patch.message_offset + state.message]
    flags = _FIRST if row[0] == 0 else 0
    at = _HEADER
    if flags and patch.sweep_bytes:
        flags |= _SWEEP
        at = copy_bytes(sweep_tape, patch.sweep_offset + state.shot * patch.sweep_bytes, patch.sweep_bytes, message, at)
    start = patch.tape_offset + state.shot * patch.shot_bytes + row[2]
    at = copy_bytes(tape, start, row[3], message, at)
    if state.message == patch.messages_per_shot - 1:
        flags |= _LAST
    return at, row[1], row[4], flags


@compiled
def sender_layer(feed: Any, patch: Any, round_index: Any) -> Any:
    """The layer of a round of an endless shot, which knows where it ends."""
    if round_index == patch.num_rounds - 1:
        return feed.last_layer
    if round_index < feed.num_first_layers:
        return feed.first_layer + round_index
    return feed.bulk_layer


@compiled
def fill_endless_message(feed: Any, patch: Any, state: Any, layers: Any, program: Any, errors: Any, pending: Any,
                         events: Any, folded: Any, message: Any, rates: Any) -> Any:  # fmt: skip
    """The payload of the next message of an endless shot: its size, rounds, bits per round and flags.

    Args:
        rates: Bursts and drift, see `rates.sample_errors_at_rates`; with None the loop is compiled without them.
    """
    groups, accept, observables, flip_start, flips = errors
    history = program[4]
    flags = _FIRST if state.round_index == 0 else 0
    bits = layer_width(feed, layers[sender_layer(feed, patch, state.round_index)])
    first_round = state.round_index
    at, count = _HEADER, 0
    while count < patch.rounds_per_message and state.round_index < patch.num_rounds:
        layer = layers[sender_layer(feed, patch, state.round_index)]
        last = state.round_index == patch.num_rounds - 1
        if count and (last or layer_width(feed, layer) != bits):
            break
        if rates is None:
            sample_errors(patch, state, groups, accept, observables, flip_start, flips, pending)
        else:
            sample_errors_at_rates(patch, state, groups, accept, observables, flip_start, flips, pending, rates)
        take_events(patch, state, pending, events)
        if feed.events:
            store_bytes(events, 0, (bits + 7) // 8, message, at)
        else:
            row = measure(feed, layer, state, program, events, folded)
            store_bytes(history, row, (bits + 7) // 8, message, at)
        if last:
            flags |= _LAST
        at += (bits + 7) // 8
        count += 1
        state.round_index += 1
    state.round_index = first_round
    while at & 7:
        message[at] = 0
        at += 1
    return at, count, bits, flags


@compiled
def finish_message(feed: Any, patch: Any, state: Any, words: Any, size: Any, num_rounds: Any, bits: Any, flags: Any,
                   due_ns: Any) -> Any:  # fmt: skip
    """Write the header."""
    if feed.events:
        flags |= _EVENTS
    if patch.crc:
        flags |= _CRC
    words[0] = _MAGIC_AND_FUNCTION
    words[1] = np.uint64(size - 24) | (state.sequence & np.uint64(0xFFFFFFFF)) << _SHIFT32
    words[2] = 0
    words[3] = np.uint64(_VERSION) | np.uint64(flags) << _SHIFT16 | np.uint64(feed.patch_id) << _SHIFT32
    words[4] = state.sequence
    words[5] = np.uint64(state.shot)
    words[6] = np.uint64(state.round_index)
    words[7] = np.uint64(due_ns)
    words[8] = np.uint64(num_rounds) | np.uint64(patch.source_epoch) << _SHIFT16 | np.uint64(bits) << _SHIFT32
    words[9] = np.uint64(feed.plan_tag) << _SHIFT32
    if patch.crc:
        words[9] |= crc32c_words(words, size // 8, _CRC_WORD, _HIGH32)


@compiled
def advance(patch: Any, state: Any, num_rounds: Any, flags: Any) -> Any:
    """Move on to the next message."""
    state.sequence += np.uint64(1)
    state.rounds_sent += num_rounds
    state.round_index += num_rounds
    state.message += 1
    if flags & _LAST:
        state.shot += 1
        state.message = 0
        state.round_index = 0
        if state.shot == patch.num_shots:
            state.done = 1


@compiled
def elapsed_ns(pace: Any, rounds: Any) -> Any:
    """When the first `rounds` rounds of a patch are due, ns after the start.

    Args:
        pace: float64, shape (4,): the period, ns; the rounds at which a rush begins and ends; how much shorter the
            period is meanwhile.
    """
    rushed = min(max(rounds - pace[1], 0.0), pace[2] - pace[1])
    return np.int64(pace[0] * (rounds - rushed * (1.0 - 1.0 / pace[3])))


@compiled
def wait_until(due_ns: Any, burst_ns: Any, spec: Any) -> Any:
    """Sleep while it is far, yield when it is near. Returns the time, at or after `due_ns`.

    With `burst_ns` it sleeps so much past the due time, and what has become due meanwhile follows at once.
    """
    time_ns = now_ns(spec)
    if burst_ns and time_ns < due_ns:
        sleep_until(due_ns + burst_ns, spec)
        return now_ns(spec)
    if due_ns - time_ns > 2 * _SLEEP_MARGIN_NS:
        sleep_until(due_ns - _SLEEP_MARGIN_NS, spec)
        time_ns = now_ns(spec)
    while time_ns < due_ns:
        sched_yield()
        time_ns = now_ns(spec)
    return time_ns


@compiled
def send_rounds(
    sockets: Any, feeds: Any, patches: Any, states: Any, layers: Any, program: Any, messages: Any, tape: Any,
    sweep_tape: Any, errors: Any, pending: Any, pace: Any, burst_ns: Any, start_ns: Any, message: Any, words: Any,
    events: Any, folded: Any, progress: Any, control: Any, spec: Any,
) -> Any:  # fmt: skip
    """Send everything that the patches have, or until `control[STOP]`.

    Args:
        sockets: uint64, one per patch: the C pointer of the PUSH socket of its lane.
        feeds, layers, program: `plan.tables.FoldTables` of the patches.
        patches, states: `SEND_PATCH`, `SEND_STATE`.
        messages, tape, sweep_tape: Finite shots of all patches, flat; see `shots.Shots`.
        errors, pending: Endless shots; see `endless`.
        pace, start_ns: Round k of every patch is due at `start_ns + elapsed_ns(pace, k + 1)`.
        burst_ns: How long due messages may be held back, so that the sender can sleep.
        message, words: One buffer, as uint8 and as uint64.
        progress: int64, shape (PROGRESS_WORDS,).
    """
    while not load_acquire(control, STOP):
        p, earliest = -1, _NEVER
        for q in range(len(patches)):
            if not states[q].done and states[q].rounds_sent < earliest:
                p, earliest = q, states[q].rounds_sent
        if p < 0:
            return
        feed, patch, state = feeds[p], patches[p], states[p]
        if patch.endless:
            size, num_rounds, bits, flags = fill_endless_message(
                feed, patch, state, layers, program, errors, pending, events, folded, message, None
            )
        else:
            size, num_rounds, bits, flags = fill_tape_message(patch, state, messages, tape, sweep_tape, message)
        due_ns = start_ns + elapsed_ns(pace, state.rounds_sent + num_rounds)
        finish_message(feed, patch, state, words, size, num_rounds, bits, flags, due_ns)
        late_ns = wait_until(due_ns, burst_ns, spec) - due_ns
        if late_ns > progress[LATE_MAX_NS]:
            progress[LATE_MAX_NS] = late_ns
        if late_ns > progress[LATE_BOUND_NS]:
            progress[LATE_ROUNDS] += num_rounds
        if zmq_send(sockets[p], message.ctypes.data, size, _DONTWAIT) < 0:
            progress[UNSENT] += num_rounds
        advance(patch, state, num_rounds, flags)
        progress[MESSAGES] += 1
        store_release(progress, ROUNDS, progress[ROUNDS] + num_rounds)
