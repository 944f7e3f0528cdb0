"""Error rates that change while an endless stream is made: bursts near a place, and slow drift of all."""

from __future__ import annotations

from typing import Any

import numpy as np

from firmware_sim.kernels.endless import flip_error, group_of_round, random_unit, sample_errors
from firmware_sim.kernels.records import BURSTS_LOGGED, TIMES, TOUCHED_ROUNDS, FaultKind
from rtqec.kernels.native import compiled

_TWO_PI = 2.0 * np.pi
_PROBABILITY_MAX = 0.5
"""An error that happens every second time is pure noise; more often, it would be news again."""


@compiled
def strikes(rule: Any, own: Any, position: Any) -> Any:
    """Whether a rule strikes at a round of its patch: by chance, or where `every_rounds` has passed.

    Args:
        rule, own: `RULE` and its `RULE_STATE`, whose random numbers or next round move on.
        position: The round, in rounds that the patch has made.
    """
    if position < rule.start_round or position >= rule.stop_round:
        return False
    if rule.every_rounds:
        if position < own.next_round:
            return False
        own.next_round += ((position - own.next_round) // rule.every_rounds + 1) * rule.every_rounds
        return True
    return random_unit(own) <= rule.probability


@compiled
def begin_burst(p: Any, rule: Any, own: Any, round_index: Any, bursts: Any, cursors: Any, counts: Any) -> Any:
    """Let a burst begin, somewhere within the rule's box, and note it."""
    own.began = round_index
    own.x, own.y = rule.x, rule.y
    if rule.centre_random:
        own.x += rule.x_extent * random_unit(own)
        own.y += rule.y_extent * random_unit(own)
    counts[p, rule.kind, TIMES] += 1
    if cursors[BURSTS_LOGGED] < len(bursts):
        entry = bursts[cursors[BURSTS_LOGGED]]
        entry.patch_index, entry.first_round, entry.num_rounds = p, round_index, rule.num_rounds
        entry.x, entry.y = own.x, own.y
        cursors[BURSTS_LOGGED] += 1


@compiled
def update_rates(round_index: Any, rates: Any) -> Any:
    """Set `rate` of every rule for this round. Returns the largest factor that any error can have."""
    p, fault_states, rules, rule_states, _, bursts, cursors, counts = rates
    largest = 1.0
    for r in range(fault_states[p].first_rate_rule, fault_states[p].stop_rule):
        rule, own = rules[r], rule_states[r]
        own.rate = 1.0
        if rule.kind == FaultKind.DRIFT:
            if rule.start_round <= round_index < rule.stop_round:
                own.rate += rule.factor * np.sin(_TWO_PI * (round_index - rule.start_round) / rule.num_rounds)
        else:
            if strikes(rule, own, round_index):
                begin_burst(p, rule, own, round_index, bursts, cursors, counts)
            since = round_index - own.began
            if own.began >= 0 and since < rule.num_rounds:
                own.rate += (rule.factor - 1.0) * np.exp(-since / rule.decay_rounds)
        if own.rate != 1.0:
            counts[p, rule.kind, TOUCHED_ROUNDS] += 1
        largest *= own.rate
    return largest


@compiled
def rate_of_error(error: Any, rates: Any) -> Any:
    """By how much an error is more probable in this round."""
    p, fault_states, rules, rule_states, places, _, _, _ = rates
    rate = 1.0
    for r in range(fault_states[p].first_rate_rule, fault_states[p].stop_rule):
        rule, own = rules[r], rule_states[r]
        if rule.kind == FaultKind.BURST:
            # Not near where the place is not known: every comparison with NaN is false.
            near = (places[error, 0] - own.x) ** 2 + (places[error, 1] - own.y) ** 2 <= rule.radius**2
            rate *= own.rate if near else 1.0
        else:
            rate *= own.rate
    return rate


@compiled
def sample_errors_at_rates(patch: Any, state: Any, groups: Any, accept: Any, observables: Any, flip_start: Any,
                           flips: Any, pending: Any, rates: Any) -> Any:  # fmt: skip
    """`sample_errors` with every probability times its rate, at most one half.

    Args:
        rates: Patch index; `FAULT_STATE`, `RULE`, `RULE_STATE`; float64, shape (num_errors, 2): x and y of each
            error, NaN where unknown; `BURST_ENTRY`, cursors of the logs, counts.
    """
    largest_rate = update_rates(state.round_index, rates)
    if largest_rate == 1.0:
        sample_errors(patch, state, groups, accept, observables, flip_start, flips, pending)
        return
    group = groups[group_of_round(patch, state.round_index)]
    largest = min(group.largest * largest_rate, _PROBABILITY_MAX)
    if largest <= 0.0:
        return
    log_miss = np.log1p(-largest)
    error = group.start - 1
    while True:
        error += 1 + np.int64(np.log(random_unit(state)) / log_miss)
        if error >= group.stop:
            return
        probability = min(group.largest * accept[error] * rate_of_error(error, rates), _PROBABILITY_MAX)
        if random_unit(state) * largest <= probability:
            flip_error(patch, state, error, observables, flip_start, flips, pending)
