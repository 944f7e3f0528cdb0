"""What the daemon keeps of each CUDA-Q decoder, and what a request does with it.

| state | enqueue_syndromes | get_corrections | reset_decoder |
|---|---|---|---|
| COLLECTING | takes the bits; the shot complete: decodes, corrections ^= flips, READY | NOT_READY | forgets all |
| READY | the old answer is gone: as COLLECTING | OK; reset: corrections = 0, COLLECTING | COLLECTING, forgets all |
| FAILED | ignored, OK | INTERNAL_ERROR | COLLECTING, forgets all |

It fails by an `enqueue_syndromes` that cannot be read (BAD_REQUEST), by bits beyond the end of the shot, and by events
that cannot be paired (both OK: only the next `get_corrections` says so). A request for another number of observables is
BAD_REQUEST and changes nothing.

Arrays come in tuples. `mail`: sockets, addresses, lengths, polls, datagram (words, bytes), answer (words), hand,
options; see `kernels.datagrams`. `desk`: sessions, widths of their blocks, bits of the block that each fills, round
message (words, bytes). `books`: journal, journal_sent, written, path counters, answers. `feed`: see `kernels.placing`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.cudaq.frames import BITS_MAX, BITS_OFFSET, ENQUEUE, GET, HEADER_BYTES, RESET, Status
from rtqec.kernels.native import compiled, load_acquire, store_release
from rtqec.kernels.placing import free_slots, leave_shot, place_message, publish_head
from rtqec.kernels.records import CURSOR_STRIDE, FEED_ENDED, NEED, FeedCounter, PathCounter, ShotState, record
from rtqec.wire import ROUNDS_HEADER_BYTES, VERSION, CorrectionFlag, Reason, RoundFlag, Rung

SESSION = record(
    ("decoder_id", "i8"),
    ("num_measurements", "i8"),
    ("num_observables", "i8"),
    ("first_block", "i8"),
    ("num_blocks", "i8"),
    ("bits_offset", "i8"),
    ("state", "i8"),
    ("dropped", "i8"),
    ("accepted", "i8"),
    ("block", "i8"),
    ("filled", "i8"),
    ("shot_id", "u8"),
    ("collected", "i8"),
    ("ended", "i8"),
    ("unmatched", "i8"),
    ("late", "i8"),
    ("frame", "u8"),
    ("corrections", "u8"),
    ("unread", "i8"),
    ("known", "i8"),
)
"""One decoder. One row per patch. `accepted`: measurements of the shot so far, of which `block` whole blocks are in the
ring, and `filled` bits wait for theirs to be complete. `collected`: corrections of the patch that were looked at; of
this shot: `ended`, the last came; `unmatched`, one could not be decoded; `late`, one was; `frame`, after it.
`corrections`: XOR of the frames of all shots since it was cleared; `unread` until somebody asked. `dropped`: it failed
because requests are missing. `known`: 1 once a lane has served it, in memory that all copies of the lane share."""

COLLECTING, READY, FAILED = 0, 1, 2

STAGE, AT, FROM, SIZE, BITS, TAKEN, STATUS, HAS_RESULT, LOOK, NEXT, DIRTY, HAND_WORDS = range(12)
"""The request in hand, int64: how far it is (IDLE, FEEDING, ANSWERING), its session (-1: none), its socket, bytes, bits
to take and taken, what is answered, whether with corrections. `LOOK`: 1 where a window may have closed. `NEXT`: the
socket that is looked at first. `DIRTY`: bytes of the datagram's memory that are not zero."""

IDLE, FEEDING, ANSWERING = 0, 1, 2
SLOT, LATE_IS_BUSY, GAPS_ARE_DROPS, OPTION_WORDS = range(4)

_HIGH = np.uint64(32)
_HEADER = HEADER_BYTES
_BITS_AT = BITS_OFFSET
_ENQUEUE_BYTES = ENQUEUE.itemsize
_GET_BYTES = GET.itemsize
_RESET_BYTES = RESET.itemsize
_BITS_MAX = np.uint64(BITS_MAX)
_ROUNDS_BYTES = ROUNDS_HEADER_BYTES
_ROUND_VERSION = np.uint64(VERSION)
_ONE_ROUND = np.uint64(1)
_FIRST = int(RoundFlag.FIRST)
_LAST = int(RoundFlag.LAST)
_LATE = int(CorrectionFlag.LATE)
_LAST_OF_SHOT = int(CorrectionFlag.LAST_OF_SHOT)
_HOLD = int(Rung.HOLD)
_NO_MATCHING = int(Reason.NO_MATCHING)
_NO_WINDOW = int(Reason.NO_WINDOW)


