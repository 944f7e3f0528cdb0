"""rtqec's own path, in this process, as the daemon runs it.

What is counted, in CPU time of the thread: every raw measurement message is copied into the receive buffer, as libzmq
would, stamped, checked, folded and placed by the compiled ingest; then, whenever ingest would wake the path, the path's
own loop runs, Python per window: choose and gather, match, commit, publish into a ZeroMQ socket with a peer. The
reaction is from handing over the last message that a correction needs until the correction was handed to the socket.

What is not: receiving from a socket, waking a second thread, the transport's I/O thread. `rtqec-bench stages` has the
first, `rtqec-bench latency` all of them. Messages carry no checksum, which is optional. There is no deadline, so that
an interruption of this process does not change what is decoded.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.inline import InlineLane
from bench.peers.peer import Decoded, Peer, Shots, Task, Watch
from bench.tape import lay_messages, number_messages
from rtqec.kernels.ingest import ingest_message
from rtqec.kernels.native import compiled, entry_of, load_acquire, now_ns, timespec
from rtqec.kernels.records import SIGNAL_SEQUENCE
from rtqec.wire import (
    CORRECTION,
    CorrectionFlag,
)

_ROUNDS_AT_ONCE = 1 << 15
"""Corrections are taken from the socket after so many rounds, so that it never holds many."""


@compiled
def ingest_until_woken(
    tape: Any, sizes: Any, start: Any, stop: Any, signal: Any, feed: Any, message: Any, words: Any, events: Any,
    times: Any, spec: Any,
) -> Any:  # fmt: skip
    """Ingest messages from `start` on, until ingest would wake the path or `stop` is reached; the next message.

    Args:
        tape: uint64, shape (num_messages, stride).
        sizes: int64, shape (num_messages,): bytes of each.
        signal: See `kernels.records`.
        feed, message, words, events, times: See `kernels.ingest`; `times[0]` is when the last one was handed over.
        spec: Scratch for the clock.
    """
    seen = load_acquire(signal, SIGNAL_SEQUENCE)
    for i in range(start, stop):
        for j in range(sizes[i] >> 3):
            words[j] = tape[i, j]
        times[0] = now_ns(spec)
        ingest_message(feed, message, words, sizes[i], times, events)
        if load_acquire(signal, SIGNAL_SEQUENCE) != seen:
            return i + 1
    return stop


def messages_of(
    task: Task, shots: Shots, first_sequence: int, first_shot: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """One message per round, in order.

    Returns:
        uint64, shape (num_messages, stride), and the bytes of each, int64.
    """
    starts = task.block_starts
    rounds = [
        np.packbits(shots.measurements[:, a:b], axis=1, bitorder="little")
        for a, b in itertools.pairwise(starts.tolist())
    ]
    memory, sizes = lay_messages(task.plan, rounds, np.diff(starts).tolist())
    tape = memory.view(np.uint64)
    number_messages(tape, sizes, first_sequence, first_shot, task.num_rounds)
    return tape, sizes


class OwnPath(Peer):
    """One compiled `ingest_message` per round, one `Pipeline.step` per window."""

    name = "rtqec"
    package = "rtqec"
    takes = "rounds"
    given = "measurements"
    method = "the daemon's path, windows"
    answers = True

    def __init__(self, task: Task) -> None:
        config = task.config
        self._task = task
        lane = InlineLane(
            task.plan, config.ladder, ring_rounds=config.feed.ring_rounds, batch_windows=config.lane.batch_windows
        )
        self._stack = ExitStack()
        self._lane = self._stack.enter_context(lane)
        self._spec = timespec()
        self._next_sequence = self._next_shot = 0

    def close(self) -> None:
        """See `Peer.close`."""
        self._stack.close()

    def decode(self, shots: Shots) -> Decoded:
        """See `Peer.decode`."""
        tape, sizes = messages_of(self._task, shots, self._next_sequence, self._next_shot)
        first_shot = self._next_shot
        self._next_sequence += len(tape)
        self._next_shot += len(shots)
        watch, reaction, corrections = Watch(), list[int](), list[NDArray[Any]]()
        play = self._player(tape, sizes)
        for start in range(0, len(tape), _ROUNDS_AT_ONCE):
            stop = min(start + _ROUNDS_AT_ONCE, len(tape))
            with watch:
                took = play(start, stop)
            reaction += took
            corrections.append(self._received(len(took)))
        found = np.concatenate(corrections)
        flips = np.zeros(len(shots), np.uint64)
        np.bitwise_xor.at(flips, found["shot_id"].astype(np.int64) - first_shot, found["flips"])
        bits = flips[:, np.newaxis] >> np.arange(self._task.num_observables, dtype=np.uint64) & np.uint64(1)
        taken = np.array(reaction, np.int64)
        if not self._task.stream:
            taken = taken[(found["flags"] & CorrectionFlag.LAST_OF_SHOT) != 0]
        return Decoded(bits.astype(np.bool_), watch.cpu_ns, watch.wall_ns, taken)

    def _player(self, tape: NDArray[np.uint64], sizes: NDArray[np.int64]) -> Callable[[int, int], list[int]]:
        """What carries messages [start, stop) through the lane, and says what each correction took, ns."""
        lane, spec = self._lane, self._spec
        intake, step, clock = lane.intake, lane.pipeline.step, time.monotonic_ns
        fixed = (intake.feed, intake.message, intake.words, intake.events, intake.times, spec)
        signal, times = lane.ring.signal, intake.times
        ingest = entry_of(ingest_until_woken, tape, sizes, 0, 0, signal, *fixed)

        def play(start: int, stop: int) -> list[int]:
            took = []
            while start < stop:
                start = ingest(tape, sizes, start, stop, signal, *fixed)
                handed = times.item(0)
                while step():
                    took.append(clock() - handed)
            return took

        return play

    def _received(self, count: int) -> NDArray[Any]:
        """The next corrections of the socket, `wire.CORRECTION`, shape (count,)."""
        return np.frombuffer(b"".join(self._lane.corrections.recv() for _ in range(count)), CORRECTION)
