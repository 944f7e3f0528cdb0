"""cudaq-qec's own real-time path in this process: raw measurements, one call per round.

Decoders are configured through the library's Python module; then the C++ functions behind its kernels'
`enqueue_syndromes`, `get_corrections` and `reset_decoder` are called, from one compiled loop, so that no Python is
charged to them. They are found by their mangled names in the library that the module itself has loaded. One shot is one
`enqueue` per round, the data readout included, then `get`, then `reset`.
"""

from __future__ import annotations

import ctypes
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import llvmlite.binding as llvm
import numpy as np
import stim
from numba import types
from numpy.typing import NDArray

from bench.peers.cudaq_decoders import MERGED, PACKAGE, library, sliding_options
from bench.peers.graph import task_edges
from bench.peers.null import door_ns
from bench.peers.peer import CannotDecodeError, Decoded, Peer, Shots, Task, Watch
from rtqec.kernels.native import compiled, now_ns, timespec
from rtqec.plan.rounds import MEASURING

_LIBRARY = Path(str(library.__file__)).parent / "lib" / "libcudaq-qec-realtime-decoding.so"
_SYMBOLS = {
    "enqueue": "_ZN5cudaq3qec8decoding4host17enqueue_syndromesEmPhmm",
    "get": "_ZN5cudaq3qec8decoding4host15get_correctionsEmPhmb",
    "reset": "_ZN5cudaq3qec8decoding4host13reset_decoderEm",
}
try:
    _LOADED = ctypes.CDLL(str(_LIBRARY))
    for _name, _symbol in _SYMBOLS.items():
        llvm.add_symbol(f"rtqec_cudaq_{_name}", ctypes.cast(getattr(_LOADED, _symbol), ctypes.c_void_p).value)
except (OSError, AttributeError) as error:
    raise ImportError(f"this version of cudaq-qec has no such real-time path: {error}") from error

_enqueue = types.ExternalFunction(
    "rtqec_cudaq_enqueue", types.void(types.uint64, types.uintp, types.uint64, types.uint64)
)
_get = types.ExternalFunction("rtqec_cudaq_get", types.void(types.uint64, types.uintp, types.uint64, types.uint64))
_reset = types.ExternalFunction("rtqec_cudaq_reset", types.void(types.uint64))


@compiled
def play_shots(bits: Any, starts: Any, flips: Any, reaction_ns: Any, spec: Any) -> Any:
    """Hand shots over, one call per round.

    Args:
        bits: uint8, shape (num_shots, num_measurements).
        starts: int64, shape (num_rounds + 1,): first measurement of each round.
        flips: uint8, shape (num_shots, num_observables); filled.
        reaction_ns: int64, shape (num_shots,); filled.
        spec: Scratch for the clock.
    """
    num_rounds = len(starts) - 1
    for shot in range(len(bits)):
        at = bits.ctypes.data + shot * bits.shape[1]
        for t in range(num_rounds - 1):
            _enqueue(0, at + starts[t], starts[t + 1] - starts[t], 0)
        handed_ns = now_ns(spec)
        _enqueue(0, at + starts[num_rounds - 1], starts[num_rounds] - starts[num_rounds - 1], 0)
        _get(0, flips.ctypes.data + shot * flips.shape[1], flips.shape[1], 0)
        reaction_ns[shot] = now_ns(spec) - handed_ns
        _reset(0)


@compiled
def time_calls(bits: Any, starts: Any, flips: Any, calls_ns: Any, spec: Any) -> Any:
    """As `play_shots`, with a clock around every call.

    Args:
        calls_ns: int64, shape (num_shots, num_rounds + 1): of each round's `enqueue`, then of `get`; filled.
    """
    num_rounds = len(starts) - 1
    for shot in range(len(bits)):
        at = bits.ctypes.data + shot * bits.shape[1]
        for t in range(num_rounds):
            began_ns = now_ns(spec)
            _enqueue(0, at + starts[t], starts[t + 1] - starts[t], 0)
            calls_ns[shot, t] = now_ns(spec) - began_ns
        began_ns = now_ns(spec)
        _get(0, flips.ctypes.data + shot * flips.shape[1], flips.shape[1], 0)
        calls_ns[shot, num_rounds] = now_ns(spec) - began_ns
        _reset(0)


def measurement_sets(circuit: stim.Circuit) -> list[list[int]]:
    """Which measurements make each detector, in the circuit's order."""
    sets, count = [], 0
    for step in circuit.flattened():
        if step.name == "DETECTOR":
            sets.append([count + target.value for target in step.targets_copy()])
        elif step.name in MEASURING:
            count += len(step.target_groups())
    return sets


def flat(rows: list[list[int]]) -> list[int]:
    """Rows of column numbers one after the other, each ended by -1: the library's form of a matrix."""
    return [value for row in rows for value in (*row, -1)]


