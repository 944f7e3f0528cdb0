"""Keep what windows decided: flips to the frame, seam to the ring, slots back to ingest."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.native import compiled, store_release
from rtqec.kernels.records import CURSOR_STRIDE, TAIL, PathCounter
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
_VERSION = VERSION
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
def describe_correction(patch: Any, state: Any, window: Any, flips: Any, held: Any, correction: Any) -> Any:
    """Fill a correction, all but the time of its publication."""
    guessed = held or window.guessed or (window.lossy and patch.events)
    if guessed and not state.tainted:
        state.tainted, state.tainted_since = 1, window.start
    flags = 0
    if window.closing:
        flags |= _LAST_OF_SHOT
    if window.lossy or held:
        flags |= _LOSSY
    if guessed:
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
    correction.rung = Rung.HOLD if held else patch.rung
    correction.reason = window.reason
    correction.num_observables = patch.num_observables
    correction.shot_id = state.shot_id
    correction.window_index = state.window_index
    correction.first_round = window.start
    correction.num_rounds = window.commit_stop - window.start
    correction.frame_status = FrameStatus.TAINTED if state.tainted else FrameStatus.CLEAN
    correction.last_round_needed = max(window.stop - 1, 0)
    correction.tainted_since = state.tainted_since
    correction.sent_ns = window.sent_ns
    correction.received_ns = window.received_ns
    correction.confidence = _NAN
    correction.flips = flips
    correction.frame = state.frame


@compiled
def commit_windows(patches: Any, places: Any, states: Any, models: Any, seam: Any, ring_b8: Any, cursors: Any,
                   windows: Any, count: Any, answers: Any, matched: Any, corrections: Any,
                   counters: Any) -> Any:  # fmt: skip
    """Commit a batch.

    Args:
        answers: uint8, shape (count, answer_bytes): observables, then seam, LSB first.
        matched: uint8, shape (count,): 0 for a window without an answer.
        corrections: `wire.CORRECTION`, one per window; filled.
        counters: int64, shape (num_patches, len(PathCounter)).
    """
    if count:
        counters[windows[0].patch_index, PathCounter.BATCHES] += 1
    for i in range(count):
        window = windows[i]
        p = window.patch_index
        patch, place, state, counts = patches[p], places[p], states[p], counters[p]
        flips = np.uint64(0)
        if matched[i]:
            model = models[window.model]
            flips = answer_flips(answers, i, model.num_observables)
            counts[PathCounter.SEAM_DETECTORS] += carry_seam(
                place, state, model, seam, answers, i, window.commit_stop, ring_b8
            )
        elif window.reason == Reason.CONFIGURED:
            window.reason = Reason.NO_MATCHING
            counts[PathCounter.UNEXPLAINED] += 1
        state.frame ^= flips
        describe_correction(patch, state, window, flips, not matched[i], corrections[i])
        counts[PathCounter.WINDOWS] += 1
        counts[PathCounter.ROUNDS_COMMITTED] += window.commit_stop - window.start
        state.window_index += 1
        state.start = window.commit_stop
        if window.closing:
            state.open = 0
            state.start = 0
            state.base = window.consumed
        store_release(cursors, p * CURSOR_STRIDE + TAIL, window.consumed)
