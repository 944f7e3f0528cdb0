"""Serve CUDA-Q's decoding requests: read a datagram, do what it asks, answer its sender. One thread, no GIL, no queue.

A decoder's measurements are folded into the ring block by block as they come, and the thread that took them decodes
the windows that have closed: `serve` returns to Python for that, and goes on with the same datagram afterwards. So the
answer to a request leaves when all that it asked for is done, and the next request is not looked at before.

Every request has one answer, in the order in which they came. Nothing is answered to a datagram that is no request,
that names a function which does not exist, or that is longer than a slot; a shorter one is filled up with zeros.

For the tuples of arrays see `kernels.session`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtqec.cudaq.frames import Function, Status
from rtqec.kernels.native import compiled, load_acquire, now_ns, poll, recvfrom, sendto
from rtqec.kernels.records import (
    DRAIN,
    INGEST_BEAT,
    OPEN_SHOTS,
    PATH_BEAT,
    STOP,
    WAIT_SPIN_NS,
    FeedCounter,
    record,
)
from rtqec.kernels.session import (
    ANSWERING,
    AT,
    BITS,
    DIRTY,
    FEEDING,
    FROM,
    GAPS_ARE_DROPS,
    HAS_RESULT,
    IDLE,
    LOOK,
    NEXT,
    SIZE,
    SLOT,
    STAGE,
    STATUS,
    answer_corrections,
    begin_enqueue,
    begin_reset,
    collect,
    count_open,
    end_shot,
    fail,
    take_bits,
)
from rtqec.wire import REQUEST_MAGIC, RESPONSE_MAGIC

SOCKET = record(("fd", "i8"), ("session", "i8"), ("heard", "i8"), ("source", "u8"), ("next_id", "u8"))
"""One socket: the session that it is meant for, who was heard last, and the request that comes next from there."""

ADDRESS_WORDS = 4
"""Of a socket address, IPv4 or IPv6, in 64-bit words."""

STOPPED, DECODE = 0, 1
"""What `serve` returns for: it was told to stop; a window may have closed."""

_LOW32 = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(32)
_ONE = np.uint64(1)
_MAGIC = np.uint64(REQUEST_MAGIC)
_ENQUEUE_ID = np.uint64(Function.ENQUEUE_SYNDROMES)
_GET_ID = np.uint64(Function.GET_CORRECTIONS)
_RESET_ID = np.uint64(Function.RESET_DECODER)
_RESPONSE_MAGIC = np.uint64(RESPONSE_MAGIC)
_ADDRESS_BYTES = 8 * ADDRESS_WORDS
_MSG_DONTWAIT = 0x40
_MSG_TRUNC = 0x20
_POLL_READY = np.uint64(0xFFFF)
_POLL_SHIFT = np.uint64(48)
_ID_BYTES = 8
"""Of a decoder id: without one a request is not looked at any further."""
_GAP_MAX = 1 << 16
"""A leap of more requests than this is somebody who counts anew."""
_TIMEOUT_MS = 100
"""As of the sockets: how long an idle thread sleeps before it looks whether to stop, and beats."""


@compiled
def follow_requests(socket: Any, source: Any, request_id: Any, counts: Any) -> Any:
    """Count requests that never came: gaps in the ids of one source. How many they are here."""
    missing = np.int64(0)
    if socket.heard and socket.source == source and request_id > socket.next_id:
        leap = np.int64(request_id - socket.next_id)
        if leap <= _GAP_MAX:
            missing = leap
    counts[FeedCounter.MESSAGES_MISSING] += missing
    socket.heard = 1
    socket.source = source
    socket.next_id = (request_id + _ONE) & _LOW32
    return missing


@compiled
def find_session(sessions: Any, decoder_id: Any) -> Any:
    """The row of a decoder, or -1. An id is signed on the wire; no decoder has a negative one."""
    for p in range(len(sessions)):
        if sessions[p].decoder_id == decoder_id:
            return p
    return -1


@compiled
def begin(mail: Any, desk: Any, feed: Any, times: Any, draining: Any) -> Any:
    """Look at the datagram in hand: what is answered, and whether bits are to be taken first."""
    sockets, addresses, words, hand, options = mail[0], mail[1], mail[4], mail[7], mail[8]
    counters = feed[9]
    lane = len(desk[0])
    hand[STAGE], hand[FROM], hand[BITS], hand[HAS_RESULT] = IDLE, -1, 0, 0
    if hand[SIZE] == 0 or hand[SIZE] > options[SLOT]:
        counters[lane, FeedCounter.BAD_SIZE] += 1
        return
    function = words[0] >> _HIGH
    known = function in (_ENQUEUE_ID, _GET_ID, _RESET_ID)
    if words[0] & _LOW32 != _MAGIC or not known:
        counters[lane, FeedCounter.BAD_MAGIC] += 1
        return
    at = hand[AT]
    socket = sockets[at]
    source = addresses[at, 0] ^ addresses[at, 1] ^ addresses[at, 2] ^ addresses[at, 3]
    missing = follow_requests(socket, source, words[1] >> _HIGH, counters[socket.session])
    if missing and options[GAPS_ARE_DROPS]:
        fail(socket.session, desk, feed, hand, times)
        desk[0][socket.session].dropped = 1
    hand[STAGE] = ANSWERING
    arg_len = np.int64(words[1] & _LOW32)
    if arg_len < _ID_BYTES:
        hand[STATUS] = Status.BAD_REQUEST
        return
    p = find_session(desk[0], np.int64(words[3]))
    hand[FROM] = p
    if p < 0:
        counters[lane, FeedCounter.UNKNOWN_PATCH] += 1
        hand[STATUS] = Status.INVALID_DECODER
        return
    counters[p, FeedCounter.MESSAGES] += 1
    if function == _ENQUEUE_ID:
        hand[STATUS] = begin_enqueue(p, mail, desk, feed, times, arg_len, draining)
        if hand[BITS]:
            hand[STAGE] = FEEDING
    elif function == _GET_ID:
        hand[STATUS] = answer_corrections(desk[0][p], mail, arg_len)
    else:
        hand[STATUS] = begin_reset(p, mail, desk, feed, times, arg_len)


@compiled
def answer(mail: Any, desk: Any, books: Any, feed: Any) -> Any:
    """Send the answer of the request in hand to who sent it."""
    sockets, addresses, lengths, words, answer_words, hand, options = (
        mail[0], mail[1], mail[2], mail[4], mail[6], mail[7], mail[8]
    )  # fmt: skip
    p = hand[FROM]
    row = p if p >= 0 else len(desk[0])
    result_len = np.uint64(0)
    if hand[HAS_RESULT]:
        result_len = np.uint64((desk[0][p].num_observables + 7) >> 3)
    else:
        answer_words[3] = 0
    answer_words[0] = _RESPONSE_MAGIC | np.uint64(hand[STATUS]) << _HIGH
    answer_words[1] = result_len | (words[1] & (_LOW32 << _HIGH))
    answer_words[2] = words[2]
    at = hand[AT]
    sent = sendto(
        sockets[at].fd, answer_words.ctypes.data, options[SLOT], _MSG_DONTWAIT,
        addresses.ctypes.data + at * _ADDRESS_BYTES, lengths[at],
    )  # fmt: skip
    books[4][row, hand[STATUS]] += 1
    if sent < 0:
        feed[9][row, FeedCounter.ANSWERS_UNSENT] += 1
    hand[STAGE] = IDLE


@compiled
def receive_datagram(mail: Any, flags: Any) -> Any:
    """Take the next datagram of any socket, in turn: True where there is one. `flags`: of recvfrom."""
    sockets, addresses, lengths, polls, datagram, hand, options = (
        mail[0], mail[1], mail[2], mail[3], mail[5], mail[7], mail[8]
    )  # fmt: skip
    count = len(sockets)
    if count > 1 and poll(polls.ctypes.data, count, 0 if flags & _MSG_DONTWAIT else _TIMEOUT_MS) <= 0:
        return False
    for k in range(count):
        at = (hand[NEXT] + k) % count
        if count > 1 and not (polls[at] >> _POLL_SHIFT) & _POLL_READY:
            continue
        lengths[at] = _ADDRESS_BYTES
        size = recvfrom(
            sockets[at].fd, datagram.ctypes.data, options[SLOT], flags | _MSG_TRUNC,
            addresses.ctypes.data + at * _ADDRESS_BYTES, lengths.ctypes.data + 4 * at,
        )  # fmt: skip
        if size < 0:
            continue
        kept = min(size, options[SLOT])
        for i in range(kept, hand[DIRTY]):
            datagram[i] = 0
        hand[DIRTY] = kept
        hand[AT] = at
        hand[SIZE] = size
        hand[NEXT] = (at + 1) % count
        return True
    return False


@compiled
def wait_for_datagram(mail: Any, waiting: Any, last_ns: Any, spec: Any) -> Any:
    """Look without sleeping while the last one is younger than `waiting[WAIT_SPIN_NS]`, then sleep until one comes."""
    while now_ns(spec) - last_ns < waiting[WAIT_SPIN_NS]:
        if receive_datagram(mail, _MSG_DONTWAIT):
            return True
    return receive_datagram(mail, 0)


@compiled
def serve(mail: Any, desk: Any, feed: Any, books: Any, control: Any, events: Any, times: Any, waiting: Any,
          spec: Any) -> Any:  # fmt: skip
    """Serve requests until told to stop, or until a window may have closed: STOPPED or DECODE.

    After `control[DRAIN]` no shot begins, and `control[OPEN_SHOTS]` says how many are still to be read, plus one.

    Args:
        events, times: Scratch; see `kernels.ingest`.
        control: See `kernels.records`.
        waiting: int64, shape (2,); see `kernels.records`. Only the time of looking without sleeping counts: whoever
            asks waits for the answer.
        spec: Scratch for the clock.
    """
    hand = mail[7]
    while not load_acquire(control, STOP):
        control[INGEST_BEAT] += 1
        control[PATH_BEAT] += 1
        if hand[STAGE] == IDLE:
            if not wait_for_datagram(mail, waiting, times[0], spec):
                if load_acquire(control, DRAIN):
                    control[OPEN_SHOTS] = count_open(desk[0]) + 1
                continue
            times[0] = now_ns(spec)
            times[1] = 0
            times[2] = np.int64(mail[4][2])
            begin(mail, desk, feed, times, load_acquire(control, DRAIN))
        p = hand[FROM]
        if p >= 0:
            collect(p, desk, books)
        if hand[STAGE] == FEEDING:
            if take_bits(p, mail, desk, feed, events, times):
                hand[LOOK] = 0
                return DECODE
            end_shot(p, desk, feed, hand, times)
            hand[STAGE] = ANSWERING
        if hand[LOOK]:
            hand[LOOK] = 0
            return DECODE
        if hand[STAGE] == ANSWERING:
            answer(mail, desk, books, feed)
            if load_acquire(control, DRAIN):
                control[OPEN_SHOTS] = count_open(desk[0]) + 1
    return STOPPED
