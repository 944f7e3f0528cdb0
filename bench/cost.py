"""What the path costs per round of one patch when rounds are already in the ring: CPU time of its thread.

Two ways, on the same recorded rounds. *One by one*: every window closes by itself and is decoded by the first step of
the ladder, as in a stream that keeps up. *Saturated*: as many rounds wait as may, all of them late, so that the path
does what its ladder says: catch up where it can. Laying rounds into the ring, and taking the corrections from their
socket, happens between the clocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.inline import InlineLane
from bench.recorded import Recorded
from bench.tape import drain
from rtqec.errors import FaultError
from rtqec.kernels.records import HEAD, TAIL, PathCounter
from rtqec.units import NS_PER_S, NS_PER_US, ns_from_us
from rtqec.wire import Rung

_BLOCK_ROUNDS = 4000
_GROUPS = 20


@dataclass(frozen=True)
class PathCost:
    """CPU time of many blocks of rounds.

    Attributes:
        cpu_ns, rounds: int64, shape (num_blocks,).
        windows: Decoded in all of them.
        rungs: Corrections by rung.
    """

    cpu_ns: NDArray[np.int64]
    rounds: NDArray[np.int64]
    windows: int
    rungs: dict[str, int]

    @property
    def us_per_round(self) -> float:
        """CPU time per round committed."""
        return float(self.cpu_ns.sum() / self.rounds.sum() / NS_PER_US)

    @property
    def windows_per_s(self) -> float:
        """Windows that one core decodes per second."""
        return float(self.windows / self.cpu_ns.sum() * NS_PER_S)

    def interval_us(self, confidence: float) -> tuple[float, float]:
        """Of `us_per_round`: Student's interval of the means of equal groups of neighbouring blocks.

        Neighbours know of each other, by the clock rate and by who else wants the cache; groups much less so.
        """
        groups = np.array_split(np.arange(len(self.rounds)), min(_GROUPS, len(self.rounds)))
        means = [self.cpu_ns[group].sum() / self.rounds[group].sum() / NS_PER_US for group in groups]
        margin = float(stats.t.ppf((1 + confidence) / 2, len(means) - 1) * stats.sem(means))
        return self.us_per_round - margin, self.us_per_round + margin


class CostMeter:
    """Measures on one lane.

    Args:
        lane: A new one, with a budget that is never short; its ladder decides what "saturated" does.
        shots: Come again and again.
    """

    def __init__(self, lane: InlineLane, shots: Recorded) -> None:
        self.lane, self.shots = lane, shots
        self._laid = 0

    def one_by_one(self, cpu_s: float) -> PathCost:
        """At least so much CPU time, whole blocks; the first block warms and does not count."""
        closings = self.shots.closings(self.lane.plan)
        blocks = np.split(closings, np.flatnonzero(np.diff(closings // _BLOCK_ROUNDS)) + 1)

        def next_block(number: int) -> int:
            turn, place = divmod(number, len(blocks))
            heads = (turn * self.shots.total + blocks[place]).tolist()
            self._lay(heads[-1], time.monotonic_ns())
            cursors, step = self.lane.ring.cursors, self.lane.pipeline.step
            began = time.thread_time_ns()
            for head in heads:
                cursors[HEAD] = head
                step()
            return time.thread_time_ns() - began

        return self._measure(next_block, cpu_s)

    def saturated(self, cpu_s: float, budget_us: float) -> PathCost:
        """The same with the ring as full as it may be before rounds would be answered by holding.

        Args:
            cpu_s: As of `one_by_one`.
            budget_us: As configured; all rounds are older than that.
        """
        self.lane.streams.patches[0]["budget_ns"] = ns_from_us(budget_us)
        fill = int(self.lane.streams.patches[0]["backlog_rounds"])
        most = max(_BLOCK_ROUNDS // 2, self.lane.plan.window.rounds)

        def next_block(_number: int) -> int:
            cursors, step = self.lane.ring.cursors, self.lane.pipeline.step
            tail = int(cursors[TAIL])
            self._lay(tail + fill, 0)
            cursors[HEAD] = tail + fill
            goal = tail + min(fill // 2, most)
            began = time.thread_time_ns()
            while cursors[TAIL] < goal:
                if not step():
                    raise FaultError("the path found nothing to do although rounds wait.")
            return time.thread_time_ns() - began

        return self._measure(next_block, cpu_s)

    def _measure(self, next_block: Callable[[int], int], cpu_s: float) -> PathCost:
        lane = self.lane
        counters, rung_counts = lane.telemetry.path_counters[0], lane.telemetry.rung_counts[0]
        cpu_ns: list[int] = []
        rounds: list[int] = []
        number = 0
        while sum(cpu_ns) < cpu_s * NS_PER_S or len(cpu_ns) < 2:
            if number == 1:
                windows_before, rungs_before = int(counters[PathCounter.WINDOWS]), rung_counts.copy()
            tail, sent = int(lane.ring.cursors[TAIL]), int(counters[PathCounter.CORRECTIONS_SENT])
            took = next_block(number)
            if number:
                cpu_ns.append(took)
                rounds.append(int(lane.ring.cursors[TAIL]) - tail)
            drain(lane.corrections.underlying, int(counters[PathCounter.CORRECTIONS_SENT]) - sent, lane.intake.message)
            number += 1
        rungs = rung_counts - rungs_before
        return PathCost(
            np.array(cpu_ns), np.array(rounds), int(counters[PathCounter.WINDOWS]) - windows_before,
            {rung.name.lower(): int(rungs[rung].sum()) for rung in Rung},
        )  # fmt: skip

    def _lay(self, stop: int, received_ns: int) -> None:
        self.shots.lay(self.lane.ring, self._laid, stop, received_ns=received_ns)
        self._laid = stop
