"""What goes wrong with a message, decided before it is made.

Every rule of a patch draws from random numbers of its own for every message, so that a rule strikes the same messages
whatever other rules there are. A message has one fate, the first in the order of `Fate`; delays add up, and meet every
message. The first and the last message of a patch's run are left alone: a loss there could not be noticed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from firmware_sim.kernels.endless import random_unit, random_word
from firmware_sim.kernels.rates import strikes
from firmware_sim.kernels.records import (
    EXPONENTIAL,
    FATES_LOGGED,
    FATES_OVERFLOWED,
    TIMES,
    TOUCHED_MESSAGES,
    TOUCHED_ROUNDS,
    UNIFORM,
    Fate,
    FaultKind,
)
from firmware_sim.kernels.send import elapsed_ns
from rtqec.kernels.native import compiled
from rtqec.wire import RoundFlag

_TWO_PI = 2.0 * np.pi
_CUT_OFF = int(Fate.CUT_OFF)
_SKIPPED = int(Fate.SKIPPED)
_DROPPED = int(Fate.DROPPED)
_WRONG_PLAN = int(Fate.WRONG_PLAN)
_CORRUPTED = int(Fate.CORRUPTED)
_REORDERED = int(Fate.REORDERED)
_DUPLICATED = int(Fate.DUPLICATED)
_CRC_FLAG_BIT = 3 * 64 + 16 + int(RoundFlag.CRC).bit_length() - 1
"""The one bit of a message without which nobody would look at its checksum."""


@compiled
def draw_delay(rule: Any, own: Any) -> Any:
    """One delay, ns."""
    first = random_unit(own)
    if rule.distribution == EXPONENTIAL:
        return np.int64(-rule.mean_ns * np.log(first))
    if rule.distribution == UNIFORM:
        return np.int64(2.0 * rule.mean_ns * first)
    gauss = np.sqrt(-2.0 * np.log(first)) * np.cos(_TWO_PI * random_unit(own))
    return np.int64(max(0.0, rule.mean_ns + rule.sigma_ns * gauss))


@compiled
def is_last_message(patch: Any, state: Any) -> Any:
    """Whether the next message is the last of the patch's run; the readout of an endless shot travels alone."""
    if patch.endless:
        return state.round_index == patch.num_rounds - 1
    return state.shot == patch.num_shots - 1 and state.message == patch.messages_per_shot - 1


@compiled
def fate_of_rule(patch: Any, state: Any, fault: Any, rule: Any, own: Any) -> Any:
    """What a rule that strikes does to the next message; a delay adds to `fault.delay_ns`."""
    if rule.kind == FaultKind.DELAY:
        fault.delay_ns += draw_delay(rule, own)
    elif rule.kind == FaultKind.STALL:
        fault.delay_ns += rule.duration_ns
    elif rule.kind == FaultKind.SKIP:
        fault.skip_left = max(fault.skip_left, rule.num_rounds)
    elif rule.kind == FaultKind.RESTART:
        fault.silence_ns = rule.duration_ns
        return _CUT_OFF if state.shot < patch.num_shots - 1 else 0
    elif rule.kind == FaultKind.DROP:
        return _DROPPED
    elif rule.kind == FaultKind.DUPLICATE:
        return _DUPLICATED
    elif rule.kind == FaultKind.REORDER:
        if fault.held_bytes:
            return 0
        fault.distance = rule.distance
        return _REORDERED
    else:
        fault.random = random_word(own)
        return _CORRUPTED if rule.kind == FaultKind.CORRUPT else _WRONG_PLAN
    return 0


