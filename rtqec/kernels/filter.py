"""The predecoder as a filter over rounds: raw events out of the ring, what the network flips back into it.

Answers are taken round by round, each round once, for every window that sees it. What an answer flips is XORed into the
ring as a seam is, and the observables that it flips are kept in the round's slot until the round is committed. So the
ring always holds the same decoding problem, restated, whatever the answers are and whichever rounds have any.

Raw events are needed once more for the next chunk's past; they are copied aside before anything is XORed into them.
A *chunk* is what the network sees for one window: the rounds from `halo` before it to its end, in a volume of fixed
size, layers beyond the ends of the shot marked as outside. Here it is packed rounds, and packed changes to them; what
is between is a chunk device's.

The arrays come in four tuples: `streams` as in `kernels.window`; `maps`: filters, own_b8; `inputs`: rounds_b8, kinds,
spans, patches; `outputs`: changes_b8, flips, bad. See `predecode.Predecode` and `device.chunks.ChunkDevice`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.histogram import bin_of
from rtqec.kernels.native import compiled
from rtqec.kernels.records import ANSWERED, BULK, EDGE, LAST, OUTSIDE, PLACE_AHEAD, PathCounter, Span
from rtqec.kernels.shot import HELD, slot_at
from rtqec.kernels.stencils import flipped_by_answers, observables_flipped
from rtqec.wire import Reason

_ONE = np.uint8(1)
_ONES_IN = np.array([byte.bit_count() for byte in range(256)], np.uint8)


@compiled
def copy_raw(place: Any, state: Any, past: Any, stop: Any, ring_b8: Any, raw_b8: Any) -> Any:
    """Copy a patch's rounds up to `stop` aside, before anything is XORed into them.

    Args:
        past: `FILTER_PAST` record: where the copies are, and from which round on they are whole.
        raw_b8: uint8, the copies of all patches.
    """
    if past.shot != state.num_shots:
        past.shot = state.num_shots
        past.origin = max(state.copied, state.start)
    if state.copied < state.start:
        # Rounds were passed over: what lies before is not known.
        state.copied = state.start
        past.origin = state.start
    for t in range(state.copied, stop):
        source = place.byte_offset + ((state.base + t) & place.mask) * place.layer_bytes
        target = past.byte_offset + (t & past.mask) * place.layer_bytes
        for i in range(place.layer_bytes):
            raw_b8[target + i] = ring_b8[source + i]
    state.copied = max(state.copied, stop)


@compiled
def kind_of(t: Any, window: Any) -> Any:
    """What a round of a window is in a chunk."""
    if window.closing and t == window.stop - 1:
        return LAST
    return EDGE if t == 0 else BULK


@compiled
def fill_chunk(place: Any, halo: Any, past: Any, window: Any, raw_b8: Any, rounds_b8: Any, kinds: Any) -> Any:
    """Copy a window, with its past, into a chunk.

    Args:
        rounds_b8: uint8, shape (layers, layer_bytes); filled.
        kinds: uint8, shape (layers,); filled.
    """
    for layer in range(len(kinds)):
        t = window.start - halo + layer
        if not past.origin <= t < window.stop:
            kinds[layer] = OUTSIDE
            continue
        kinds[layer] = kind_of(t, window)
        start = past.byte_offset + (t & past.mask) * place.layer_bytes
        for i in range(place.layer_bytes):
            rounds_b8[layer, i] = raw_b8[start + i]


@compiled
def count_events(place: Any, base: Any, own_b8: Any, window: Any, first: Any, stop: Any, ring_b8: Any) -> Any:
    """Detection events of the own kind in rounds `first` to `stop` of the ring.

    Args:
        own_b8: uint8, shape (2, layer_bytes): of bulk and edge layers, the detectors of the own kind.
    """
    found = 0
    for t in range(first, stop):
        edge = 0 if kind_of(t, window) == BULK else 1
        start = place.byte_offset + ((base + t) & place.mask) * place.layer_bytes
        for i in range(place.layer_bytes):
            found += _ONES_IN[ring_b8[start + i] & own_b8[edge, i]]
    return found


@compiled
def restate(place: Any, state: Any, halo: Any, window: Any, first: Any, stop: Any, slots: Any, ring_b8: Any,
            changes_b8: Any, flips: Any) -> Any:  # fmt: skip
    """XOR what the answers of rounds `first` to `stop` flip into the ring, and keep their observables.

    Args:
        changes_b8: uint8, shape (layers, layer_bytes): the chunk's.
        flips: uint64, shape (layers,): the chunk's.
    """
    # Wrong outcomes of the last answered round reach into the next one, where there is one.
    for t in range(first, min(stop + 1, window.stop)):
        layer = t - window.start + halo
        start = place.byte_offset + ((state.base + t) & place.mask) * place.layer_bytes
        for i in range(place.layer_bytes):
            ring_b8[start + i] ^= changes_b8[layer, i]
        if t < stop:
            slot_at(place, slots, state.base + t).flips = flips[layer]


@compiled
def copy_rounds(place: Any, base: Any, first: Any, stop: Any, ring_b8: Any, before_b8: Any) -> Any:
    """Keep rounds `first` to `stop` of the ring as they are."""
    at = 0
    for t in range(first, stop):
        start = place.byte_offset + ((base + t) & place.mask) * place.layer_bytes
        for i in range(place.layer_bytes):
            before_b8[at] = ring_b8[start + i]
            at += 1


@compiled
def is_restated(place: Any, base: Any, p: Any, halo: Any, window: Any, span: Any, kinds: Any, before_b8: Any,
                ring_b8: Any, flips: Any, tables: Any, answers: Any) -> Any:  # fmt: skip
    """Whether what is left is what came, less what the answers flip: found anew from the answers, detector by detector,
    and the observables one by one.

    Args:
        p: Patch.
        span: First and stop layer that were answered.
        before_b8: uint8, the rounds before they were restated.
        answers: float32, shape (outputs, layers, num_cells): the chunk's logits.
    """
    spots = tables[2]
    row = 0
    for layer in range(span[0], min(span[1] + 1, window.stop - window.start + halo)):
        t = window.start - halo + layer
        edge = 0 if kinds[layer] == BULK else 1
        start = place.byte_offset + ((base + t) & place.mask) * place.layer_bytes
        for slot in range(place.layer_bytes * 8):
            byte, spot = slot >> 3, spots[p, edge, slot]
            flipped = ((before_b8[row + byte] ^ ring_b8[start + byte]) >> np.uint8(slot & 7)) & _ONE
            wanted = 0
            if spot >= 0:
                wanted = flipped_by_answers(tables, p, kinds, span, layer, spot, answers)
            if flipped != wanted:
                return False
        if layer < span[1] and flips[layer] != observables_flipped(tables, p, kinds[layer], layer, answers):
            return False
        row += place.layer_bytes
    return True


@compiled
def has_bad(bad: Any, span: Any) -> Any:
    """Whether an answer of the layers that count is no number."""
    found = 0
    for layer in range(span[0], span[1]):
        found |= bad[layer]
    return found != 0


@compiled
def gather_again(place: Any, state: Any, window: Any, model: Any, masks: Any, ring_b8: Any, rows: Any,
                 row_start: Any) -> Any:  # fmt: skip
    """Copy a window's layers from the ring into its row once more, after they have been restated."""
    at = row_start
    mask_at = model.mask_offset
    for t in range(window.start, window.stop):
        start = place.byte_offset + ((state.base + t) & place.mask) * place.layer_bytes
        for i in range(place.layer_bytes):
            rows[at] = ring_b8[start + i] & masks[mask_at]
            at += 1
            mask_at += 1


