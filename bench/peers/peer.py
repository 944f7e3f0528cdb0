"""What `rtqec-bench compare` asks of a decoder."""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rtqec.config import Config
from rtqec.plan import Plan
from rtqec.plan.experiment import Experiment
from rtqec.plan.rounds import RoundMap

_SHOTS_AT_ONCE = 256
"""Shots that are laid out in a library's own form before the clocks start: such forms take up to 10 KiB a shot."""


class CannotDecodeError(Exception):
    """A decoder does not fit an experiment; the message says why, and stands in the table beside its name."""


@dataclass(frozen=True, eq=False)
class Task:
    """What decoders are prepared for.

    Attributes:
        config: The deployment.
        plan: As the daemon would compile it: endless for a stream.
        experiment: The circuit and the error model of the shots; of a longer stream, of a short piece whose first and
            last windows are the stream's, and whose middle is its bulk.
        rounds: The rounds of `experiment`.
        num_rounds: Rounds of a shot, the data readout included.
        stream: Whether a shot is a stream that would go on for ever, of which one has been cut off.
    """

    config: Config
    plan: Plan
    experiment: Experiment
    rounds: RoundMap
    num_rounds: int
    stream: bool

    @property
    def whole(self) -> bool:
        """Whether `experiment` is that of a whole shot."""
        return self.num_rounds == self.rounds.num_rounds

    @property
    def num_observables(self) -> int:
        """Observables of the circuit, whatever else the plan follows."""
        return int(self.experiment.own_dem.num_observables)

    @cached_property
    def detector_starts(self) -> NDArray[np.int64]:
        """First detector of each round in order of time, and their number, int64, shape (num_rounds + 1,)."""
        return starts_of(self._stretched(self.rounds.detectors_per_layer))

    @cached_property
    def block_starts(self) -> NDArray[np.int64]:
        """First measurement of each round, and their number, int64, shape (num_rounds + 1,)."""
        return starts_of(self._stretched(self.rounds.block_widths))

    def _stretched(self, per_round: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of the piece as of the whole shot: its middle is repeated."""
        middle = len(per_round) // 2
        repeats = np.ones(len(per_round), np.int64)
        repeats[middle] += self.num_rounds - len(per_round)
        return np.repeat(per_round, repeats)


def starts_of(widths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of some pieces begins, and their sum."""
    return np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)


@dataclass(frozen=True)
class Shots:
    """The same shots for every decoder, laid out before any clock runs.

    Attributes:
        measurements: bool, shape (num_shots, num_measurements), in the circuit's order.
        detection_events: bool, shape (num_shots, num_detectors), in the circuit's order.
        events_by_time: The same in order of round.
        observable_flips: bool, shape (num_shots, num_observables): the truth.
    """

    measurements: NDArray[np.bool_]
    detection_events: NDArray[np.bool_]
    events_by_time: NDArray[np.bool_]
    observable_flips: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.detection_events)

    def some(self, start: int, stop: int) -> Shots:
        """Shots [start, stop)."""
        return Shots(
            self.measurements[start:stop],
            self.detection_events[start:stop],
            self.events_by_time[start:stop],
            self.observable_flips[start:stop],
        )


@dataclass(frozen=True)
class Decoded:
    """What a decoder made of some shots.

    Attributes:
        observable_flips: bool, shape (num_shots, num_observables).
        cpu_ns: CPU time of the thread (of the process, where it has threads of its own) for all of them.
        wall_ns: Wall-clock time for all of them.
        reaction_ns: int64, from handing over the last round that an answer needs to the answer, wall clock: of each
            shot the last answer, of a stream all of them. Empty where all shots are taken at once.
        door_ns: What one call costs that does nothing, by the same way, where the library is called in another way
            than its own users would.
    """

    observable_flips: NDArray[np.bool_]
    cpu_ns: int
    wall_ns: int
    reaction_ns: NDArray[np.int64]
    door_ns: float | None = None


class Watch:
    """CPU and wall-clock time of some code, without garbage collection. A context manager; times add up.

    Args:
        threads: Whether all threads of the process count.
    """

    def __init__(self, threads: bool = False) -> None:
        self.cpu_ns = self.wall_ns = 0
        self._clock: Callable[[], int] = time.process_time_ns if threads else time.thread_time_ns

    def __enter__(self) -> Watch:
        self._collects = gc.isenabled()
        gc.disable()
        self._began = (time.perf_counter_ns(), self._clock())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        cpu_ns, wall_ns = self._clock(), time.perf_counter_ns()
        self.wall_ns += wall_ns - self._began[0]
        self.cpu_ns += cpu_ns - self._began[1]
        if self._collects:
            gc.enable()


class Peer(ABC):
    """A decoder as its own users run it, for one experiment.

    A subclass lives in a module of its own, which imports the library at its top: the module is imported only when the
    peer is wanted, and an `ImportError` means that it is not installed.

    Attributes:
        name: As the table shows it.
        package: The distribution whose version counts, or None for what is written here.
        takes: "rounds": one call per round, as a stream would bring them; "shots": one call per shot; "batch": one call
            for all shots.
        given: "measurements", raw as the hardware sends them, or "events": somebody else has folded them.
        method: What it does, in a few words.
        answers: Whether it answers while rounds come, so that it can take a stream.
        threads: Whether it has threads of its own, whose CPU time counts.
        shots_max: So many shots are enough: it is slow.
        rounds_max: Streams are cut into pieces of so many rounds: what it holds grows with them.
    """

    name: ClassVar[str]
    package: ClassVar[str | None] = None
    takes: ClassVar[str]
    given: ClassVar[str] = "events"
    method: ClassVar[str]
    answers: ClassVar[bool] = False
    threads: ClassVar[bool] = False
    shots_max: ClassVar[int | None] = None
    rounds_max: ClassVar[int | None] = None

    @abstractmethod
    def __init__(self, task: Task) -> None:
        """Prepare everything that can be prepared before the first shot.

        Raises:
            CannotDecodeError: It cannot decode this experiment; the message says why.
        """

    @abstractmethod
    def decode(self, shots: Shots) -> Decoded:
        """Decode shots one after the other, as rounds would bring them, with the clocks around the decoder only."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what it holds."""


class ShotPeer(Peer):
    """A decoder that takes one shot per call."""

    takes = "shots"

    @abstractmethod
    def lay(self, shots: Shots) -> Sequence[Any]:
        """The shots in the library's own form, one entry each."""

    @abstractmethod
    def call(self) -> Callable[[Any], Any]:
        """What is called with each entry."""

    def flips(self, answers: list[Any]) -> NDArray[np.bool_]:
        """Observable flips from answers, bool, shape (num_shots, num_observables)."""
        return np.array(answers, np.bool_).reshape(len(answers), -1)

    def decode(self, shots: Shots) -> Decoded:
        """See `Peer.decode`."""
        watch, call, clock = Watch(self.threads), self.call(), time.perf_counter_ns
        answers: list[Any] = []
        reaction = np.zeros(len(shots), np.int64)
        for start in range(0, len(shots), _SHOTS_AT_ONCE):
            entries = self.lay(shots.some(start, start + _SHOTS_AT_ONCE))
            with watch:
                for i, entry in enumerate(entries, start):
                    handed = clock()
                    answers.append(call(entry))
                    reaction[i] = clock() - handed
        return Decoded(self.flips(answers), watch.cpu_ns, watch.wall_ns, reaction)