@compiled
def decide(p: Any, patch: Any, state: Any, fault: Any, rules: Any, rule_states: Any, counts: Any) -> Any:
    """Decide the fate and the delay of a patch's next message."""
    fault.decided, fault.fate, fault.delay_ns = 1, 0, 0
    if is_last_message(patch, state):
        fault.skip_left = 0
        return
    if state.rounds_sent == 0:
        return
    fate = 0
    for r in range(fault.first_rule, fault.first_rate_rule):
        rule, own = rules[r], rule_states[r]
        if strikes(rule, own, state.rounds_sent):
            fate |= fate_of_rule(patch, state, fault, rule, own)
            if rule.kind == FaultKind.DELAY or rule.kind == FaultKind.STALL or rule.kind == FaultKind.SKIP:
                counts[p, rule.kind, TIMES] += 1
    if fault.skip_left > 0:
        fate |= _SKIPPED
    fault.fate = fate & -fate


@compiled
def kind_of_fate(fate: Any) -> Any:
    """The fault behind a fate, or -1."""
    if fate & _CUT_OFF:
        return FaultKind.RESTART
    if fate & _SKIPPED:
        return FaultKind.SKIP
    if fate & _DROPPED:
        return FaultKind.DROP
    if fate & _WRONG_PLAN:
        return FaultKind.WRONG_PLAN
    if fate & _CORRUPTED:
        return FaultKind.CORRUPT
    if fate & _REORDERED:
        return FaultKind.REORDER
    return FaultKind.DUPLICATE if fate & _DUPLICATED else -1


@compiled
def log_fate(p: Any, patch: Any, state: Any, num_rounds: Any, fate: Any, log: Any, cursors: Any, counts: Any) -> Any:
    """Note and count what became of the message that `state` stands at. Returns its row, or -1 in a full log."""
    kind = kind_of_fate(fate)
    if kind >= 0:
        counts[p, kind, TIMES] += kind != FaultKind.SKIP and kind != FaultKind.RESTART
        counts[p, kind, TOUCHED_MESSAGES] += 1
        counts[p, kind, TOUCHED_ROUNDS] += num_rounds
    row = cursors[FATES_LOGGED]
    if row == len(log):
        cursors[FATES_OVERFLOWED] += 1
        return -1
    entry = log[row]
    entry.patch_index, entry.epoch, entry.sequence = p, patch.source_epoch, state.sequence
    entry.shot, entry.first_round, entry.num_rounds = state.shot, state.round_index, num_rounds
    entry.fate, entry.after = fate, -1
    cursors[FATES_LOGGED] = row + 1
    return row


@compiled
def flip_random_bit(fault: Any, message: Any, size: Any) -> Any:
    """Flip one bit of a message, any but the one that says that there is a checksum."""
    bit = np.int64(fault.random % np.uint64(8 * size - 1))
    if bit >= _CRC_FLAG_BIT:
        bit += 1
    message[bit >> 3] ^= np.uint8(1 << (bit & 7))


@compiled
def restart_source(p: Any, patch: Any, state: Any, fault: Any, messages: Any, pace: Any, log: Any, cursors: Any,
                   counts: Any) -> Any:  # fmt: skip
    """Leave the shot where it stands; the next one begins after a silence, with another epoch. Returns rounds left out.

    The rounds that are left out take no time: what follows is due a silence after the last round that was.
    """
    silence_ns = fault.silence_ns
    before = state.rounds_sent
    while state.message < patch.messages_per_shot:
        num_rounds = messages[patch.message_offset + state.message, 1]
        log_fate(p, patch, state, num_rounds, _CUT_OFF, log, cursors, counts)
        state.message += 1
        state.sequence += np.uint64(1)
        state.round_index += num_rounds
        state.rounds_sent += num_rounds
    state.shot += 1
    state.message, state.round_index, state.sequence = 0, 0, 0
    patch.source_epoch = (patch.source_epoch + 1) & 0xFFFF
    left_out = state.rounds_sent - before
    fault.offset_ns += silence_ns - (elapsed_ns(pace, state.rounds_sent) - elapsed_ns(pace, before))
    fault.released_ns += silence_ns
    fault.skip_left, fault.last_sent = 0, -1
    counts[p, FaultKind.RESTART, TIMES] += 1
    return left_out