@compiled
def prepare_chunks(streams: Any, maps: Any, inputs: Any, records: Any, pasts: Any, raw_b8: Any, windows: Any,
                   count: Any) -> Any:  # fmt: skip
    """Copy the raw rounds of a batch aside, and fill the chunks of the windows that are to be predecoded.

    Args:
        records: `CHUNK`: filled with which window each chunk is of, and which rounds it answers.
        pasts: `FILTER_PAST`, one per patch.
        windows: The batch's `WINDOW_SLOT`s.

    Returns:
        Number of chunks.
    """
    _, places, states, _, _, ring_b8, _, _ = streams
    filters, _ = maps
    rounds_b8, kinds, spans, patches = inputs
    num_chunks = 0
    for i in range(count):
        window = windows[i]
        p = window.patch_index
        halo = filters[p].halo
        if window.model == HELD or window.place == PLACE_AHEAD or halo == 0:
            continue
        state, past = states[p], pasts[p]
        copy_raw(places[p], state, past, window.stop, ring_b8, raw_b8)
        # What is weighed is weighed anew in every window; what is decided is decided once.
        first = window.start if filters[p].soft else max(state.filtered, window.start)
        if past.origin > 0:
            first = max(first, past.origin + halo)
        stop = window.stop if window.closing else window.stop - halo
        fits = window.stop - window.start + halo <= kinds.shape[1]
        if not window.predecode or not fits or first >= stop:
            state.filtered = max(state.filtered, window.commit_stop)
            continue
        fill_chunk(places[p], halo, past, window, raw_b8, rounds_b8[num_chunks], kinds[num_chunks])
        patches[num_chunks] = p
        spans[num_chunks, 0] = first - window.start + halo
        spans[num_chunks, 1] = stop - window.start + halo
        records[num_chunks].window = i
        records[num_chunks].first = first
        records[num_chunks].stop = stop
        num_chunks += 1
    return num_chunks


