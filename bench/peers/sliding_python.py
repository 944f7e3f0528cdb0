"""PyMatching through sliding windows in plain Python: what a user would write in an afternoon, written well.

The arithmetic is that of Dennis, Kitaev, Landahl, Preskill, J. Math. Phys. 43, 4452 (2002), section VI, with the window
and the commit region of the plan that it is compared with. Each window looks at W rounds of detection events. Edges
that begin in its first C rounds are final: they flip observables, and detectors of the rounds behind, whose events
change before the next window looks at them. `faults_matrix` makes PyMatching answer exactly these flips, so that a
window is one `decode` and two XORs. One matcher per distinct window, made beforehand.

It is handed detection events, round by round: folding raw measurements is left to whoever calls it, which rtqec does
itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pymatching
from numpy.typing import NDArray
from scipy.sparse import vstack

from bench.peers.graph import BOUNDARY, Edges, matrix_of, task_edges
from bench.peers.peer import CannotDecodeError, Decoded, Peer, Shots, Task, Watch
from rtqec.plan.schedule import WindowRounds, windows_of_shot

_SHOTS_AT_ONCE = 64


@dataclass(frozen=True)
class _Window:
    """A window of a shot.

    Attributes:
        last_round: With this round it can be decoded.
        start, stop: Its detectors.
        seam_start, seam_stop: Detectors whose events its decisions may change.
        matching: Answers with observables, then one bit per seam detector.
    """

    last_round: int
    start: int
    stop: int
    seam_start: int
    seam_stop: int
    matching: pymatching.Matching


class SlidingWindows:
    """Decodes one shot after the other.

    Args:
        task: Its windows are the plan's.

    Attributes:
        closing: For each round, whether a window can be decoded with this round.
        flips: uint8, shape (num_observables,): what all windows of the shot said so far.
    """

    def __init__(self, task: Task) -> None:
        self.num_observables = task.num_observables
        self.starts: list[int] = task.detector_starts.tolist()
        windows = _all_windows(task, _piece_windows(task, task_edges(task, by_time=True)))
        closing = np.zeros(task.num_rounds, np.bool_)
        closing[[window.last_round for window in windows]] = True
        self.closing: list[bool] = closing.tolist()
        self._syndrome = np.zeros(self.starts[-1], np.uint8)
        # Views are made once: a slice costs as much as the XOR of a round.
        self._rounds = [self._syndrome[a:b] for a, b in zip(self.starts, self.starts[1:], strict=False)]
        self._windows = [
            (self._syndrome[w.start : w.stop], self._syndrome[w.seam_start : w.seam_stop], w.matching.decode)
            for w in windows
        ]
        self.begin()

    def begin(self) -> None:
        """Begin a shot."""
        self._syndrome[:] = 0
        self.flips = np.zeros(self.num_observables, np.uint8)
        self._round = self._window = 0

    def push(self, events: NDArray[np.uint8]) -> None:
        """Take the detection events of the next round, uint8; decode a window where that completes one."""
        known = self._rounds[self._round]
        known ^= events  # Earlier decisions may have changed them already.
        if self.closing[self._round]:
            seen, seam, decode = self._windows[self._window]
            answer = decode(seen)
            self.flips ^= answer[: self.num_observables]
            seam ^= answer[self.num_observables :]
            self._window += 1
        self._round += 1


def _piece_windows(task: Task, edges: Edges) -> list[_Window]:
    """The windows of the task's experiment; equal ones share a matcher."""
    starts = task.detector_starts if task.whole else np.searchsorted(
        np.sort(task.rounds.detector_round), np.arange(task.rounds.num_rounds + 1)
    )  # fmt: skip
    rounds = np.repeat(np.arange(task.rounds.num_rounds), np.diff(starts))
    known: dict[bytes, pymatching.Matching] = {}
    return [
        _window(edges, starts, rounds, window, known)
        for window in windows_of_shot(task.rounds.num_rounds, task.plan.window)
    ]