@compiled
def append_bits(source: Any, source_bit: Any, count: Any, target: Any, start: Any, target_bit: Any) -> Any:
    """Copy bits behind those that `target` has from byte `start` on; a byte that is begun is written whole."""
    done = 0
    while done < count:
        at = target_bit + done
        here = source_bit + done
        taken = min(8 - (at & 7), count - done)
        value = np.int64(source[here >> 3]) >> (here & 7)
        if 8 - (here & 7) < taken:
            value |= np.int64(source[(here >> 3) + 1]) << (8 - (here & 7))
        value &= (1 << taken) - 1
        if at & 7:
            target[start + (at >> 3)] |= np.uint8(value << (at & 7))
        else:
            target[start + (at >> 3)] = np.uint8(value)
        done += taken


@compiled
def forget_shot(session: Any) -> Any:
    """Nothing of a shot has come."""
    session.accepted = 0
    session.block = 0
    session.filled = 0


@compiled
def break_off(p: Any, desk: Any, feed: Any, hand: Any, times: Any) -> Any:
    """End the shot of a session before its last round, so that the path does not wait for it."""
    session, place, state = desk[0][p], feed[1][p], feed[2][p]
    if state.shot_state == ShotState.OPEN and free_slots(place, state, feed[7], p, 1):
        leave_shot(place, state, feed[6], times, feed[9][p])
        publish_head(p, state, feed[7], feed[8], True)
        hand[LOOK] = 1
    forget_shot(session)


@compiled
def fail(p: Any, desk: Any, feed: Any, hand: Any, times: Any) -> Any:
    """Answer nothing any more until the session is reset."""
    session = desk[0][p]
    if session.state != FAILED:
        feed[9][p, FeedCounter.SESSIONS_FAILED] += 1
    session.state = FAILED
    session.unread = 0
    break_off(p, desk, feed, hand, times)


@compiled
def begin_enqueue(p: Any, mail: Any, desk: Any, feed: Any, times: Any, arg_len: Any, draining: Any) -> Any:
    """Check the bits that a session is given. The status; the bits are still to be taken where `BITS` is not 0."""
    words, hand, options = mail[4], mail[7], mail[8]
    session = desk[0][p]
    num_bits = words[6]
    readable = (
        _ENQUEUE_BYTES <= arg_len <= options[SLOT] - _HEADER
        and np.uint64(0) < num_bits <= _BITS_MAX
        and (np.int64(num_bits) + 7) >> 3 <= arg_len - _ENQUEUE_BYTES
    )
    if not readable or words[5] != 0:
        fail(p, desk, feed, hand, times)
        return Status.BAD_REQUEST
    if session.state == FAILED:
        return Status.OK
    if np.int64(num_bits) > session.num_measurements - session.accepted:
        fail(p, desk, feed, hand, times)
        return Status.OK
    if session.accepted == 0:
        if draining:
            feed[9][p, FeedCounter.DRAINED] += 1
            fail(p, desk, feed, hand, times)
            return Status.OK
        session.shot_id += _ONE_ROUND
        session.ended = 0
        session.unmatched = 0
        session.late = 0
    session.state = COLLECTING
    session.unread = 0
    session.accepted += np.int64(num_bits)
    hand[BITS] = np.int64(num_bits)
    hand[TAKEN] = 0
    return Status.OK


@compiled
def answer_corrections(session: Any, mail: Any, arg_len: Any) -> Any:
    """What `get_corrections` is answered."""
    words, hand, options = mail[4], mail[7], mail[8]
    if arg_len < _GET_BYTES or arg_len > options[SLOT] - _HEADER or np.int64(words[4]) <= 0:
        return Status.BAD_REQUEST
    if session.state == FAILED:
        return Status.SYNDROMES_DROPPED if session.dropped else Status.INTERNAL_ERROR
    if np.int64(words[4]) != session.num_observables:
        return Status.BAD_REQUEST
    if session.state != READY:
        return Status.NOT_READY
    if session.late and options[LATE_IS_BUSY]:
        session.late = 0
        return Status.BUSY
    mail[6][3] = session.corrections
    hand[HAS_RESULT] = 1
    session.unread = 0
    if words[5] & np.uint64(0xFF):
        session.corrections = 0
        session.state = COLLECTING
    return Status.OK


