"""Cut a window out of a patch's rounds, and gather its detection events into a row.

The arrays come in two tuples; see `kernels.window`.
"""

from __future__ import annotations

from typing import Any

from rtqec.kernels.ladder import count_bits
from rtqec.kernels.native import compiled, load_acquire
from rtqec.kernels.records import CURSOR_STRIDE, HEAD, SLOT_ECHO, SLOT_GUESSED, SLOT_LOST
from rtqec.kernels.shot import HELD, scan_shot


@compiled
def cut_open(p: Any, streams: Any, shelf: Any, table: Any, multiple: Any, window: Any) -> Any:
    """Describe the window that commits the multiple-th commit region, of a shot that goes on."""
    patch, state = streams[0][p], streams[2][p]
    row = min(state.start // patch.commit_rounds, patch.num_rows - 1)
    past = 1 if state.past_open else 0
    commit_rounds = patch.commit_rounds * shelf[5][multiple]
    window.start = state.start
    window.commit_stop = state.start + commit_rounds
    window.stop = window.commit_stop + patch.window_rounds - patch.commit_rounds
    window.closing = 0
    window.consumed = state.base + window.commit_stop
    at = ((table * patch.num_rows + row) * patch.num_multiples + multiple) * 2 + past
    window.model = shelf[0][patch.open_offset + at]


@compiled
def cut_closing(p: Any, streams: Any, shelf: Any, table: Any, window: Any) -> Any:
    """Describe the window that ends the shot."""
    patch, state = streams[0][p], streams[2][p]
    row = min(state.start // patch.commit_rounds, patch.num_rows - 1)
    past = 1 if state.past_open else 0
    left = state.num_rounds - state.start
    window.start = state.start
    window.stop = state.num_rounds
    window.commit_stop = state.num_rounds
    window.closing = 1
    window.consumed = state.base + state.num_rounds
    window.model = HELD
    if left <= patch.left_max:
        window.model = shelf[1][
            patch.closing_offset + ((table * patch.num_rows + row) * (patch.left_max + 1) + left) * 2 + past
        ]


@compiled
def cut_largest(p: Any, streams: Any, shelf: Any, table: Any, limit: Any, window: Any) -> Any:
    """Describe the window that decides most of what has come, up to the ring ordinal `limit`; its multiple, or -1.

    -2 is the window that ends the shot.
    """
    patches, places, states, _, slots, _, cursors, _ = streams
    patch, place, state = patches[p], places[p], states[p]
    multiples = shelf[5]
    if state.past_open:
        return -1
    reach = multiples[patch.num_multiples - 1] * patch.commit_rounds + patch.window_rounds - patch.commit_rounds
    head = load_acquire(cursors, p * CURSOR_STRIDE + HEAD)
    scan_shot(patch, place, state, slots, head, state.start + reach)
    if state.num_rounds >= 0 and state.base + state.num_rounds <= limit:
        cut_closing(p, streams, shelf, table, window)
        if window.model != HELD:
            return -2
    for i in range(patch.num_multiples - 1, 0, -1):
        cut_open(p, streams, shelf, table, i, window)
        if (
            window.model != HELD
            and window.stop <= state.scanned
            and (state.num_rounds < 0 or window.stop < state.num_rounds)
            and window.consumed <= limit
        ):
            return i
    return -1


@compiled
def gather_window(p: Any, streams: Any, shelf: Any, window: Any, rows: Any, row_start: Any) -> Any:
    """Copy a window's layers from the ring into a row, masked to the detectors that its model knows.

    Where a round of it was lost, its model gives way to the one that knows that.
    """
    place, state, slots, ring_b8 = streams[1][p], streams[2][p], streams[4], streams[5]
    model, masks = shelf[2][window.model], shelf[3]
    seen = 0
    lost = 0
    first_lost = 0
    num_events = 0
    at = row_start
    mask_at = model.mask_offset
    for t in range(window.start, window.stop):
        ordinal = (state.base + t) & place.mask
        flags = slots[place.slot_offset + ordinal].flags
        seen |= flags
        if flags & SLOT_LOST:
            if not lost:
                first_lost = t - window.start
            lost += 1
        start = place.byte_offset + ordinal * place.layer_bytes
        for i in range(place.layer_bytes):
            byte = ring_b8[start + i] & masks[mask_at]
            rows[at] = byte
            num_events += count_bits(byte)
            at += 1
            mask_at += 1
    while at < row_start + model.row_bytes:
        rows[at] = 0
        at += 1
    if lost and model.erased_offset >= 0:
        other = shelf[7][model.erased_offset + first_lost]
        if other != HELD:
            window.model = other
    window.num_events = num_events
    window.rounds_lost = lost
    window.lossy = 1 if seen & (SLOT_LOST | SLOT_ECHO) else 0
    window.guessed = 1 if seen & SLOT_GUESSED else 0
