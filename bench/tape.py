"""Rounds messages of finite shots, made before any clock runs, and compiled loops over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from bench.inline import InlineLane
from firmware_sim.shots import Shots
from rtqec.kernels.crc32c import crc32c_words
from rtqec.kernels.ingest import ingest_message
from rtqec.kernels.native import compiled, now_ns, timespec, zmq_recv, zmq_send
from rtqec.plan import Plan
from rtqec.wire import (
    REQUEST_MAGIC,
    ROUNDS_FUNCTION,
    ROUNDS_HEADER,
    ROUNDS_HEADER_BYTES,
    RPC_HEADER_BYTES,
    VERSION,
    RoundFlag,
    padded,
)

_FLAGS_WORD, _SEQUENCE_WORD, _SHOT_WORD, _CRC_WORD = 3, 4, 5, 9
_NO_FLAGS = RoundFlag(0)
_CRC = np.uint64(RoundFlag.CRC)
_SHIFT16 = np.uint64(16)
_HIGH32 = np.uint64(0xFFFFFFFF00000000)
_LOW32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)


@compiled
def number_messages(words: Any, sizes: Any, first_sequence: Any, first_shot: Any, per_shot: Any) -> Any:
    """Write sequence and shot of each message, and the checksum of those that say that they have one.

    Args:
        words: uint64, shape (num_messages, stride).
        sizes: int64, shape (num_messages,): bytes of each.
        first_sequence, first_shot: Of the first message.
        per_shot: Messages of a shot.
    """
    for i in range(len(sizes)):
        sequence = np.uint64(first_sequence + i)
        words[i, 1] = (words[i, 1] & _LOW32) | sequence << _SHIFT32
        words[i, _SEQUENCE_WORD] = sequence
        words[i, _SHOT_WORD] = np.uint64(first_shot + i // per_shot)
        words[i, _CRC_WORD] &= _HIGH32
        if (words[i, _FLAGS_WORD] >> _SHIFT16) & _CRC:
            words[i, _CRC_WORD] |= crc32c_words(words[i], sizes[i] // 8, _CRC_WORD, _HIGH32)


@compiled
def ingest_messages(
    tape: Any, sizes: Any, start: Any, stop: Any, feed: Any, message: Any, words: Any, events: Any, times: Any,
    spec: Any,
) -> Any:  # fmt: skip
    """Ingest messages [start, stop), each stamped and copied into the receive buffer as libzmq would."""
    for i in range(start, stop):
        for j in range(sizes[i] // 8):
            words[j] = tape[i, j]
        times[0] = now_ns(spec)
        ingest_message(feed, message, words, sizes[i], times, events)


@compiled
def send_messages(socket: Any, memory: Any, sizes: Any, start: Any, stop: Any) -> Any:
    """Send messages [start, stop); how many the transport took."""
    sent = 0
    for i in range(start, stop):
        sent += zmq_send(socket, memory.ctypes.data + i * memory.shape[1], sizes[i], 0) >= 0
    return sent


@compiled
def drain(socket: Any, count: Any, message: Any) -> Any:
    """Receive `count` messages and look at none; how many came before the socket's timeout."""
    for received in range(count):
        if zmq_recv(socket, message.ctypes.data, message.size, 0) < 0:
            return received
    return count