class _Realtime(Peer):
    """One decoder behind the path."""

    package = PACKAGE
    takes = "rounds"
    given = "measurements"
    kind: ClassVar[str]

    def __init__(self, task: Task) -> None:
        circuit = task.experiment.circuit
        assert circuit is not None
        sets, order = measurement_sets(circuit), np.argsort(task.rounds.detector_round, kind="stable")
        if any(not measurements for measurements in sets):
            raise CannotDecodeError("it drops detectors that have no measurement")
        # Detectors are read against what the circuit measures without noise.
        self._reference = np.asarray(circuit.reference_sample(), np.bool_)
        self._config = library.decoder_config()
        self._config.id, self._config.type = 0, self.kind
        self._config.D_sparse = flat([sorted(sets[detector]) for detector in order.tolist()])
        self._starts, self._num_observables = task.block_starts, task.num_observables
        self._describe(task)

    @abstractmethod
    def _describe(self, task: Task) -> None:
        """Put the error model into the configuration."""

    def _describe_matrices(self, task: Task, options: dict[str, Any]) -> None:
        edges = task_edges(task, by_time=True)
        check, observables = edges.check_matrix(), edges.observable_matrix()
        self._config.syndrome_size, self._config.block_size = check.shape
        self._config.H_sparse = flat([row.tolist() for row in np.split(check.indices, check.indptr[1:-1])])
        self._config.O_sparse = flat([row.tolist() for row in np.split(observables.indices, observables.indptr[1:-1])])
        self._config.decoder_custom_args = {"error_rate_vec": edges.probabilities.tolist()} | options

    def decode(self, shots: Shots) -> Decoded:
        """See `Peer.decode`."""
        self._configure()
        bits, flips = self._laid_out(shots.measurements)
        reaction, spec, watch = np.zeros(len(shots), np.int64), timespec(), Watch(self.threads)
        play_shots(bits[:0], self._starts, flips[:0], reaction[:0], spec)
        with watch:
            play_shots(bits, self._starts, flips, reaction, spec)
        library.finalize_decoders()
        return Decoded(flips.astype(np.bool_), watch.cpu_ns, watch.wall_ns, reaction, door_ns())

    def time_calls(self, measurements: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Decode shots, bool, shape (num_shots, num_measurements), with a clock around every call.

        Returns:
            Observable flips, bool, shape (num_shots, num_observables); ns of each round's `enqueue` and then of `get`,
            int64, shape (num_shots, num_rounds + 1).

        Raises:
            CannotDecodeError: The library refuses the decoder.
        """
        self._configure()
        bits, flips = self._laid_out(measurements)
        calls_ns, spec = np.zeros((len(bits), len(self._starts)), np.int64), timespec()
        time_calls(bits[:0], self._starts, flips[:0], calls_ns[:0], spec)
        time_calls(bits, self._starts, flips, calls_ns, spec)
        library.finalize_decoders()
        return flips.astype(np.bool_), calls_ns

    def _configure(self) -> None:
        """The library has one set of decoders per process: it is told anew which."""
        every = library.multi_decoder_config()
        every.decoders = [self._config]
        status = library.configure_decoders(every)
        if status != 0:
            raise CannotDecodeError(f"cudaq-qec refuses the configuration: status {status}")

    def _laid_out(self, measurements: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Shots as the library takes them, and room for what it makes of them."""
        bits = np.ascontiguousarray(measurements ^ self._reference).view(np.uint8)
        return bits, np.zeros((len(bits), self._num_observables), np.uint8)


class RealtimeMatching(_Realtime):
    """`pymatching`: rounds are kept until the last one, then the whole shot is matched."""

    name = "cudaq_realtime"
    kind = "pymatching"
    method = "own path, PyMatching at the end"

    def _describe(self, task: Task) -> None:
        self._describe_matrices(task, {"merge_strategy": MERGED})


class RealtimeSliding(_Realtime):
    """`sliding_window` with PyMatching inside.

    It holds the check matrix with all its zeros: 300 rounds of a distance-5 memory take 0.25 GB, and 1000 are refused
    (0.8.1).
    """

    name = "cudaq_realtime_sliding"
    kind = "sliding_window"
    method = "own path, PyMatching, windows"
    answers = True
    rounds_max = 300

    def _describe(self, task: Task) -> None:
        self._describe_matrices(task, sliding_options(task, task_edges(task, by_time=True)))


class RealtimeFusion(_Realtime):
    """`nv-fusion-decoder`, which works while rounds come: one thread.

    Short shots are one block; long ones are cut into blocks of twice the distance, which is what its documentation says
    of shots of more than 192 rounds (0.8.1 itself would take one block). 10,000 rounds take 9 GB and 36 s to prepare.
    """

    name = "cudaq_realtime_fusion"
    kind = "nv-fusion-decoder"
    method = "own path, fusion"
    answers = True
    threads = True
    rounds_max = 1000

    def _describe(self, task: Task) -> None:
        options = {"num_threads": 1}
        if task.num_rounds > _ONE_BLOCK_ROUNDS:
            options["block_leaf_size"] = 2 * task.plan.distance
        self._folder = tempfile.TemporaryDirectory()
        model = Path(self._folder.name) / "model.dem"
        edges = task_edges(task, by_time=True)
        rounds = np.sort(task.rounds.detector_round).tolist()
        places = [f"detector({detector}, 0, {t}) D{detector}" for detector, t in enumerate(rounds)]
        model.write_text("\n".join([edges.as_dem(), *places, ""]))
        self._config.stim_dem_path = str(model)
        self._config.decoder_custom_args = options

    def close(self) -> None:
        """See `Peer.close`."""
        self._folder.cleanup()


_ONE_BLOCK_ROUNDS = 192
