"""The same windows as `sliding_python`, as a script that does the whole of rtqec's job.

Raw measurement messages in, corrections out: it reads the header, unpacks the bits, folds them into detection events
with the round before, decodes windows as they close, and sends each answer through a ZeroMQ socket with a peer. What a
user's script would have to do to stand where the daemon stands, without checks, deadlines and accounts of loss. As for
rtqec, receiving from a socket is not counted.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import numpy as np
import zmq
from numpy.typing import NDArray

from bench.peers.own_path import messages_of
from bench.peers.peer import CannotDecodeError, Decoded, Peer, Shots, Task, Watch
from bench.peers.sliding_python import SlidingWindows
from rtqec.plan.folding import FoldProgram
from rtqec.wire import ROUNDS_HEADER, ROUNDS_HEADER_BYTES

_ROUND = struct.Struct("<Q")
_ROUND_OFFSET = ROUNDS_HEADER.fields["first_round"][1] if ROUNDS_HEADER.fields else 0
_ANSWER = struct.Struct("<QQQ")
_SHOTS_AT_ONCE = 64

Bits = NDArray[np.uint8]
Fold = Callable[[Bits, Bits], Bits]


def fold_of(program: FoldProgram, width_before: int) -> Fold:
    """Detection events of a round from its measurements and those of the round before, uint8 each.

    Raises:
        CannotDecodeError: Detectors that look further back.
    """
    if program.look_back > 1 or len(program.sweeps):
        raise CannotDecodeError("the script folds detectors of two consecutive rounds, without sweep bits")
    constants = program.constants.astype(np.uint8)
    if program.diagonal_back and not constants.any():
        return np.bitwise_xor
    # A sum of bytes keeps its parity when it overflows.
    matrix = np.zeros((program.num_detectors, program.num_measurements + width_before), np.uint8)
    slot, back, measurement = program.sources.T
    matrix[slot, measurement + back * program.num_measurements] = 1

    def fold(measured: Bits, earlier: Bits) -> Bits:
        events: Bits = (matrix @ np.concatenate([measured, earlier]) & 1) ^ constants
        return events

    return fold


class SlidingScript(Peer):
    """One message per round; see the module."""

    name = "sliding_script"
    takes = "rounds"
    given = "measurements"
    method = "PyMatching, windows in Python, messages in and out"
    answers = True

    def __init__(self, task: Task) -> None:
        self._task = task
        self._windows = SlidingWindows(task)
        self._widths: list[int] = np.diff(task.block_starts).tolist()
        self._folds: list[Fold] = []
        known: dict[tuple[int, int], Fold] = {}
        for t, width_before in enumerate([self._widths[0], *self._widths[:-1]]):
            program = task.plan.layer(t, t == task.num_rounds - 1).program
            assert program is not None
            key = (id(program), width_before)
            if key not in known:
                known[key] = fold_of(program, width_before)
            self._folds.append(known[key])
        self._context = zmq.Context()
        self._push: zmq.Socket[bytes] = self._context.socket(zmq.PUSH)
        self._pull: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        for socket in (self._push, self._pull):
            socket.set_hwm(0)
            socket.setsockopt(zmq.LINGER, 0)
        self._push.bind("ipc://*")
        self._pull.connect(self._push.get_string(zmq.LAST_ENDPOINT))

    def close(self) -> None:
        """See `Peer.close`."""
        self._push.close()
        self._pull.close()
        self._context.term()

    def decode(self, shots: Shots) -> Decoded:
        """See `Peer.decode`."""
        watch, num_rounds = Watch(), self._task.num_rounds
        flips = np.zeros((len(shots), self._windows.num_observables), np.bool_)
        reaction: list[int] = []
        for start in range(0, len(shots), _SHOTS_AT_ONCE):
            tape, sizes = messages_of(self._task, shots.some(start, start + _SHOTS_AT_ONCE), 0, start)
            memory = tape.view(np.uint8)
            messages = [memory[i, :size].tobytes() for i, size in enumerate(sizes.tolist())]
            for i in range(len(messages) // num_rounds):
                shot = messages[i * num_rounds : (i + 1) * num_rounds]
                with watch:
                    taken = self._shot(shot)
                flips[start + i] = self._windows.flips
                reaction += taken if self._task.stream else taken[-1:]
                for _ in taken:
                    self._pull.recv()
        return Decoded(flips, watch.cpu_ns, watch.wall_ns, np.array(reaction, np.int64))

    def _shot(self, messages: list[bytes]) -> list[int]:
        """Decode one shot; what each of its answers took, ns."""
        windows, folds, widths, clock = self._windows, self._folds, self._widths, time.perf_counter_ns
        closing, send, taken = windows.closing, self._push.send, list[int]()
        windows.begin()
        before = np.zeros(widths[0], np.uint8)
        for message in messages:
            handed = clock()
            (t,) = _ROUND.unpack_from(message, _ROUND_OFFSET)
            packed = np.frombuffer(message, np.uint8, offset=ROUNDS_HEADER_BYTES)
            measured = np.unpackbits(packed, count=widths[t], bitorder="little")
            windows.push(folds[t](measured, before))
            before = measured
            if closing[t]:
                send(_ANSWER.pack(t, len(taken), int(windows.flips[0])))
                taken.append(clock() - handed)
        return taken
