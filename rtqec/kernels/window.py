"""Decide which windows have closed, how each is decoded, and which go together; gather their detection events.

Pure decisions on cursors, slots and times; `wait_for_windows` around them is where the path's thread sleeps. The
rules, in this order:

1. A patch of which too many rounds wait is answered by holding, at once: `describe_ahead`.
2. Of the windows that have closed, the one with the earliest deadline is decoded. Its step of the ladder is the first
   that is predicted to be on time and leaves time for those behind it (`choose_step`).
3. Only when none has closed, rounds that were held are decoded, in order, and amended (`choose_amendment`).

The arrays come in two tuples. `streams`: patches, places, states, aheads, slots, ring_b8, cursors, path counters.
`shelf`: open models, closing models, models, masks, steps, multiples, cost_ns, erased models; see `batch.Streams`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.attend import answer_ahead, attend, copy_place, leave_held
from rtqec.kernels.cut import cut_closing, cut_largest, cut_open, gather_window
from rtqec.kernels.ladder import fits, forget_cost, predict_ns
from rtqec.kernels.native import compiled, load_acquire, now_ns, sleep_until, store_release
from rtqec.kernels.records import (
    COALESCE_FOR_NS,
    CURSOR_STRIDE,
    HEAD,
    PATH_BEAT,
    PLACE_AHEAD,
    PLACE_BEHIND,
    PLACE_LIVE,
    SIGNAL_SEQUENCE,
    STEP_CATCH_UP,
    STEP_HOLD,
    STOP,
    TAIL,
    WAIT_COALESCE_NS,
    WAIT_SPIN_NS,
)
from rtqec.kernels.shot import (
    CLOSING,
    GAP,
    HELD,
    NEVER,
    OPEN,
    advance,
    describe_held,
    next_kind,
    position,
    scan_shot,
    slot_at,
    start_clock,
)
from rtqec.kernels.signal import sleep_on
from rtqec.wire import CorrectionFlag, Reason, Rung

_CAUGHT_UP = int(CorrectionFlag.CAUGHT_UP)
_OPEN_PAST = int(CorrectionFlag.OPEN_PAST)
_AMENDMENT = int(CorrectionFlag.AMENDMENT)
_ALL = NEVER


@compiled
def queue_behind(p: Any, streams: Any, closed: Any, window: Any) -> Any:
    """The windows that wait behind this one: how many, and the latest of all deadlines."""
    patches, places, states, _, slots, _, cursors, _ = streams
    patch, place, state = patches[p], places[p], states[p]
    count = np.int64(0)
    latest = window.deadline_ns
    for q in range(len(patches)):
        if q != p and closed[q].patch_index >= 0 and closed[q].place == PLACE_LIVE:
            count += 1
            latest = max(latest, closed[q].deadline_ns)
    waiting = (load_acquire(cursors, p * CURSOR_STRIDE + HEAD) - position(state) - patch.window_rounds) // (
        patch.commit_rounds
    )
    if waiting > 0:
        last = position(state) + patch.window_rounds + waiting * patch.commit_rounds - 1
        latest = max(latest, slot_at(place, slots, last).received_ns + patch.budget_ns)
        count += waiting
    return count, latest


@compiled
def cheapest_ns(p: Any, streams: Any, shelf: Any, window: Any) -> Any:
    """The least that a window like this one may cost on the patch's ladder."""
    patch, steps, cost_ns = streams[0][p], shelf[4], shelf[6]
    model = window.model
    least = predict_ns(cost_ns, model, window.num_events)
    row = min(window.start // patch.commit_rounds, patch.num_rows - 1)
    for s in range(1, patch.num_steps):
        step = steps[patch.step_offset + s]
        if step.kind < STEP_HOLD:
            other = shelf[0][patch.open_offset + (step.table * patch.num_rows + row) * patch.num_multiples * 2]
            if other != HELD:
                least = min(least, predict_ns(cost_ns, other, window.num_events))
    return least


@compiled
def choose_step(p: Any, streams: Any, shelf: Any, closed: Any, window: Any, rows: Any, time_ns: Any) -> Any:
    """Choose how a live window is decoded, and gather it.

    Takes the first step of the patch's ladder that is predicted to be on time; where none is, the last that decodes.
    """
    patch, state, steps, cost_ns = streams[0][p], streams[2][p], shelf[4], shelf[6]
    kind = window.step
    waiting, latest_ns = queue_behind(p, streams, closed, window)
    window.reason = Reason.CONFIGURED
    recut = False
    for s in range(patch.num_steps):
        if not (patch.steps_mask >> s) & 1:
            continue
        step = steps[patch.step_offset + s]
        window.flags = _OPEN_PAST if state.past_open else 0
        if step.kind == STEP_HOLD:
            copy_place(state, streams[3][p])
            state.behind = 1
            answer_ahead(p, streams, window, 1, Reason.DEADLINE)
            return
        if step.kind == STEP_CATCH_UP:
            if kind == CLOSING:
                continue
            if cut_largest(p, streams, shelf, step.table, NEVER, window) != -1:
                gather_window(p, streams, shelf, window, rows, 0)
                window.step = s
                window.rung = step.rung
                window.predecode = 0
                window.flags |= _CAUGHT_UP
                window.reason = Reason.BACKLOG
                window.predicted_ns = predict_ns(cost_ns, window.model, window.num_events)
                return
            recut = True
            continue
        if kind == OPEN:
            cut_open(p, streams, shelf, step.table, 0, window)
        else:
            cut_closing(p, streams, shelf, step.table, window)
        if window.model == HELD:
            hold_without_window(window)
            return
        gather_window(p, streams, shelf, window, rows, 0)
        recut = False
        window.step = s
        window.rung = step.rung
        window.predecode = step.predecode
        window.predicted_ns = predict_ns(cost_ns, window.model, window.num_events)
        behind_ns = waiting * cheapest_ns(p, streams, shelf, window) if waiting else 0
        if fits(window.predicted_ns, time_ns, window.deadline_ns, behind_ns, latest_ns):
            return
        if s + 1 < patch.num_steps:
            forget_cost(cost_ns, window.model, window.num_events)
        window.reason = Reason.DEADLINE
    if window.step == 0:
        window.reason = Reason.CONFIGURED
    if recut:
        cut_open(p, streams, shelf, steps[patch.step_offset + window.step].table, 0, window)
        gather_window(p, streams, shelf, window, rows, 0)


@compiled
def hold_without_window(window: Any) -> Any:
    """The plan has no window like this: hold its rounds."""
    window.reason = Reason.NO_WINDOW
    window.rung = Rung.HOLD
    window.flags = 0
    window.lossy = 0
    window.guessed = 1
    window.rounds_lost = 0


@compiled
def choose_amendment(p: Any, streams: Any, shelf: Any, window: Any, rows: Any) -> Any:
    """Take up rounds that were held. False where the patch has got through them.

    As many at once as the ladder allows: the sooner the patch is through, the sooner it answers in time again.
    """
    patches, places, states, aheads, slots, _, cursors, counters = streams
    patch, place, state, ahead = patches[p], places[p], states[p], aheads[p]
    own = patch.step_offset + patch.predecodes
    table, rung = shelf[4][own].table, shelf[4][own].rung
    for s in range(patch.num_steps):
        step = shelf[4][patch.step_offset + s]
        if step.kind == STEP_CATCH_UP:
            table, rung = step.table, step.rung
    head = load_acquire(cursors, p * CURSOR_STRIDE + HEAD)
    while True:
        scan_shot(patch, place, state, slots, head, state.start + patch.window_rounds)
        if position(state) >= position(ahead):
            leave_held(state, counters[p])
            return False
        kind = next_kind(patch, state)
        start_clock(patch, place, state, slots, kind, window)
        window.reason = Reason.BACKLOG
        window.flags = _AMENDMENT | (_OPEN_PAST if state.past_open else 0)
        window.rung = rung
        window.place = PLACE_BEHIND
        window.predecode = 0
        if kind >= GAP:
            describe_held(patch, state, kind, window)
        elif kind == CLOSING:
            cut_closing(p, streams, shelf, table, window)
        elif patch.num_multiples == 1 or cut_largest(p, streams, shelf, table, position(ahead), window) == -1:
            cut_open(p, streams, shelf, table, 0, window)
        if window.consumed > position(ahead):
            # The end of the shot came after these rounds had been held: answer the rest of them first.
            return answer_ahead(p, streams, window, _ALL, Reason.BACKLOG)
        if window.model != HELD:
            gather_window(p, streams, shelf, window, rows, 0)
            window.step = 0
            window.predicted_ns = 0
            return True
        if not state.tainted:
            state.tainted, state.tainted_since = 1, state.start
        advance(state, window)
        store_release(cursors, p * CURSOR_STRIDE + TAIL, window.consumed)


@compiled
def shortest_behind(streams: Any, closed: Any) -> Any:
    """The patch with the fewest held rounds to decode, or -1."""
    states, aheads = streams[2], streams[3]
    best, fewest = -1, NEVER
    for p in range(len(states)):
        if closed[p].patch_index >= 0 and closed[p].place == PLACE_BEHIND:
            rounds = position(aheads[p]) - position(states[p])
            if rounds < fewest:
                best, fewest = p, rounds
    return best


@compiled
def join_batch(first: Any, streams: Any, shelf: Any, windows: Any, closed: Any, rows: Any, time_ns: Any) -> Any:
    """Let other patches' windows of the same matcher join, while all of them are predicted to be on time."""
    patches, states = streams[0], streams[2]
    steps, cost_ns = shelf[4], shelf[6]
    count = 1
    model = windows[0].model
    predicted_ns = windows[0].predicted_ns
    for p in range(len(patches)):
        if count == len(windows):
            break
        if p == first or closed[p].patch_index < 0 or closed[p].place != PLACE_LIVE or closed[p].step > CLOSING:
            continue
        if not patches[p].steps_mask & 1:
            continue
        window = closed[p]
        step = steps[patches[p].step_offset]
        if window.step == OPEN:
            cut_open(p, streams, shelf, step.table, 0, window)
        else:
            cut_closing(p, streams, shelf, step.table, window)
        if window.model != model:
            continue
        windows[count] = window
        gather_window(p, streams, shelf, windows[count], rows, count * shelf[2][model].row_bytes)
        if windows[count].model != model:
            continue
        predicted_ns += predict_ns(cost_ns, model, windows[count].num_events)
        if time_ns + predicted_ns > windows[0].deadline_ns:
            break
        windows[count].reason = Reason.CONFIGURED
        windows[count].rung = step.rung
        windows[count].predecode = step.predecode
        windows[count].step = 0
        windows[count].flags = _OPEN_PAST if states[p].past_open else 0
        count += 1
    return count, predicted_ns


@compiled
def choose_live(first: Any, streams: Any, shelf: Any, windows: Any, closed: Any, rows: Any, time_ns: Any) -> Any:
    """The batch around the live window of patch `first`."""
    windows[0] = closed[first]
    window = windows[0]
    window.predicted_ns = 0
    count = 1
    if window.step >= GAP:
        describe_held(streams[0][first], streams[2][first], window.step, window)
        window.rung = Rung.HOLD
        window.flags = 0
        window.rounds_lost = 0
    else:
        choose_step(first, streams, shelf, closed, window, rows, time_ns)
        if window.model != HELD and window.step == 0 and len(closed) > 1:
            count, predicted_ns = join_batch(first, streams, shelf, windows, closed, rows, time_ns)
            window.predicted_ns = predicted_ns
    for i in range(count):
        windows[i].decided_ns = time_ns
        windows[i].predicted_ns = window.predicted_ns
    return count


@compiled
def choose_batch(streams: Any, shelf: Any, windows: Any, closed: Any, rows: Any, time_ns: Any) -> Any:
    """Choose what is done next; see the rules above.

    Args:
        windows, rows: The batch; filled.
        closed: `WINDOW_SLOT`, one per patch, scratch.
        time_ns: Now.

    Returns:
        Number of windows; 0 where there is nothing to do. What is held comes alone.
    """
    window = windows[0]
    while True:
        first, earliest, behind = -1, NEVER, False
        for p in range(len(closed)):
            if not attend(p, streams, closed[p]):
                closed[p].patch_index = -1
            elif closed[p].place == PLACE_AHEAD:
                window.patch_index = p
                window.decided_ns = time_ns
                window.predicted_ns = 0
                if answer_ahead(p, streams, window, _ALL, Reason.BACKLOG):
                    return 1
                closed[p].place = PLACE_BEHIND
                behind = True
            elif closed[p].place == PLACE_BEHIND:
                behind = True
            elif closed[p].deadline_ns < earliest:
                first, earliest = p, closed[p].deadline_ns
        if first >= 0:
            return choose_live(first, streams, shelf, windows, closed, rows, time_ns)
        if not behind:
            return 0
        p = shortest_behind(streams, closed)
        window.patch_index = p
        window.decided_ns = time_ns
        if choose_amendment(p, streams, shelf, window, rows):
            return 1


@compiled
def wait_for_windows(streams: Any, shelf: Any, windows: Any, closed: Any, rows: Any, signal: Any, control: Any,
                     waiting: Any, timeout_ns: Any, spec: Any) -> Any:  # fmt: skip
    """`choose_batch`, after sleeping until there is one; 0 after `timeout_ns` or when told to stop. Beats.

    Args:
        waiting: int64, shape (2,): `WAIT_SPIN_NS`, look again without sleeping for so long (only on a core of one's
            own); `WAIT_COALESCE_NS`, then look every so often, without being woken. Both 0: sleep until woken.
    """
    started = now_ns(spec)
    time_ns = started
    while True:
        seen = load_acquire(signal, SIGNAL_SEQUENCE)
        control[PATH_BEAT] += 1
        count = choose_batch(streams, shelf, windows, closed, rows, time_ns)
        waited = time_ns - started
        if count or waited >= timeout_ns or load_acquire(control, STOP):
            return count
        if waited >= waiting[WAIT_SPIN_NS]:
            if waiting[WAIT_COALESCE_NS] and waited < COALESCE_FOR_NS:
                sleep_until(time_ns + waiting[WAIT_COALESCE_NS], spec)
            else:
                sleep_on(signal, seen, timeout_ns, spec)
        time_ns = now_ns(spec)