@compiled
def begin_reset(p: Any, mail: Any, desk: Any, feed: Any, times: Any, arg_len: Any) -> Any:
    """Forget everything of a session."""
    if arg_len < _RESET_BYTES or arg_len > mail[8][SLOT] - _HEADER:
        return Status.BAD_REQUEST
    session = desk[0][p]
    break_off(p, desk, feed, mail[7], times)
    session.state = COLLECTING
    session.dropped = 0
    session.corrections = 0
    session.unread = 0
    return Status.OK


@compiled
def collect(p: Any, desk: Any, books: Any) -> Any:
    """Look at the corrections that the path has made since: they count as handed over, as this is who they are for."""
    journal, journal_sent, written, counters, _ = books
    session = desk[0][p]
    length = journal.shape[1]
    while session.collected < written[p]:
        place = session.collected % length
        correction = journal[p, place]
        if not journal_sent[p, place]:
            journal_sent[p, place] = 1
            counters[p, PathCounter.CORRECTIONS_SENT] += 1
        session.collected += 1
        if correction.shot_id != session.shot_id:
            continue
        if correction.flags & _LATE:
            session.late = 1
        if correction.rung == _HOLD and (correction.reason == _NO_MATCHING or correction.reason == _NO_WINDOW):
            session.unmatched = 1
        if correction.flags & _LAST_OF_SHOT:
            session.ended = 1
            session.frame = correction.frame


@compiled
def place_block(p: Any, desk: Any, feed: Any, events: Any, times: Any) -> Any:
    """Fold the block that is complete into the ring. False where the ring has no room."""
    sessions, widths, buffer, words, message = desk
    session, state = sessions[p], feed[2][p]
    width = widths[session.first_block + session.block]
    flags = (_FIRST if session.block == 0 else 0) | (_LAST if session.block == session.num_blocks - 1 else 0)
    words[3] = _ROUND_VERSION | np.uint64(flags) << np.uint64(16)
    words[5] = session.shot_id
    words[6] = np.uint64(session.block)
    words[8] = _ONE_ROUND | np.uint64(width) << _HIGH
    for i in range((width + 7) >> 3):
        message[_ROUNDS_BYTES + i] = buffer[session.bits_offset + i]
    before = state.head
    place_message(p, feed, message, words, times, events)
    session.block += 1
    session.filled = 0
    return state.head > before


@compiled
def take_bits(p: Any, mail: Any, desk: Any, feed: Any, events: Any, times: Any) -> Any:
    """Take the bits of the request in hand, up to where a window may have closed. False where all are taken."""
    hand = mail[7]
    sessions, widths, buffer = desk[0], desk[1], desk[2]
    session, state, cursors = sessions[p], feed[2][p], feed[7]
    while hand[TAKEN] < hand[BITS]:
        width = widths[session.first_block + session.block]
        count = min(width - session.filled, hand[BITS] - hand[TAKEN])
        append_bits(mail[5], 8 * _BITS_AT + hand[TAKEN], count, buffer, session.bits_offset, session.filled)
        session.filled += count
        hand[TAKEN] += count
        if session.filled < width:
            return False
        if not place_block(p, desk, feed, events, times):
            hand[TAKEN] = hand[BITS]
            fail(p, desk, feed, hand, times)
            return True
        if state.shot_state == ShotState.CLOSED or state.head >= load_acquire(cursors, p * CURSOR_STRIDE + NEED):
            return True
    return False


@compiled
def end_shot(p: Any, desk: Any, feed: Any, hand: Any, times: Any) -> Any:
    """Where the last measurement has come and is decoded: add the shot's flips to the corrections."""
    session = desk[0][p]
    if session.state == FAILED or session.accepted < session.num_measurements:
        return
    if session.unmatched or not session.ended:
        fail(p, desk, feed, hand, times)
        return
    session.corrections ^= session.frame
    session.state = READY
    session.unread = 1
    forget_shot(session)


@compiled
def count_open(sessions: Any) -> Any:
    """Sessions that somebody still waits for."""
    count = 0
    for p in range(len(sessions)):
        if sessions[p].accepted > 0 or (sessions[p].state == READY and sessions[p].unread):
            count += 1
    return count


@compiled
def end_sessions(desk: Any, feed: Any, hand: Any, control: Any, times: Any) -> Any:
    """End the shots that are open, and say that nothing more comes."""
    for p in range(len(desk[0])):
        break_off(p, desk, feed, hand, times)
    store_release(control, FEED_ENDED, 1)
