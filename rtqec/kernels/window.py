"""Decide which windows have closed, choose a batch of them, and gather their detection events.

Pure decisions on cursors, slots and times; `wait_for_windows` around them is where the path's thread sleeps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.native import compiled, futex_wait, load_acquire, now_ns, sleep_until, store_release
from rtqec.kernels.records import (
    COALESCE_FOR_NS,
    CURSOR_STRIDE,
    HEAD,
    NEED,
    SIGNAL_SEQUENCE,
    SIGNAL_WAITING,
    SLOT_END,
    SLOT_GUESSED,
    SLOT_HEADLESS,
    SLOT_LAST,
    SLOT_LOST,
    STOP,
    WAIT_COALESCE_NS,
    WAIT_SPIN_NS,
)
from rtqec.wire import Reason

HELD = -1
_NEVER = np.int64(1 << 62)


@compiled
def open_shot(place: Any, state: Any, slots: Any) -> Any:
    """Begin the shot whose first slot is at `state.base`."""
    state.open = 1
    state.shot_id = slots[place.slot_offset + (state.base & place.mask)].shot_id
    state.start = 0
    state.scanned = 0
    state.num_rounds = -1
    state.ended = 0
    state.window_index = 0
    state.frame = 0
    state.tainted = 0
    state.tainted_since = 0


@compiled
def scan_shot(patch: Any, place: Any, state: Any, slots: Any, head: Any) -> Any:
    """Look at new rounds up to the next window's end. True when that window has closed."""
    stop = state.start + patch.window_rounds
    while state.num_rounds < 0 and not state.ended and state.scanned < stop and state.base + state.scanned < head:
        flags = slots[place.slot_offset + ((state.base + state.scanned) & place.mask)].flags
        if flags & SLOT_END:
            state.ended = flags
            break
        state.scanned += 1
        if flags & SLOT_LAST:
            state.num_rounds = state.scanned
    return state.num_rounds >= 0 or state.ended != 0 or state.scanned == stop


@compiled
def describe_window(p: Any, patch: Any, place: Any, state: Any, slots: Any, open_models: Any, closing_models: Any,
                    window: Any) -> Any:  # fmt: skip
    """Fill the `WINDOW_SLOT` of the next window of a patch; it has closed."""
    closing = state.num_rounds >= 0 and state.num_rounds <= state.start + patch.window_rounds
    window.patch_index = p
    window.start = state.start
    window.closing = 1 if closing or state.ended else 0
    window.reason = Reason.CONFIGURED
    if state.ended:
        _hold_rest(patch, state, window)
    elif closing:
        k = min(state.window_index, patch.num_open - 1)
        window.stop = state.num_rounds
        window.commit_stop = state.num_rounds
        window.consumed = state.base + state.num_rounds
        window.model = closing_models[
            patch.closing_offset + k * (patch.window_rounds + 1) + state.num_rounds - state.start
        ]
        if window.model == HELD:
            window.reason = Reason.NO_WINDOW
    else:
        k = min(state.window_index, patch.num_open - 1)
        window.stop = state.start + patch.window_rounds
        window.commit_stop = state.start + patch.commit_rounds
        window.consumed = state.base + window.commit_stop
        window.model = open_models[patch.open_offset + k]
    # The round that the window waited for; of a truncated shot, the slot that said so.
    needed = slots[
        place.slot_offset + ((state.base + (state.scanned if state.ended else window.stop - 1)) & place.mask)
    ]
    window.received_ns = needed.received_ns
    window.sent_ns = needed.sent_ns
    window.ptp_timestamp = needed.ptp_timestamp
    window.deadline_ns = needed.received_ns + patch.budget_ns


@compiled
def _hold_rest(patch: Any, state: Any, window: Any) -> Any:
    """A shot that ended badly: hold every round that it should have had, the slot that said so included."""
    headless = state.ended & SLOT_HEADLESS
    window.stop = patch.num_rounds if patch.num_rounds >= 0 else state.scanned
    window.commit_stop = window.stop
    window.consumed = state.base + state.scanned + 1
    window.model = HELD
    window.reason = Reason.SHOT_HEADLESS if headless else Reason.SHOT_TRUNCATED


@compiled
def next_window(p: Any, patch: Any, place: Any, state: Any, slots: Any, cursors: Any, open_models: Any,
                closing_models: Any, window: Any) -> Any:  # fmt: skip
    """Describe the next window of a patch if it has closed; else say at which head to look again. True if closed."""
    head = load_acquire(cursors, p * CURSOR_STRIDE + HEAD)
    if not state.open and head > state.base:
        open_shot(place, state, slots)
    if state.open and scan_shot(patch, place, state, slots, head):
        describe_window(p, patch, place, state, slots, open_models, closing_models, window)
        return True
    start = state.start if state.open else 0
    store_release(cursors, p * CURSOR_STRIDE + NEED, state.base + start + patch.window_rounds)
    return False


