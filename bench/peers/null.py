"""Nothing: the harness's own floor."""

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba import types

from bench.peers.peer import Decoded, Peer, Shots, Task, Watch
from rtqec.kernels.native import compiled, now_ns, timespec

_CALLS = 1_000_000

# A C function that does next to nothing, under a name that the compiler does not know.
llvm.add_symbol("rtqec_bench_nothing", ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value)
_nothing = types.ExternalFunction("rtqec_bench_nothing", types.int32(types.int32))


@compiled
def play_nothing(num_shots: Any, num_rounds: Any, reaction_ns: Any, spec: Any) -> Any:
    """Call nothing once per round, and answer nothing."""
    answer = 0
    for shot in range(num_shots):
        handed_ns = now_ns(spec)
        for t in range(num_rounds):
            if t == num_rounds - 1:
                handed_ns = now_ns(spec)
            answer += _nothing(0)
        reaction_ns[shot] = now_ns(spec) - handed_ns
    return answer


def door_ns() -> float:
    """What a call of a C function costs from a compiled loop, ns."""
    reaction, watch = np.zeros(1, np.int64), Watch()
    play_nothing(1, 1, reaction, timespec())
    with watch:
        play_nothing(1, _CALLS, reaction, timespec())
    return watch.cpu_ns / _CALLS


class Null(Peer):
    """Answers zeros, after one call per round that does nothing."""

    name = "null"
    takes = "rounds"
    given = "nothing"
    method = "answers zeros"
    answers = True

    def __init__(self, task: Task) -> None:
        self._num_rounds, self._num_observables = task.num_rounds, task.num_observables

    def decode(self, shots: Shots) -> Decoded:
        """See `Peer.decode`."""
        reaction, spec, watch = np.zeros(len(shots), np.int64), timespec(), Watch()
        play_nothing(0, 0, reaction, spec)
        with watch:
            play_nothing(len(shots), self._num_rounds, reaction, spec)
        flips = np.zeros((len(shots), self._num_observables), np.bool_)
        return Decoded(flips, watch.cpu_ns, watch.wall_ns, reaction)
