"""The sending loop of a controller with faults: as `send.send_rounds`, but each message has a fate.

A loop of its own, so that a run without faults pays nothing for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from firmware_sim.kernels.faults import decide, flip_random_bit, is_last_message, log_fate, restart_source
from firmware_sim.kernels.records import LATE_BOUND_NS, LATE_MAX_NS, LATE_ROUNDS, MESSAGES, ROUNDS, UNSENT, Fate
from firmware_sim.kernels.send import (
    advance,
    elapsed_ns,
    fill_endless_message,
    fill_tape_message,
    finish_message,
    wait_until,
)
from rtqec.kernels.crc32c import crc32c_words
from rtqec.kernels.native import DONTWAIT, compiled, load_acquire, now_ns, sleep_until, store_release, zmq_send
from rtqec.kernels.records import STOP
from rtqec.wire import CRC_OFFSET_ROUNDS

_DONTWAIT = DONTWAIT
_NEVER = np.int64(1 << 62)
_NAP_NS = 50_000_000
"""A long wait is cut into naps, so that the sender can be stopped in the middle of a silence."""
_CRC_WORD = CRC_OFFSET_ROUNDS // 8
_SHIFT32 = np.uint64(32)
_HIGH32 = np.uint64(0xFFFFFFFF00000000)
_TAGS = np.uint64(0xFFFFFFFF)
_CUT_OFF = int(Fate.CUT_OFF)
_WITHHELD = int(Fate.SKIPPED | Fate.DROPPED)
_WRONG_PLAN = int(Fate.WRONG_PLAN)
_CORRUPTED = int(Fate.CORRUPTED)
_REORDERED = int(Fate.REORDERED)
_DUPLICATED = int(Fate.DUPLICATED)
_UNSENT = int(Fate.UNSENT)


@compiled
def next_patch(patches: Any, states: Any, pace: Any, faults: Any) -> Any:
    """The patch whose next message begins first, its fate decided; -1 when all are done."""
    fault_states, rules, rule_states, _, _, _, _, _, counts = faults
    p, earliest = -1, _NEVER
    for q in range(len(patches)):
        state, fault = states[q], fault_states[q]
        if state.done:
            continue
        if not fault.decided:
            decide(q, patches[q], state, fault, rules, rule_states, counts)
        begin_ns = max(fault.offset_ns + elapsed_ns(pace, state.rounds_sent) + fault.delay_ns, fault.released_ns)
        if begin_ns < earliest:
            p, earliest = q, begin_ns
    return p


@compiled
def wait_in_naps(due_ns: Any, burst_ns: Any, control: Any, spec: Any) -> Any:
    """`wait_until`, but look every now and then whether to stop. Returns the time."""
    while due_ns - now_ns(spec) > 2 * _NAP_NS:
        if load_acquire(control, STOP):
            return now_ns(spec)
        sleep_until(now_ns(spec) + _NAP_NS, spec)
    return wait_until(due_ns, burst_ns, spec)


@compiled
def hold_back(state: Any, fault: Any, message: Any, size: Any, store: Any) -> Any:
    """Keep a message for later."""
    for i in range(size):
        store[fault.store_offset + i] = message[i]
    fault.held_bytes = size
    fault.held_until = state.sequence + np.uint64(fault.distance)


@compiled
def release_held(socket: Any, fault: Any, store: Any, log: Any, progress: Any) -> Any:
    """Send the message that is held back, if there is one."""
    if not fault.held_bytes:
        return
    unsent = zmq_send(socket, store.ctypes.data + fault.store_offset, fault.held_bytes, _DONTWAIT) < 0
    fault.held_bytes = 0
    if fault.held_entry >= 0:
        entry = log[fault.held_entry]
        entry.after = fault.last_sent
        if unsent:
            entry.fate |= _UNSENT
            progress[UNSENT] += entry.num_rounds


@compiled
def transmit(socket: Any, patch: Any, state: Any, fault: Any, message: Any, words: Any, size: Any, store: Any) -> Any:
    """Let a finished message meet its fate. Returns what really became of it."""
    fate = fault.fate
    if fate & _WITHHELD:
        return fate
    if fate & _REORDERED:
        hold_back(state, fault, message, size, store)
        return fate
    if fate & _WRONG_PLAN:
        words[_CRC_WORD] ^= (np.uint64(1) + fault.random % _TAGS) << _SHIFT32
        if patch.crc:
            words[_CRC_WORD] &= _HIGH32
            words[_CRC_WORD] |= crc32c_words(words, size // 8, _CRC_WORD, _HIGH32)
    if fate & _CORRUPTED:
        flip_random_bit(fault, message, size)
    if zmq_send(socket, message.ctypes.data, size, _DONTWAIT) < 0:
        return (fate & ~_DUPLICATED) | _UNSENT
    fault.last_sent = np.int64(state.sequence)
    if fate & _DUPLICATED and zmq_send(socket, message.ctypes.data, size, _DONTWAIT) < 0:
        return fate & ~_DUPLICATED
    return fate


@compiled
def send_faulty_rounds(
    sockets: Any, feeds: Any, patches: Any, states: Any, layers: Any, program: Any, messages: Any, tape: Any,
    sweep_tape: Any, errors: Any, pending: Any, pace: Any, burst_ns: Any, start_ns: Any, message: Any, words: Any,
    events: Any, folded: Any, progress: Any, control: Any, spec: Any, faults: Any,
) -> Any:  # fmt: skip
    """Send everything that the patches have, each message as its fate wants, or until `control[STOP]`.

    Args:
        faults: `FAULT_STATE`, `RULE`, `RULE_STATE`, places of errors, `BURST_ENTRY`, store of held messages (uint8),
            `FATE_ENTRY`, cursors of the logs, counts (int64, shape (num_patches, num_kinds, COUNT_COLUMNS)).
            All others as for `send.send_rounds`.
    """
    fault_states, rules, rule_states, places, bursts, store, log, cursors, counts = faults
    while not load_acquire(control, STOP):
        p = next_patch(patches, states, pace, faults)
        if p < 0:
            return
        feed, patch, state, fault = feeds[p], patches[p], states[p], fault_states[p]
        fault.decided = 0
        if fault.fate & _CUT_OFF:
            release_held(sockets[p], fault, store, log, progress)
            left_out = restart_source(p, patch, state, fault, messages, pace, log, cursors, counts)
            store_release(progress, ROUNDS, progress[ROUNDS] + left_out)
            continue
        if patch.endless:
            rates = (p, fault_states, rules, rule_states, places, bursts, cursors, counts)
            size, num_rounds, bits, flags = fill_endless_message(
                feed, patch, state, layers, program, errors, pending, events, folded, message, rates
            )
        else:
            size, num_rounds, bits, flags = fill_tape_message(patch, state, messages, tape, sweep_tape, message)
        due_ns = start_ns + fault.offset_ns + elapsed_ns(pace, state.rounds_sent + num_rounds)
        finish_message(feed, patch, state, words, size, num_rounds, bits, flags, due_ns)
        # `released_ns` counts from the start, as `next_patch` does.
        fault.released_ns = max(due_ns - start_ns + fault.delay_ns, fault.released_ns)
        leaves_ns = start_ns + fault.released_ns
        late_ns = wait_in_naps(leaves_ns, burst_ns, control, spec) - leaves_ns
        if late_ns > progress[LATE_MAX_NS]:
            progress[LATE_MAX_NS] = late_ns
        if late_ns > progress[LATE_BOUND_NS]:
            progress[LATE_ROUNDS] += num_rounds
        if is_last_message(patch, state):
            release_held(sockets[p], fault, store, log, progress)
        fate = transmit(sockets[p], patch, state, fault, message, words, size, store)
        if fate & _UNSENT:
            progress[UNSENT] += num_rounds
        fault.skip_left -= min(fault.skip_left, num_rounds)
        if fate:
            row = log_fate(p, patch, state, num_rounds, fate, log, cursors, counts)
            if fate & _REORDERED:
                fault.held_entry = row
        advance(patch, state, num_rounds, flags)
        if fault.held_bytes and state.sequence > fault.held_until:
            release_held(sockets[p], fault, store, log, progress)
        progress[MESSAGES] += 1
        store_release(progress, ROUNDS, progress[ROUNDS] + num_rounds)
