"""The path of one patch behind an exact single-server queue, in this process.

A small shared machine cannot tell what the decoder itself would do: its wall clock also shows who else wanted the core.
Here every step of the real path (choose, gather, match, commit, publish) is measured in CPU time of its thread, and a
queue is computed from that: rounds arrive by the clock of the experiment, a step begins when what it needs has arrived
and the step before it is through. The path sees the queue: only the rounds that have arrived lie in the ring, with the
times at which they arrived, so that it decides as it would. Nobody takes the corrections: reaction ends before a
correction is handed over, and what the transport costs is in `bench.stages` and `bench.rate`.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zmq
from numpy.typing import NDArray

from bench.recorded import Recorded
from rtqec.batch import Streams
from rtqec.commit import Commit
from rtqec.config import LadderTable
from rtqec.kernels.records import HEAD, NEED, STOP, TAIL
from rtqec.match import Match
from rtqec.pipeline import Pipeline
from rtqec.plan import Plan
from rtqec.publish import Publish
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock
from rtqec.units import ns_from_us
from rtqec.window import Window
from rtqec.wire import CorrectionFlag

RING_ROUNDS = 4096
JOURNAL = 1024


@dataclass(frozen=True)
class ServiceRun:
    """What came of a stream of shots.

    Attributes:
        corrections: `wire.CORRECTION`, in order. Their times are of this process, not of the queue.
        arrival_ns: int64, when the last round that each needed arrived, in the queue.
        service_ns: int64, CPU time of the step that made each.
        response_ns: int64, from the arrival of the last round that each needed to the end of its step, in the queue.
        frames: uint64, shape (num_shots,): frame at the end of each shot, amendments included.
        wall_ns: Wall-clock time of all steps together; against the sum of `service_ns` it says how shared the core was.
        backlog_max: Most rounds that waited for an answer.
    """

    corrections: NDArray[np.void]
    arrival_ns: NDArray[np.int64]
    service_ns: NDArray[np.int64]
    response_ns: NDArray[np.int64]
    frames: NDArray[np.uint64]
    wall_ns: int
    backlog_max: int


class ServiceQueue:
    """One patch of a lane. Use as a context manager.

    Args:
        plan: Of an endless one, streams of any length that it can close.
        ladder, budget_us: As configured.
    """

    def __init__(self, plan: Plan, ladder: LadderTable, budget_us: float) -> None:
        self.plan = plan
        self._folder = tempfile.TemporaryDirectory()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self.telemetry = TelemetryBlock.create(Path(self._folder.name) / "service.telemetry", [0], JOURNAL)
        self.ring = Ring([plan], RING_ROUNDS)
        self.streams = Streams([plan], [0], [budget_us], ladder, self.ring, self.telemetry)
        self._pipeline = Pipeline(
            self.streams,
            self.ring,
            Window(self.streams, self.ring, np.zeros(2, np.int64)),
            Match(self.streams.models, 1),
            Commit(self.streams, self.telemetry),
            Publish(self._socket, self.streams, self.telemetry),
            1,
        )
        self._pipeline.warm()
        self.ring.control[STOP] = 1

    def __enter__(self) -> ServiceQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()
        self._folder.cleanup()

    def run(self, layers_b8: NDArray[np.uint8], period_us: float | NDArray[np.float64]) -> ServiceRun:
        """Let shots arrive one after the other.

        Args:
            layers_b8: uint8, shape (num_shots, num_rounds * layer_bytes).
            period_us: From one round to the next; or of each round of the whole stream, float64.
        """
        ring, mask = self.ring, int(self.ring.places[0]["mask"])
        record = Recorded(layers_b8, layers_b8.shape[1] // self.plan.layout.layer_bytes)
        num_rounds, total = record.num_rounds, record.total
        arrivals = np.cumsum(np.broadcast_to(period_us, total) * 1000.0).astype(np.int64)
        written, service, needed, ends = self.telemetry.written, [], [], []
        kept: list[np.void] = []
        wall_ns = backlog_max = 0
        first, first_correction = int(ring.cursors[HEAD]), int(written[0])
        now = answered = 0
        while True:
            head, tail = int(ring.cursors[HEAD]) - first, int(ring.cursors[TAIL]) - first
            stop = min(int(np.searchsorted(arrivals, now, side="right")), tail + mask + 1, total)
            if stop > head:
                record.lay(ring, head, stop, first)
                ring.cursors[HEAD] = first + stop
                head = stop
            offset = time.monotonic_ns() - now
            waiting = np.arange(tail, head)
            ring.slots["received_ns"][(first + waiting) & mask] = arrivals[waiting] + offset
            began, began_cpu = time.perf_counter_ns(), time.thread_time_ns()
            worked = self._pipeline.step()
            took = time.thread_time_ns() - began_cpu
            wall_ns += time.perf_counter_ns() - began
            if not worked:
                if head == total:
                    break
                now = max(now, int(arrivals[self._next_of_interest(head, first, num_rounds) - 1]))
                continue
            now += took
            for correction in self.telemetry.corrections_of(0, first_correction + len(kept), int(written[0])):
                kept.append(correction)
                service.append(took)
                ends.append(now)
                shot_start = int(correction["shot_id"]) * num_rounds
                needed.append(shot_start + int(correction["last_round_needed"]))
                if not correction["flags"] & CorrectionFlag.AMENDMENT:
                    answered = shot_start + int(correction["first_round"] + correction["num_rounds"])
            backlog_max = max(backlog_max, int(np.searchsorted(arrivals, now)) - answered)
        corrections = np.array(kept)
        frames = np.zeros(len(layers_b8), np.uint64)
        np.bitwise_xor.at(frames, corrections["shot_id"].astype(np.int64), corrections["flips"])
        arrived = arrivals[np.array(needed)]
        return ServiceRun(
            corrections, arrived, np.array(service), np.array(ends) - arrived, frames, wall_ns, backlog_max
        )  # fmt: skip

    def _next_of_interest(self, head: int, first: int, num_rounds: int) -> int:
        """How many rounds must have come before an idle path is woken: where ingest would, or where a shot ends."""
        need = int(self.ring.cursors[NEED]) - first
        return min(max(need, head + 1), (head // num_rounds + 1) * num_rounds)


def sample_layers(plan: Plan, num_shots: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Shots of a plan's own error model: layers, and the true observable flips as one word each."""
    events, flips, _ = plan.experiment.own_dem.compile_sampler(seed=seed).sample(num_shots)
    weights = np.uint64(1) << np.arange(flips.shape[1], dtype=np.uint64)
    return plan.rounds.layers_b8(events), (flips * weights).sum(axis=1, dtype=np.uint64)


def budget_ns(budget_us: float) -> int:
    """As the daemon rounds it."""
    return ns_from_us(budget_us)
