"""The predecoder as a filter over rounds: raw events out of the ring, the network's answers back into it.

Answers are taken round by round, each round once, for every window that sees it. What an answer flips is XORed into the
ring as a seam is, and the observables that it flips are kept in the round's slot until the round is committed. So the
ring always holds the same decoding problem, restated, whatever the answers are and whichever rounds have any.

Raw events are needed once more for the next chunk's past; they are copied aside before anything is XORed into them.
A *chunk* is what the network sees for one window: the rounds from `halo` before it to its end, in a volume of fixed
size, layers beyond the ends of the shot marked as outside.

The arrays come in three tuples: `streams` as in `kernels.window`; `maps`: filters, places, slot_of, checks_of,
logical, presence, qubits_of; `chunks`: volume, inside, logits, records. See `predecode.Predecode`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.kernels.histogram import bin_of
from rtqec.kernels.native import compiled
from rtqec.kernels.records import ANSWERED, PLACE_AHEAD, PathCounter, Span
from rtqec.kernels.shot import HELD, slot_at
from rtqec.wire import Reason

_ONE = np.uint8(1)


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
def is_edge(t: Any, window: Any) -> Any:
    """Whether a round has detectors of the own kind only: the first, and the data readout."""
    return t == 0 or (window.closing and t == window.stop - 1)


@compiled
def fill_chunk(place: Any, sieve: Any, past: Any, window: Any, raw_b8: Any, maps: Any, volume: Any,
               inside: Any) -> Any:  # fmt: skip
    """Unpack a window, with its past, into the network's input.

    Args:
        volume: float32, shape (4, layers, num_cells); filled.
        inside: float32, shape (layers,); filled.
    """
    _, places, _, _, _, presence, _ = maps
    n = sieve.num_cells
    for layer in range(volume.shape[1]):
        t = window.start - sieve.halo + layer
        exists = past.origin <= t < window.stop
        inside[layer] = 1.0 if exists else 0.0
        for channel in range(4):
            for cell in range(n):
                volume[channel, layer, cell] = 0.0
        if not exists:
            continue
        edge = is_edge(t, window)
        for channel in range(2):
            if not edge or channel == sieve.own:
                for cell in range(n):
                    volume[2 + channel, layer, cell] = presence[sieve.presence_offset + channel * n + cell]
        at, count = sieve.bulk_offset, sieve.bulk_count
        if edge:
            at, count = sieve.edge_offset, sieve.edge_count
        start = past.byte_offset + (t & past.mask) * place.layer_bytes
        for slot in range(count):
            if (raw_b8[start + (slot >> 3)] >> np.uint8(slot & 7)) & _ONE:
                spot = places[at + slot]
                volume[spot // n, layer, spot % n] = 1.0


@compiled
def has_nan(logits: Any, first: Any, stop: Any) -> Any:
    """Whether any answer of these layers is no number."""
    for output in range(logits.shape[0]):
        for layer in range(first, stop):
            for cell in range(logits.shape[2]):
                if np.isnan(logits[output, layer, cell]):
                    return True
    return False


@compiled
def flip_detector(place: Any, sieve: Any, slot_of: Any, base: Any, t: Any, edge: Any, spot: Any, ring_b8: Any) -> Any:
    """Flip the detector of a spot in the ring; nothing where the round has none there."""
    at = sieve.slot_of_offset + (sieve.num_cells * 2 if edge else 0) + spot
    slot = slot_of[at]
    if slot >= 0:
        byte = place.byte_offset + ((base + t) & place.mask) * place.layer_bytes + (slot >> 3)
        ring_b8[byte] ^= np.uint8(1 << (slot & 7))


@compiled
def apply_answers(place: Any, state: Any, sieve: Any, window: Any, first: Any, stop: Any, slots: Any, ring_b8: Any,
                  maps: Any, logits: Any) -> Any:  # fmt: skip
    """XOR what the answers of rounds `first` to `stop` flip into the ring, and keep their observables.

    Args:
        logits: float32, shape (outputs, layers, num_cells).
    """
    _, _, slot_of, checks_of, logical, _, _ = maps
    n = sieve.num_cells
    num_channels = logits.shape[0] // 2
    for t in range(first, stop):
        layer = t - window.start + sieve.halo
        edge = is_edge(t, window)
        last = window.closing and t == window.stop - 1
        flips = np.uint64(0)
        for k in range(num_channels):
            channel = sieve.own if num_channels == 1 else k
            if not edge or channel == sieve.own:
                for cell in range(n):
                    if logits[k, layer, cell] >= sieve.threshold_data:
                        flips ^= logical[sieve.logical_offset + channel * n + cell]
                        for i in range(2):
                            check = checks_of[sieve.checks_offset + (channel * n + cell) * 2 + i]
                            if check >= 0:
                                spot = channel * n + check
                                flip_detector(place, sieve, slot_of, state.base, t, edge, spot, ring_b8)
            if last:
                continue
            next_edge = is_edge(t + 1, window)
            for cell in range(n):
                spot = channel * n + cell
                # A wrong outcome of a check: the bulk knows where there are any.
                if (
                    logits[num_channels + k, layer, cell] >= sieve.threshold_check
                    and slot_of[sieve.slot_of_offset + spot] >= 0
                ):
                    flip_detector(place, sieve, slot_of, state.base, t, edge, spot, ring_b8)
                    flip_detector(place, sieve, slot_of, state.base, t + 1, next_edge, spot, ring_b8)
        slot_at(place, slots, state.base + t).flips = flips


@compiled
def count_events(place: Any, base: Any, sieve: Any, window: Any, first: Any, stop: Any, ring_b8: Any,
                 places: Any) -> Any:  # fmt: skip
    """Detection events of the own kind in rounds `first` to `stop` of the ring."""
    found = 0
    for t in range(first, stop):
        at, count = sieve.bulk_offset, sieve.bulk_count
        if is_edge(t, window):
            at, count = sieve.edge_offset, sieve.edge_count
        start = place.byte_offset + ((base + t) & place.mask) * place.layer_bytes
        for slot in range(count):
            if places[at + slot] // sieve.num_cells == sieve.own:
                found += (ring_b8[start + (slot >> 3)] >> np.uint8(slot & 7)) & _ONE
    return found


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
def flipped_by_answers(sieve: Any, window: Any, first: Any, stop: Any, t: Any, spot: Any, maps: Any,
                       logits: Any) -> Any:  # fmt: skip
    """Whether the answers of rounds `first` to `stop` flip a detector of round `t`, looked at from the detector."""
    qubits_of = maps[6]
    n = sieve.num_cells
    channel, cell = spot // n, spot % n
    num_channels = logits.shape[0] // 2
    if num_channels == 1 and channel != sieve.own:
        return 0
    k = 0 if num_channels == 1 else channel
    layer = t - window.start + sieve.halo
    parity = 0
    if t < stop:
        for i in range(4):
            qubit = qubits_of[sieve.qubits_offset + spot * 4 + i]
            if qubit >= 0 and logits[k, layer, qubit] >= sieve.threshold_data:
                parity ^= 1
        last = window.closing and t == window.stop - 1
        if not last and logits[num_channels + k, layer, cell] >= sieve.threshold_check:
            parity ^= 1
    if t > first and logits[num_channels + k, layer - 1, cell] >= sieve.threshold_check:
        parity ^= 1
    return parity


@compiled
def is_restated(place: Any, base: Any, sieve: Any, window: Any, first: Any, stop: Any, before_b8: Any, ring_b8: Any,
                maps: Any, logits: Any) -> Any:  # fmt: skip
    """Whether what is left is what came, less what the answers flip: found anew, detector by detector."""
    places = maps[1]
    row = 0
    for t in range(first, min(stop + 1, window.stop)):
        at, count = sieve.bulk_offset, sieve.bulk_count
        if is_edge(t, window):
            at, count = sieve.edge_offset, sieve.edge_count
        start = place.byte_offset + ((base + t) & place.mask) * place.layer_bytes
        for slot in range(count):
            byte = slot >> 3
            flipped = ((before_b8[row + byte] ^ ring_b8[start + byte]) >> np.uint8(slot & 7)) & _ONE
            if flipped != flipped_by_answers(sieve, window, first, stop, t, places[at + slot], maps, logits):
                return False
        row += place.layer_bytes
    return True


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
def prepare_chunks(streams: Any, maps: Any, chunks: Any, pasts: Any, raw_b8: Any, windows: Any, count: Any) -> Any:
    """Copy the raw rounds of a batch aside, and fill the chunks of the windows that are to be predecoded.

    Args:
        pasts: `FILTER_PAST`, one per patch.
        windows: The batch's `WINDOW_SLOT`s.

    Returns:
        Number of chunks. `records` says of which window each is, and which rounds it answers.
    """
    _, places, states, _, _, ring_b8, _, _ = streams
    filters = maps[0]
    volume, inside, _, records = chunks
    num_chunks = 0
    for i in range(count):
        window = windows[i]
        p = window.patch_index
        if window.model == HELD or window.place == PLACE_AHEAD or filters[p].num_cells == 0:
            continue
        state, sieve, past = states[p], filters[p], pasts[p]
        copy_raw(places[p], state, past, window.stop, ring_b8, raw_b8)
        first = max(state.filtered, window.start)
        if past.origin > 0:
            first = max(first, past.origin + sieve.halo)
        stop = window.stop if window.closing else window.stop - sieve.halo
        fits = window.stop - window.start + sieve.halo <= volume.shape[2]
        if not window.predecode or not fits or first >= stop:
            state.filtered = max(state.filtered, window.commit_stop)
            continue
        fill_chunk(places[p], sieve, past, window, raw_b8, maps, volume[num_chunks], inside[num_chunks])
        records[num_chunks].window = i
        records[num_chunks].first = first
        records[num_chunks].stop = stop
        num_chunks += 1
    return num_chunks


@compiled
def finish_chunks(streams: Any, shelf: Any, maps: Any, chunks: Any, windows: Any, num_chunks: Any, rows: Any,
                  before_b8: Any, span_counts: Any, outcome: Any, took_ns: Any, check: Any) -> Any:  # fmt: skip
    """Restate the rounds that have answers, gather their windows again, and say of the others that they have none.

    Args:
        before_b8: uint8, scratch.
        outcome: `ANSWERED`, or the counter of the cause for which every round goes on raw.
        took_ns: How long its call took.
        check: Whether to check what was done; see `is_restated`.

    Returns:
        False where a check failed.
    """
    patches, places, states, _, slots, ring_b8, _, counters = streams
    filters = maps[0]
    _, _, logits, records = chunks
    models, masks, steps = shelf[2], shelf[3], shelf[4]
    right = True
    for k in range(num_chunks):
        i, first, stop = records[k].window, records[k].first, records[k].stop
        window = windows[i]
        p = window.patch_index
        place, state, sieve, counts = places[p], states[p], filters[p], counters[p]
        layer = first - window.start + sieve.halo
        span_counts[p, Span.ENGINE, bin_of(took_ns)] += 1
        cause = outcome
        if cause == ANSWERED and has_nan(logits[k], layer, layer + stop - first):
            cause = PathCounter.BYPASSED_NAN
        if cause != ANSWERED:
            state.filtered = max(state.filtered, window.commit_stop)
            counts[cause] += 1
            window.rung = steps[patches[p].step_offset + 1].rung
            window.reason = Reason.ENGINE
            continue
        base = state.base
        counts[PathCounter.ROUNDS_PREDECODED] += stop - first
        counts[PathCounter.EVENTS_FOUND] += count_events(place, base, sieve, window, first, stop, ring_b8, maps[1])
        if check:
            copy_rounds(place, base, first, min(stop + 1, window.stop), ring_b8, before_b8)
        apply_answers(place, state, sieve, window, first, stop, slots, ring_b8, maps, logits[k])
        counts[PathCounter.EVENTS_LEFT] += count_events(place, base, sieve, window, first, stop, ring_b8, maps[1])
        if check:
            counts[PathCounter.PREDECODINGS_CHECKED] += 1
            if not is_restated(place, base, sieve, window, first, stop, before_b8, ring_b8, maps, logits[k]):
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