@compiled
def finish_chunks(streams: Any, shelf: Any, maps: Any, inputs: Any, outputs: Any, records: Any, windows: Any,
                  num_chunks: Any, rows: Any, before_b8: Any, span_counts: Any, outcome: Any, took_ns: Any, check: Any,
                  tables: Any, answers: Any, chunk_of: Any) -> Any:  # fmt: skip
    """Restate the rounds that have answers, gather their windows again, and say of the others that they have none. Of
    windows that are only weighed, say which chunk does it.

    Args:
        before_b8: uint8, scratch.
        outcome: `ANSWERED`, or the counter of the cause for which every round goes on raw.
        took_ns: How long its call took.
        check: Whether to check what was done; see `is_restated`.
        tables: The chunk device's, for the check.
        answers: The logits, for the check; read for nothing else.
        chunk_of: int64, shape (batch_windows,): filled with the chunk of each window that is weighed, else -1.

    Returns:
        False where a check failed.
    """
    stepped, places, states, _, slots, ring_b8, _, counters = streams
    filters, own_b8 = maps
    _, kinds, spans, _ = inputs
    changes_b8, flips, bad = outputs
    models, masks, steps = shelf[2], shelf[3], shelf[4]
    right = True
    chunk_of[:] = -1
    for k in range(num_chunks):
        i, first, stop = records[k].window, records[k].first, records[k].stop
        window = windows[i]
        p = window.patch_index
        place, state, halo, counts = places[p], states[p], filters[p].halo, counters[p]
        span_counts[p, Span.ENGINE, bin_of(took_ns)] += 1
        cause = outcome
        if cause == ANSWERED and has_bad(bad[k], spans[k]):
            cause = PathCounter.BYPASSED_NAN
        if cause != ANSWERED:
            state.filtered = max(state.filtered, window.commit_stop)
            counts[cause] += 1
            window.rung = steps[stepped[p].step_offset + 1].rung
            window.reason = Reason.ENGINE
            continue
        if filters[p].soft:
            counts[PathCounter.ROUNDS_PREDECODED] += max(0, min(stop, window.commit_stop) - first)
            state.filtered = max(state.filtered, window.commit_stop)
            chunk_of[i] = k
            continue
        base = state.base
        counts[PathCounter.ROUNDS_PREDECODED] += stop - first
        counts[PathCounter.EVENTS_FOUND] += count_events(place, base, own_b8[p], window, first, stop, ring_b8)
        if check:
            copy_rounds(place, base, first, min(stop + 1, window.stop), ring_b8, before_b8)
        restate(place, state, halo, window, first, stop, slots, ring_b8, changes_b8[k], flips[k])
        counts[PathCounter.EVENTS_LEFT] += count_events(place, base, own_b8[p], window, first, stop, ring_b8)
        if check:
            counts[PathCounter.PREDECODINGS_CHECKED] += 1
            if not is_restated(place, base, p, halo, window, spans[k], kinds[k], before_b8, ring_b8, flips[k], tables,
                               answers[k]):  # fmt: skip
                counts[PathCounter.PREDECODINGS_WRONG] += 1
                right = False
        state.filtered = stop
        gather_again(place, state, window, models[window.model], masks, ring_b8, rows,
                     i * models[window.model].row_bytes)  # fmt: skip
    return right


@compiled
def committed_flips(place: Any, state: Any, slots: Any, window: Any) -> Any:
    """The observables that the answers of the rounds which a window decides flip."""
    flips = np.uint64(0)
    for t in range(max(window.start, state.origin), min(window.commit_stop, state.filtered)):
        flips ^= slot_at(place, slots, state.base + t).flips
    return flips
