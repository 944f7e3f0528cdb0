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

_SEQUENCE_WORD, _SHOT_WORD, _CRC_WORD = 4, 5, 9
_HIGH32 = np.uint64(0xFFFFFFFF00000000)
_LOW32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)


@compiled
def number_messages(words: Any, sizes: Any, first_sequence: Any, first_shot: Any, per_shot: Any) -> Any:
    """Write sequence, shot and checksum of each message of a tape; see `Tape`."""
    for i in range(len(sizes)):
        sequence = np.uint64(first_sequence + i)
        words[i, 1] = (words[i, 1] & _LOW32) | sequence << _SHIFT32
        words[i, _SEQUENCE_WORD] = sequence
        words[i, _SHOT_WORD] = np.uint64(first_shot + i // per_shot)
        words[i, _CRC_WORD] &= _HIGH32
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


class Tape:
    """Messages of one round each.

    Args:
        plan: A finite plan.
        shots: Its shots as the wire carries them.

    Attributes:
        words: uint64, shape (num_messages, stride); `memory` is the same as uint8.
        sizes: int64, shape (num_messages,): bytes of each.
        num_rounds: Rounds, and messages, of a shot.
    """

    def __init__(self, plan: Plan, shots: Shots) -> None:
        num_shots, table = shots.num_shots, shots.messages
        self.num_rounds = shots.num_rounds
        assert len(table) == self.num_rounds, "one round per message"
        sweep = shots.sweep_b8.shape[1]
        room = ROUNDS_HEADER_BYTES + sweep + padded(int(table[:, 3].max()))
        self.memory: NDArray[np.uint8] = np.zeros((num_shots * self.num_rounds, room), np.uint8)
        self.words: NDArray[np.uint64] = self.memory.view(np.uint64)
        by_shot = self.memory.reshape(num_shots, self.num_rounds, room)
        headers = np.zeros((num_shots, self.num_rounds), ROUNDS_HEADER)
        sizes = np.zeros(self.num_rounds, np.int64)
        for i, (first, count, offset, num_bytes, bits) in enumerate(table.tolist()):
            at = ROUNDS_HEADER_BYTES
            flags = RoundFlag.CRC
            if first == 0:
                flags |= RoundFlag.FIRST
                if sweep:
                    flags |= RoundFlag.SWEEP
                    by_shot[:, i, at : at + sweep] = shots.sweep_b8
                    at += sweep
            if i == self.num_rounds - 1:
                flags |= RoundFlag.LAST
            by_shot[:, i, at : at + num_bytes] = shots.rounds_b8[:, offset : offset + num_bytes]
            sizes[i] = at + padded(num_bytes)
            header = headers[:, i]
            header["flags"], header["first_round"], header["num_rounds"] = flags, first, count
            header["bits_per_round"], header["arg_len"] = bits, sizes[i] - RPC_HEADER_BYTES
        headers["magic"], headers["function_id"] = REQUEST_MAGIC, ROUNDS_FUNCTION
        headers["version"], headers["plan_tag"], headers["source_epoch"] = VERSION, plan.tag, 1
        by_shot[:, :, :ROUNDS_HEADER_BYTES] = headers.view(np.uint8).reshape(*headers.shape, -1)
        self.sizes = np.tile(sizes, num_shots)
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
