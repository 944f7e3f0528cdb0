"""Look at a patch: what its path may take, what comes next, and what is answered without decoding.

The arrays come in two tuples; see `kernels.window`.
"""

from __future__ import annotations

from typing import Any

from rtqec.kernels.native import compiled, load_acquire, store_release
from rtqec.kernels.records import CURSOR_STRIDE, HEAD, NEED, PLACE_AHEAD, PLACE_BEHIND, PLACE_LIVE, TAIL, PathCounter
from rtqec.kernels.shot import (
    CLOSING,
    GAP,
    NEVER,
    NOT_YET,
    describe_ahead,
    describe_held,
    need_of,
    next_kind,
    position,
    scan_shot,
    start_clock,
)
from rtqec.wire import Rung

_ALL = NEVER


@compiled
def copy_place(source: Any, target: Any) -> Any:
    """Where a patch stands in its stream, without its counts."""
    target.open = source.open
    target.base = source.base
    target.start = source.start
    target.scanned = source.scanned
    target.origin = source.origin
    target.num_rounds = source.num_rounds
    target.ended = source.ended
    target.hole_stop = source.hole_stop
    target.past_open = source.past_open
    target.num_shots = source.num_shots
    target.shot_id = source.shot_id
    target.frame = source.frame
    target.tainted = source.tainted
    target.tainted_since = source.tainted_since


@compiled
def leave_held(state: Any, counts: Any) -> Any:
    """No held round waits to be decoded any more."""
    state.behind = 0
    counts[PathCounter.ROUNDS_GIVEN_UP] = counts[PathCounter.ROUNDS_HELD] - counts[PathCounter.ROUNDS_AMENDED]


@compiled
def give_up_held(state: Any, ahead: Any, cursors: Any, p: Any, counts: Any) -> Any:
    """Forget what was held: decode on from where answers have got to, with an open past unless a shot begins there."""
    copy_place(ahead, state)
    state.past_open = 1 if state.open and state.start > 0 else 0
    leave_held(state, counts)
    store_release(cursors, p * CURSOR_STRIDE + TAIL, position(state))


@compiled
def attend(p: Any, streams: Any, window: Any) -> Any:
    """Look at one patch. True where something is to be done: `window` says where, and what kind in `model`.

    Sets `place`, and for a live window its clock; `step` holds the kind of window until a step is chosen.
    """
    patches, places, states, aheads, slots, _, cursors, counters = streams
    patch, place, state, ahead = patches[p], places[p], states[p], aheads[p]
    head = load_acquire(cursors, p * CURSOR_STRIDE + HEAD)
    window.patch_index = p
    window.predecode = 0
    if state.behind and head - position(state) > patch.ring_rounds - patch.backlog_rounds - patch.window_rounds:
        give_up_held(state, ahead, cursors, p, counters[p])
    counts = counters[p]
    counts[PathCounter.BACKLOG] = head - (position(ahead) if state.behind else position(state))
    counts[PathCounter.BACKLOG_MAX] = max(counts[PathCounter.BACKLOG_MAX], counts[PathCounter.BACKLOG])
    if state.behind:
        window.place = PLACE_BEHIND
        if head - position(ahead) > patch.backlog_rounds:
            window.place = PLACE_AHEAD
        return True
    scan_shot(patch, place, state, slots, head, state.start + patch.window_rounds)
    kind = next_kind(patch, state)
    if kind == NOT_YET:
        store_release(cursors, p * CURSOR_STRIDE + NEED, need_of(patch, state))
        return False
    window.place = PLACE_LIVE
    window.step = kind
    if kind <= CLOSING and head - position(state) > patch.backlog_rounds:
        copy_place(state, ahead)
        state.behind = 1
        window.place = PLACE_AHEAD
    else:
        start_clock(patch, place, state, slots, kind, window)
    return True


@compiled
def answer_ahead(p: Any, streams: Any, window: Any, most: Any, reason: Any) -> Any:
    """Answer rounds by holding, without giving their slots back. False where no window of them has closed."""
    patches, places, _, aheads, slots, _, cursors, _ = streams
    patch, place, ahead = patches[p], places[p], aheads[p]
    head = load_acquire(cursors, p * CURSOR_STRIDE + HEAD)
    scan_shot(patch, place, ahead, slots, head, _ALL)
    kind = next_kind(patch, ahead)
    if kind == NOT_YET:
        return False
    start_clock(patch, place, ahead, slots, kind, window)
    if kind >= GAP:
        describe_held(patch, ahead, kind, window)
    else:
        describe_ahead(patch, ahead, most, window)
        window.reason = reason
    window.place = PLACE_AHEAD
    window.rung = Rung.HOLD
    window.flags = 0
    window.rounds_lost = 0
    return True
