"""Keep what windows decided: flips to the frame, seam to the ring, slots back to ingest."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.filter import committed_flips
from rtqec.kernels.native import compiled, store_release
from rtqec.kernels.records import CURSOR_STRIDE, PLACE_AHEAD, PLACE_BEHIND, TAIL, PathCounter
from rtqec.kernels.shot import HELD, advance
from rtqec.wire import (
    CORRECTION_BYTES,
    RESPONSE_MAGIC,
    RPC_HEADER_BYTES,
    VERSION,
    CorrectionFlag,
    FrameStatus,
    Reason,
    Rung,
)

RESULT_BYTES = CORRECTION_BYTES - RPC_HEADER_BYTES
_RESPONSE_MAGIC = RESPONSE_MAGIC
_LOW32 = np.uint64(0xFFFFFFFF)
_LAST_OF_SHOT = int(CorrectionFlag.LAST_OF_SHOT)
_LOSSY = int(CorrectionFlag.LOSSY)
_DEGRADED = int(CorrectionFlag.DEGRADED)
_CAUGHT_UP = int(CorrectionFlag.CAUGHT_UP)
_VERSION = VERSION
_NUM_ROUNDS_MAX = (1 << 32) - 1
"""A gap may have more: an endless stream that is taken up after days. The next correction says where it ended."""
_NAN = np.float32(np.nan)


@compiled
def answer_flips(answers: Any, row: Any, num_observables: Any) -> Any:
    """The observables of an answer as one word, LSB first."""
    flips = np.uint64(0)
    for bit in range(num_observables):
        value = np.uint64(answers[row, bit >> 3] >> np.uint8(bit & 7)) & np.uint64(1)
        flips |= value << np.uint64(bit)
    return flips


@compiled
def carry_seam(place: Any, state: Any, model: Any, seam: Any, answers: Any, row: Any, commit_stop: Any,
               ring_b8: Any) -> Any:  # fmt: skip
    """XOR the seam of an answer into the rounds of the ring that later windows decide. Returns detectors flipped.

    Once, in the ring itself: a detector that the next window only looks at keeps its flip for the window after.
    """
    flipped = 0
    for j in range(model.seam_stop - model.seam_start):
        bit = model.num_observables + j
        if (answers[row, bit >> 3] >> np.uint8(bit & 7)) & np.uint8(1):
            t, slot = commit_stop + seam[model.seam_start + j, 0], seam[model.seam_start + j, 1]
            byte = place.byte_offset + ((state.base + t) & place.mask) * place.layer_bytes + (slot >> 3)
            ring_b8[byte] ^= np.uint8(1 << (slot & 7))
            flipped += 1
    return flipped


@compiled
def taint(cursor: Any, window: Any) -> Any:
    """From here on the frame holds a guess."""
    if not cursor.tainted:
        cursor.tainted, cursor.tainted_since = 1, window.start


@compiled
def describe_correction(patch: Any, state: Any, cursor: Any, window: Any, flips: Any, correction: Any) -> Any:
    """Fill a correction, all but the time of its publication. `cursor` is where in the stream it belongs."""
    flags = window.flags
    if window.closing:
        flags |= _LAST_OF_SHOT
    if window.lossy:
        flags |= _LOSSY
    if window.guessed:
        flags |= _DEGRADED
    correction.magic = _RESPONSE_MAGIC
    correction.status = 0
    correction.result_len = RESULT_BYTES
    correction.request_id = np.uint64(state.window_index) & _LOW32
    correction.ptp_timestamp = window.ptp_timestamp
    correction.version = _VERSION
    correction.flags = flags
    correction.patch_id = patch.patch_id
    correction.plan_tag = patch.plan_tag
    correction.rung = window.rung
    correction.reason = window.reason
    correction.num_observables = patch.num_observables
    correction.shot_id = cursor.shot_id
    correction.window_index = state.window_index
    correction.first_round = window.start
    correction.num_rounds = min(window.commit_stop - window.start, _NUM_ROUNDS_MAX)
    correction.frame_status = FrameStatus.TAINTED if cursor.tainted else FrameStatus.CLEAN
    correction.last_round_needed = window.clock_round
    correction.tainted_since = cursor.tainted_since
    correction.sent_ns = window.sent_ns
    correction.received_ns = window.received_ns
    correction.deadline_ns = window.deadline_ns
    correction.confidence = _NAN
    correction.rounds_lost = window.rounds_lost
    correction.flips = flips
    correction.frame = cursor.frame


@compiled
def count_window(window: Any, counts: Any) -> Any:
    """Count a window by what was done with it."""
    rounds = window.commit_stop - window.start
    counts[PathCounter.WINDOWS] += 1
    if window.place != PLACE_BEHIND:
        counts[PathCounter.ROUNDS_COMMITTED] += rounds
    else:
        counts[PathCounter.ROUNDS_AMENDED] += rounds
    if window.place == PLACE_AHEAD and (window.reason == Reason.BACKLOG or window.reason == Reason.DEADLINE):
        counts[PathCounter.ROUNDS_HELD] += rounds
    if window.flags & _CAUGHT_UP:
        counts[PathCounter.CAUGHT_UP] += 1
    elif window.step > 0 and window.model != HELD:
        counts[PathCounter.STEPPED_DOWN] += 1


@compiled
def commit_windows(streams: Any, models: Any, seam: Any, resets: Any, windows: Any, count: Any, answers: Any,
                   matched: Any, corrections: Any) -> Any:  # fmt: skip
    """Commit a batch.

    Args:
        streams: See `kernels.window`.
        resets: int64, one per patch: how often its frame's status was asked to be reset.
        answers: uint8, shape (count, answer_bytes): observables, then seam, LSB first.
        matched: uint8, shape (count,): 0 for a window without an answer.
        corrections: `wire.CORRECTION`, one per window; filled.
    """
    patches, places, states, aheads, slots, ring_b8, cursors, counters = streams
    if count:
        counters[windows[0].patch_index, PathCounter.BATCHES] += 1
    for i in range(count):
        window = windows[i]
        p = window.patch_index
        patch, place, state, counts = patches[p], places[p], states[p], counters[p]
        cursor = aheads[p] if window.place == PLACE_AHEAD else state
        if resets[p] != state.resets:
            state.resets = resets[p]
            state.tainted, state.tainted_since = 0, 0
            aheads[p].tainted, aheads[p].tainted_since = 0, 0
        flips = np.uint64(0)
        if matched[i]:
            model = models[window.model]
            flips = answer_flips(answers, i, model.num_observables)
            if patch.predecodes:
                flips ^= committed_flips(place, state, slots, window)
            counts[PathCounter.SEAM_DETECTORS] += carry_seam(
                place, state, model, seam, answers, i, window.commit_stop, ring_b8
            )
        elif window.model != HELD:
            window.reason = Reason.NO_MATCHING
            window.rung = Rung.HOLD
            window.guessed = 1
            counts[PathCounter.UNEXPLAINED] += 1
        if window.guessed:
            taint(cursor, window)
        cursor.frame ^= flips
        if window.place == PLACE_BEHIND and aheads[p].open and aheads[p].num_shots == state.num_shots:
            # What is held from here on, of the same shot, stands on these flips too.
            aheads[p].frame ^= flips
        count_window(window, counts)
        describe_correction(patch, state, cursor, window, flips, corrections[i])
        state.window_index += 1
        advance(cursor, window)
        if window.place != PLACE_AHEAD:
            store_release(cursors, p * CURSOR_STRIDE + TAIL, window.consumed)
