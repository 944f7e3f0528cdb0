"""In which order messages reach the daemon, and what its rules of turn make of that: the exact count, after a run."""

from __future__ import annotations

from typing import Any

from rtqec.kernels.native import compiled

ARRIVES, LOST, HELD, LATE = 0, 1, 2, 3
"""Fates of a turn: as it should, never, after a later one; and (found here) so late that it had been given up."""
NEXT, HIGHEST, NUM_WAITING, MISSING, LATE_COUNT, REORDERED, ARRIVED, TURN_WORDS = 0, 1, 2, 3, 4, 5, 6, 7


@compiled
def go_past(sequence: Any, turn: Any, waiting: Any) -> Any:
    """What is before a message is missing; take it, and those that waited for it."""
    turn[MISSING] += sequence - turn[NEXT]
    turn[NEXT] = sequence + 1
    while turn[NUM_WAITING] and waiting[turn[NEXT] % len(waiting)] == turn[NEXT]:
        waiting[turn[NEXT] % len(waiting)] = -1
        turn[NUM_WAITING] -= 1
        turn[NEXT] += 1


@compiled
def give_up(turn: Any, waiting: Any) -> Any:
    """Wait no longer for what is missing before the first message that waits."""
    first = -1
    for sequence in waiting:
        if sequence >= 0 and (first < 0 or sequence < first):
            first = sequence
    waiting[first % len(waiting)] = -1
    turn[NUM_WAITING] -= 1
    go_past(first, turn, waiting)


@compiled
def arrive(sequence: Any, depth: Any, turn: Any, waiting: Any) -> Any:
    """Let one message arrive. False where it had been given up.

    Args:
        depth: `[feed] reorder_depth`.
        turn: int64, shape (TURN_WORDS,).
        waiting: int64, shape (max(depth, 1),): sequence numbers that wait, or -1.
    """
    if not turn[ARRIVED]:
        turn[NEXT] = turn[HIGHEST] = sequence
    turn[ARRIVED] += 1
    while turn[NUM_WAITING] and sequence > turn[NEXT] + depth:
        give_up(turn, waiting)
    if sequence < turn[NEXT]:
        turn[LATE_COUNT] += 1
        return False
    if depth and sequence < turn[HIGHEST]:
        turn[REORDERED] += 1
    turn[HIGHEST] = max(turn[HIGHEST], sequence)
    if 0 < sequence - turn[NEXT] <= depth:
        waiting[sequence % len(waiting)] = sequence
        turn[NUM_WAITING] += 1
    else:
        go_past(sequence, turn, waiting)
    return True


@compiled
def walk_epoch(num_messages: Any, sequences: Any, fates: Any, afters: Any, depth: Any, turn: Any, waiting: Any) -> Any:
    """Let the messages of one epoch arrive, as they left.

    Args:
        num_messages: Sequence numbers that had their turn.
        sequences: int64, of those that did not arrive as they should, ascending.
        fates: int64, LOST or HELD each; HELD becomes LATE where it had been given up.
        afters: int64, of each that was held: the last sequence number that left before it, or -1.
        depth, turn, waiting: See `arrive`; `turn` is 0, `waiting` -1.
    """
    sequence, row, held = 0, 0, -1
    while sequence < num_messages:
        if held < 0 and not turn[NUM_WAITING]:
            # Nothing out of order up to the next one that is noted here.
            following = sequences[row] if row < len(sequences) else num_messages
            if following > sequence and turn[ARRIVED] and turn[NEXT] == sequence:
                turn[ARRIVED] += following - sequence
                turn[NEXT] = following
                turn[HIGHEST] = following - 1
                sequence = following
                continue
        if row < len(sequences) and sequences[row] == sequence:
            if fates[row] == HELD and afters[row] > sequence:
                held = row
            elif fates[row] == HELD:
                arrive(sequence, depth, turn, waiting)
            row += 1
        else:
            arrive(sequence, depth, turn, waiting)
        if held >= 0 and afters[held] == sequence:
            if not arrive(sequences[held], depth, turn, waiting):
                fates[held] = LATE
            held = -1
        sequence += 1
    while turn[NUM_WAITING]:
        give_up(turn, waiting)
