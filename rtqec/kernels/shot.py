"""A place in a patch's stream: what lies ahead of it, and whether the next window has closed.

Pure decisions on slots. The ends of a shot, and gaps in it, are met in order: nothing behind one is looked at before
the windows in front of it are through.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.native import compiled
from rtqec.kernels.records import SLOT_BLIND, SLOT_JUMP, SLOT_LAST, SLOT_LOST, SLOT_TRUNCATED
from rtqec.wire import Reason

HELD = -1
NEVER = np.int64(1 << 62)
NOT_YET, OPEN, CLOSING, GAP, REST = 0, 1, 2, 3, 4
"""What comes next: nothing yet; a window of a shot that goes on; the window that ends it; rounds that are gone; the
rest of a shot that broke off, or that ended where nothing is known."""


@compiled
def slot_at(place: Any, slots: Any, ordinal: Any) -> Any:
    """The slot with this number since the start."""
    return slots[place.slot_offset + (ordinal & place.mask)]


@compiled
def open_shot(place: Any, cursor: Any, slots: Any) -> Any:
    """Begin the shot whose first slot is at `cursor.base`."""
    cursor.open = 1
    cursor.num_shots += 1
    cursor.shot_id = slot_at(place, slots, cursor.base).shot_id
    cursor.start = 0
    cursor.scanned = 0
    cursor.origin = 0
    cursor.num_rounds = -1
    cursor.ended = 0
    cursor.hole_stop = 0
    cursor.past_open = 0
    cursor.copied = 0
    cursor.filtered = 0
    cursor.frame = 0
    cursor.tainted = 0
    cursor.tainted_since = 0


@compiled
def position(cursor: Any) -> Any:
    """The ring ordinal of the first round that is still wanted."""
    return cursor.base + max(cursor.start, cursor.origin)


@compiled
def gap_stop(patch: Any, cursor: Any) -> Any:
    """The first round behind a gap at which a window can begin: windows begin at multiples of the commit region."""
    first = max(cursor.start, cursor.origin)
    if cursor.hole_stop > first + patch.window_rounds:
        # Far or for ever: then every window is answered when it would have closed, or the ring would fill.
        return (first + patch.window_rounds) // patch.commit_rounds * patch.commit_rounds
    return (cursor.hole_stop + patch.commit_rounds - 1) // patch.commit_rounds * patch.commit_rounds


@compiled
def scan_shot(patch: Any, place: Any, cursor: Any, slots: Any, head: Any, stop: Any) -> Any:
    """Look at new rounds up to `stop`, or to where a gap ends."""
    if not cursor.open:
        if head <= cursor.base:
            return
        open_shot(place, cursor, slots)
    while cursor.num_rounds < 0 and not cursor.ended and cursor.base + cursor.scanned < head:
        gone = cursor.hole_stop > cursor.start
        if cursor.scanned >= (gap_stop(patch, cursor) if gone else stop):
            return
        slot = slot_at(place, slots, cursor.base + cursor.scanned)
        if slot.flags & (SLOT_TRUNCATED | SLOT_JUMP):
            if not gone and cursor.scanned >= cursor.start + patch.window_rounds:
                return
            if slot.flags & SLOT_TRUNCATED:
                cursor.ended = 1
                return
            cursor.base += cursor.scanned + 1 - slot.round_index
            cursor.scanned = slot.round_index
            cursor.origin = slot.round_index
            blind = slot.flags & SLOT_BLIND or cursor.hole_stop == NEVER
            cursor.hole_stop = NEVER if blind else slot.round_index + patch.look_back
        else:
            if gone and slot.flags & SLOT_LOST and cursor.scanned < cursor.hole_stop < NEVER:
                # It was filled from rounds that are gone; those that look back at it are no better.
                cursor.hole_stop = cursor.scanned + 1 + patch.look_back
            cursor.scanned += 1
            if slot.flags & SLOT_LAST:
                cursor.num_rounds = cursor.scanned


@compiled
def next_kind(patch: Any, cursor: Any) -> Any:
    """What comes next, of the scanned rounds."""
    if not cursor.open:
        return NOT_YET
    window_stop = cursor.start + patch.window_rounds
    if cursor.hole_stop > cursor.start:
        stop = gap_stop(patch, cursor)
        if cursor.ended or 0 <= cursor.num_rounds <= stop:
            return REST
        return GAP if cursor.scanned >= stop else NOT_YET
    if cursor.ended:
        return REST
    if 0 <= cursor.num_rounds <= window_stop:
        return CLOSING
    return OPEN if cursor.scanned >= window_stop else NOT_YET


@compiled
def need_of(patch: Any, cursor: Any) -> Any:
    """The head at which it is worth looking again."""
    if cursor.open and cursor.hole_stop > cursor.start:
        return cursor.base + gap_stop(patch, cursor)
    return cursor.base + cursor.start + patch.window_rounds


@compiled
def start_clock(patch: Any, place: Any, cursor: Any, slots: Any, kind: Any, window: Any) -> Any:
    """Note when the round came that the next window waited for; of what is held, the slot that said so."""
    if kind == OPEN:
        needed = cursor.start + patch.window_rounds - 1
    elif kind == CLOSING or (kind == REST and not cursor.ended):
        needed = cursor.num_rounds - 1
    elif kind == REST:
        needed = cursor.scanned
    else:
        needed = cursor.scanned - 1
    slot = slot_at(place, slots, cursor.base + needed)
    window.clock_round = max(needed, 0)
    window.received_ns = slot.received_ns
    window.sent_ns = slot.sent_ns
    window.ptp_timestamp = slot.ptp_timestamp
    window.deadline_ns = slot.received_ns + patch.budget_ns


@compiled
def describe_held(patch: Any, cursor: Any, kind: Any, window: Any) -> Any:
    """Fill the rounds of what cannot be decoded: those of a gap, or the rest of a shot."""
    gone = cursor.hole_stop > cursor.start
    window.model = HELD
    window.start = cursor.start
    window.closing = 1 if kind == REST else 0
    window.reason = Reason.GAP if gone else Reason.SHOT_TRUNCATED
    if kind == GAP:
        stop = gap_stop(patch, cursor)
        window.consumed = cursor.base + stop
    elif cursor.num_rounds >= 0:
        stop = cursor.num_rounds
        window.consumed = cursor.base + stop
    else:
        stop = patch.num_rounds if patch.num_rounds >= 0 else cursor.scanned
        window.consumed = cursor.base + cursor.scanned + 1
        window.reason = Reason.SHOT_TRUNCATED
    window.stop = stop
    window.commit_stop = stop
    window.lossy = 1
    window.guessed = 1


@compiled
def describe_ahead(patch: Any, cursor: Any, most: Any, window: Any) -> Any:
    """Fill the rounds of all windows that have closed, at most `most` of them, to answer them by holding."""
    closed = (cursor.scanned - cursor.start - patch.window_rounds) // patch.commit_rounds + 1
    window.model = HELD
    window.start = cursor.start
    window.lossy = 0
    window.guessed = 1
    if cursor.num_rounds >= 0 and (cursor.num_rounds - cursor.start <= patch.window_rounds or closed < most):
        window.closing = 1
        window.stop = cursor.num_rounds
    else:
        window.closing = 0
        window.stop = cursor.start + min(closed, most) * patch.commit_rounds
    window.commit_stop = window.stop
    window.consumed = cursor.base + window.stop


@compiled
def advance(cursor: Any, window: Any) -> Any:
    """Move on behind a window."""
    cursor.start = window.commit_stop
    cursor.past_open = 1 if window.reason == Reason.GAP else 0
    if window.closing:
        cursor.open = 0
        cursor.start = 0
        cursor.origin = 0
        cursor.base = window.consumed
