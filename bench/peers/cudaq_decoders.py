"""The CPU decoders of cudaq-qec that suit a surface code, by the way that its Python users call them.

A syndrome goes in as a list of floats, laid out before the clocks start: of the forms that 0.8.1 takes it was the
fastest.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers.graph import Edges, task_edges
from bench.peers.peer import CannotDecodeError, Decoded, Peer, ShotPeer, Shots, Task, Watch

with warnings.catch_warnings():
    # cudaq announces changes of its own primitives, which are not used here.
    warnings.simplefilter("ignore")
    library = import_module("cudaq_qec")

PACKAGE = "cudaq-qec"
MERGED = "independent"
"""How it merges parallel edges: as PyMatching does with an error model."""


def sliding_options(task: Task, edges: Edges) -> dict[str, Any]:
    """Options of `sliding_window`: the plan's windows, or slightly longer ones.

    It asks that the rounds behind the first window are whole steps; a plan's last window takes what is left instead.

    Raises:
        CannotDecodeError: The rounds of this experiment are not as it wants them.
    """
    widths = task.rounds.detectors_per_layer
    bulk, first, last = int(widths[len(widths) // 2]), int(widths[0]), int(widths[-1])
    if (widths[1:-1] != bulk).any() or first != last or first > bulk:
        raise CannotDecodeError("it wants equally many detectors in all rounds but the first and the last")
    num_rounds, commit, window = len(widths), task.plan.window.commit_rounds, task.plan.window.rounds
    window = min(num_rounds, window + (num_rounds - window) % commit)
    options = {
        "error_rate_vec": edges.probabilities.tolist(), "window_size": window, "step_size": min(commit, window),
        "num_syndromes_per_round": bulk, "inner_decoder_name": "pymatching",
        "inner_decoder_params": {"merge_strategy": MERGED},
    }  # fmt: skip
    if first < bulk:
        options["num_boundary_syndromes"] = first
    return options


def floats(rows: NDArray[np.bool_]) -> list[list[float]]:
    """Bits as lists of floats that share their objects."""
    values = (0.0, 1.0)
    return [[values[bit] for bit in row] for row in rows.tolist()]


class _ObservablePeer(ShotPeer):
    """A decoder that answers with observables."""

    package = PACKAGE
    _decoder: Any

    def lay(self, shots: Shots) -> Sequence[Any]:
        """Lists of floats."""
        return floats(shots.events_by_time)

    def call(self) -> Callable[[Any], Any]:
        """See `ShotPeer.call`."""
        decode: Callable[[Any], Any] = self._decoder.decode
        return decode

    def flips(self, answers: list[Any]) -> NDArray[np.bool_]:
        """See `ShotPeer.flips`."""
        return np.array([answer.result for answer in answers]) > 0.5


class CudaqMatching(_ObservablePeer):
    """`pymatching`, given the observables, so that it need not list errors."""

    name = "cudaq_pymatching"
    method = "PyMatching"

    def __init__(self, task: Task) -> None:
        edges = task_edges(task, by_time=True)
        self._decoder = library.get_decoder(
            "pymatching", edges.check_matrix(), O=edges.observable_matrix().toarray(),
            error_rate_vec=edges.probabilities.tolist(), merge_strategy=MERGED,
        )  # fmt: skip


class CudaqFusion(_ObservablePeer):
    """`nv-fusion-decoder` with one thread. Up to 192 rounds its documentation has it decode the shot in one block."""

    name = "cudaq_nv_fusion"
    method = "matching by fusion"
    threads = True

    def __init__(self, task: Task) -> None:
        self._decoder = library.get_decoder("nv-fusion-decoder", str(task.experiment.own_dem), num_threads=1)

    def lay(self, shots: Shots) -> Sequence[Any]:
        """Lists of floats, in the model's own order."""
        return floats(shots.detection_events)


class CudaqSliding(Peer):
    """`sliding_window` with PyMatching inside, one `decode` per round: it answers with the errors of the whole shot.

    It makes one inner decoder per window, whether they are equal or not, in time that grows as the square of the
    rounds: 1000 rounds 1 s, 10,000 rounds 128 s (0.8.1, 2 cores of an EPYC, 2026-11-21).
    """

    name = "cudaq_sliding_window"
    package = PACKAGE
    takes = "rounds"
    method = "PyMatching, windows"
    answers = True
    rounds_max = 1000

    def __init__(self, task: Task) -> None:
        edges = task_edges(task, by_time=True)
        self._starts: list[int] = task.detector_starts.tolist()
        self._observables = edges.observable_matrix()
        self._decoder = library.get_decoder("sliding_window", edges.check_matrix(), **sliding_options(task, edges))

    def decode(self, shots: Shots) -> Decoded:
        """See `Peer.decode`."""
        watch, decode, observables, clock = Watch(), self._decoder.decode, self._observables, time.perf_counter_ns
        flips, reaction = [], np.zeros(len(shots), np.int64)
        for i, events in enumerate(shots.events_by_time):
            shot = floats(events[np.newaxis])[0]
            *rounds, last = [shot[a:b] for a, b in zip(self._starts, self._starts[1:], strict=False)]
            with watch:
                for events_of_round in rounds:
                    decode(events_of_round)
                handed = clock()
                flips.append(observables @ decode(last).result)
                reaction[i] = clock() - handed
        return Decoded(np.array(flips) % 2 > 0.5, watch.cpu_ns, watch.wall_ns, reaction)