def lay_messages(
    plan: Plan, rounds_b8: list[NDArray[np.uint8]], widths: list[int], sweep_b8: NDArray[np.uint8] | None = None,
    flags: RoundFlag = _NO_FLAGS,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:  # fmt: skip
    """One message per round of each shot, in order; sequence, shot and checksum are left to `number_messages`.

    Args:
        plan: Named in each message.
        rounds_b8: Of each round uint8, shape (num_shots, bytes of the round), LSB first.
        widths: Bits of each round.
        sweep_b8: uint8, shape (num_shots, sweep_bytes), in whole words; precedes the first round.
        flags: Set in all messages.

    Returns:
        uint8, shape (num_messages, stride), and the bytes of each, int64.
    """
    num_shots, num_rounds = len(rounds_b8[0]), len(rounds_b8)
    sweep_bytes = 0 if sweep_b8 is None else sweep_b8.shape[1]
    room = ROUNDS_HEADER_BYTES + sweep_bytes + padded(max(packed.shape[1] for packed in rounds_b8))
    memory = np.zeros((num_shots, num_rounds, room), np.uint8)
    sizes = np.zeros(num_rounds, np.int64)
    headers = np.zeros((num_shots, num_rounds), ROUNDS_HEADER)
    for t, packed in enumerate(rounds_b8):
        at = ROUNDS_HEADER_BYTES
        if t == 0 and sweep_b8 is not None and sweep_bytes:
            memory[:, t, at : at + sweep_bytes] = sweep_b8
            at += sweep_bytes
        memory[:, t, at : at + packed.shape[1]] = packed
        sizes[t] = at + padded(packed.shape[1])
    headers["magic"], headers["function_id"], headers["version"] = REQUEST_MAGIC, ROUNDS_FUNCTION, VERSION
    headers["arg_len"], headers["bits_per_round"] = sizes - RPC_HEADER_BYTES, widths
    headers["first_round"], headers["num_rounds"] = np.arange(num_rounds), 1
    headers["source_epoch"], headers["plan_tag"], headers["flags"] = 1, plan.tag, np.uint16(flags)
    headers["flags"][:, 0] |= np.uint16(RoundFlag.FIRST | (RoundFlag.SWEEP if sweep_bytes else 0))
    headers["flags"][:, -1] |= np.uint16(RoundFlag.LAST)
    memory[:, :, :ROUNDS_HEADER_BYTES] = headers.view(np.uint8).reshape(*headers.shape, -1)
    return memory.reshape(num_shots * num_rounds, room), np.tile(sizes, num_shots)


class Tape:
    """Messages of one round each, with checksums.

    Args:
        plan: A finite plan.
        shots: Its shots as the wire carries them.

    Attributes:
        words: uint64, shape (num_messages, stride); `memory` is the same as uint8.
        sizes: int64, shape (num_messages,): bytes of each.
        num_rounds: Rounds, and messages, of a shot.
    """

    def __init__(self, plan: Plan, shots: Shots) -> None:
        self.num_rounds = shots.num_rounds
        assert len(shots.messages) == self.num_rounds, "one round per message"
        table = shots.messages.tolist()
        rounds = [shots.rounds_b8[:, offset : offset + num_bytes] for _, _, offset, num_bytes, _ in table]
        widths = [bits for *_, bits in table]
        self.memory, self.sizes = lay_messages(plan, rounds, widths, shots.sweep_b8, RoundFlag.CRC)
        self.words: NDArray[np.uint64] = self.memory.view(np.uint64)
        self._next_sequence = self._next_shot = 0

    def __len__(self) -> int:
        return len(self.sizes)

    def follow(self, lane: InlineLane) -> None:
        """Let the next pass follow what the lane has had so far."""
        totals = lane.telemetry.totals()
        self._next_sequence, self._next_shot = totals["messages"], totals["shots"]

    def renumber(self) -> None:
        """Let the messages follow those of the pass before, so that they can be sent once more."""
        number_messages(self.words, self.sizes, self._next_sequence, self._next_shot, self.num_rounds)
        self._next_sequence += len(self)
        self._next_shot += len(self) // self.num_rounds

    def ingest(self, lane: InlineLane, start: int, stop: int) -> None:
        """Let a lane ingest messages [start, stop), without a socket."""
        intake = lane.intake
        ingest_messages(
            self.words, self.sizes, start, stop, intake.feed, intake.message, intake.words, intake.events,
            intake.times, _SPEC,
        )  # fmt: skip

    def send(self, socket: zmq.Socket[bytes], start: int, stop: int) -> int:
        """Send messages [start, stop); how many the transport took."""
        return int(send_messages(socket.underlying, self.memory, self.sizes, start, stop))


_SPEC = timespec()