def _window(
    edges: Edges, starts: NDArray[np.int64], rounds: NDArray[np.int64], window: WindowRounds,
    known: dict[bytes, pymatching.Matching],
) -> _Window:  # fmt: skip
    first_round = rounds[edges.detectors[:, 0]]
    start, stop, seam = int(starts[window.start]), int(starts[window.stop]), int(starts[window.commit_stop])
    inside = (first_round >= window.start) & (first_round < window.stop)
    final = (first_round < window.commit_stop)[inside]
    detectors, observables = edges.detectors[inside], edges.observables[inside]
    flipped = np.where((detectors >= seam) & (detectors < stop) & final[:, np.newaxis], detectors - seam, BOUNDARY)
    seam_stop = seam + int(flipped.max(initial=BOUNDARY)) + 1
    faults = vstack([(observables & final[:, np.newaxis]).T.astype(np.uint8), matrix_of(flipped, seam_stop - seam)])
    visible = np.where((detectors >= start) & (detectors < stop), detectors - start, BOUNDARY)
    weights = edges.weights[inside]
    content = b"".join([visible.tobytes(), np.round(weights, 9).tobytes(), faults.toarray().tobytes()])
    if content not in known:
        known[content] = pymatching.Matching(
            matrix_of(visible, stop - start), weights=weights, faults_matrix=faults, merge_strategy="independent",
            use_virtual_boundary_node=True,
        )  # fmt: skip
    return _Window(window.stop - 1, start, stop, seam, seam_stop, known[content])


def _all_windows(task: Task, piece: list[_Window]) -> list[_Window]:
    """The windows of a shot, from those of a piece of it: the middle one stands for all in between.

    Raises:
        CannotDecodeError: The middle of the piece does not repeat.
    """
    if task.whole:
        return piece
    middle = len(piece) // 2
    if (
        piece[middle - 1].matching is not piece[middle].matching
        or piece[middle + 1].matching is not piece[middle].matching
    ):
        raise CannotDecodeError("the windows in the middle of a shot are not alike")
    more = (task.num_rounds - task.rounds.num_rounds) // task.plan.window.commit_rounds
    per_window = piece[middle + 1].start - piece[middle].start
    commit = task.plan.window.commit_rounds
    bulk = [_moved(piece[middle], k * commit, k * per_window) for k in range(more)]
    return [*piece[:middle], *bulk, *(_moved(window, more * commit, more * per_window) for window in piece[middle:])]


def _moved(window: _Window, rounds: int, detectors: int) -> _Window:
    """The same window, later."""
    return _Window(
        window.last_round + rounds, window.start + detectors, window.stop + detectors, window.seam_start + detectors,
        window.seam_stop + detectors, window.matching,
    )  # fmt: skip


class SlidingPython(Peer):
    """One `push` per round."""

    name = "sliding_python"
    takes = "rounds"
    method = "PyMatching, windows in Python"
    answers = True

    def __init__(self, task: Task) -> None:
        self._stream = task.stream
        self._windows = SlidingWindows(task)

    def decode(self, shots: Shots) -> Decoded:
        """See `Peer.decode`."""
        watch, windows, clock = Watch(), self._windows, time.perf_counter_ns
        closing = windows.closing
        flips = np.zeros((len(shots), windows.num_observables), np.bool_)
        reaction: list[int] = []
        for start in range(0, len(shots), _SHOTS_AT_ONCE):
            events = shots.events_by_time[start : start + _SHOTS_AT_ONCE].astype(np.uint8)
            laid = [[shot[a:b] for a, b in zip(windows.starts, windows.starts[1:], strict=False)] for shot in events]
            for i, shot in enumerate(laid, start):
                windows.begin()
                taken: list[int] = []
                with watch:
                    for events_of_round, closes in zip(shot, closing, strict=True):
                        if not closes:
                            windows.push(events_of_round)
                            continue
                        handed = clock()
                        windows.push(events_of_round)
                        taken.append(clock() - handed)
                flips[i] = windows.flips
                reaction += taken if self._stream else taken[-1:]
        return Decoded(flips, watch.cpu_ns, watch.wall_ns, np.array(reaction, np.int64))