@compiled
def gather_window(place: Any, state: Any, slots: Any, ring_b8: Any, model: Any, masks: Any, window: Any, rows: Any,
                  row_start: Any) -> Any:  # fmt: skip
    """Copy a window's layers from the ring into a row, masked to the detectors that its model knows."""
    window.lossy = 0
    window.guessed = 0
    at = row_start
    for t in range(window.start, window.stop):
        ordinal = (state.base + t) & place.mask
        flags = slots[place.slot_offset + ordinal].flags
        if flags & SLOT_LOST:
            window.lossy = 1
        if flags & SLOT_GUESSED:
            window.guessed = 1
        start = place.byte_offset + ordinal * place.layer_bytes
        for i in range(place.layer_bytes):
            rows[at] = ring_b8[start + i] & masks[model.mask_offset + at - row_start]
            at += 1


@compiled
def choose_batch(patches: Any, places: Any, states: Any, slots: Any, ring_b8: Any, cursors: Any, open_models: Any,
                 closing_models: Any, models: Any, masks: Any, cost_ns: Any, windows: Any, closed: Any, rows: Any,
                 time_ns: Any) -> Any:  # fmt: skip
    """Choose windows that are decoded together: the one with the earliest deadline, and others of its matcher.

    Others join, in order of patch, while the predicted time of the whole batch fits the earliest deadline.

    Args:
        closed: `WINDOW_SLOT`, one per patch, scratch.
        cost_ns: float64, predicted time of one window, per matcher.
        windows, rows: The batch; filled.
        time_ns: Now.

    Returns:
        Number of windows; 0 where none has closed. Windows that are held come alone.
    """
    first, earliest = -1, _NEVER
    for p in range(len(patches)):
        is_closed = next_window(p, patches[p], places[p], states[p], slots, cursors, open_models, closing_models,
                                closed[p])  # fmt: skip
        if not is_closed:
            closed[p].patch_index = -1
        elif closed[p].deadline_ns < earliest:
            first, earliest = p, closed[p].deadline_ns
    if first < 0:
        return 0
    windows[0] = closed[first]
    model_index = closed[first].model
    if model_index == HELD:
        windows[0].lossy = 1
        windows[0].guessed = 1
        return 1
    count = 1
    gather_window(places[first], states[first], slots, ring_b8, models[model_index], masks, windows[0], rows, 0)
    for p in range(len(patches)):
        if p == first or closed[p].patch_index < 0 or closed[p].model != model_index:
            continue
        if count == len(windows) or time_ns + (count + 1) * cost_ns[model_index] > earliest:
            break
        windows[count] = closed[p]
        gather_window(places[p], states[p], slots, ring_b8, models[model_index], masks, windows[count], rows,
                      count * models[model_index].row_bytes)  # fmt: skip
        count += 1
    return count


@compiled
def wait_for_windows(patches: Any, places: Any, states: Any, slots: Any, ring_b8: Any, cursors: Any, open_models: Any,
                     closing_models: Any, models: Any, masks: Any, cost_ns: Any, windows: Any, closed: Any, rows: Any,
                     signal: Any, control: Any, waiting: Any, timeout_ns: Any, spec: Any) -> Any:  # fmt: skip
    """`choose_batch`, after sleeping until there is one; 0 after `timeout_ns` or when told to stop.

    Args:
        waiting: int64, shape (2,): `WAIT_SPIN_NS`, look again without sleeping for so long (only on a core of one's
            own); `WAIT_COALESCE_NS`, then look every so often, without being woken. Both 0: sleep until woken.
    """
    started = now_ns(spec)
    time_ns = started
    while True:
        seen = load_acquire(signal, SIGNAL_SEQUENCE)
        count = choose_batch(patches, places, states, slots, ring_b8, cursors, open_models, closing_models, models,
                             masks, cost_ns, windows, closed, rows, time_ns)  # fmt: skip
        waited = time_ns - started
        if count or waited >= timeout_ns or load_acquire(control, STOP):
            return count
        if waited >= waiting[WAIT_SPIN_NS]:
            if waiting[WAIT_COALESCE_NS] and waited < COALESCE_FOR_NS:
                sleep_until(time_ns + waiting[WAIT_COALESCE_NS], spec)
            else:
                store_release(signal, SIGNAL_WAITING, np.uint32(1))
                # The kernel compares the sequence again under its own lock, so that no wake-up is lost in between.
                futex_wait(signal, seen, timeout_ns, spec)
                store_release(signal, SIGNAL_WAITING, np.uint32(0))
        time_ns = now_ns(spec)
