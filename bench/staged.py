"""Where a window's time goes, and the floor under it, in one run.

A block of shots passes the real stages of a lane in this process, one window after the other as they close in a stream
that keeps up. In CPU time of the thread:

- *transport*: receiving the block's messages over ipc and looking at none of them, as a null decoder would;
- *ingest*: checking, folding and placing them;
- *path*: window, match, commit and publish, from the moment at which a window can close to its hand-over. Taken over
  the whole block, without a clock between the stages;
- the stages, on the same shots once more with a clock between them, whose own cost is subtracted. A look at the CPU
  clock takes as long as a short stage, so it is a wall clock, but for publish, which wakes the transport's thread and
  may lose the core to it. The longest one in 200 windows is left out: the scheduler was at work there. What the path
  took beyond their sum is `other`;
- *floor*: the same messages received, the same number of answers sent as far apart, and the same rows by the same
  matcher objects, seam observables and all, in one `decode_batch` per matcher. Sending one answer alone costs what it
  costs the machine to wake the transport's thread.

`total_over_floor` is what a user pays for everything over a decoder that only receives, matches all windows in one
batch, and answers; `path_over_floor` is the path, its answers included, over PyMatching alone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from bench.cases import Case
from bench.inline import InlineLane
from bench.tape import Tape, drain
from firmware_sim.sources import finite_shots
from rtqec.few_events import FewEvents
from rtqec.plan import Plan
from rtqec.plan.schedule import windows_of_shot
from rtqec.wire import CORRECTION_BYTES

STAGES = ("window", "match", "commit", "publish")
_CLOCK_CALLS = 20_000
INTERRUPTED = 200
"""One window in so many, the longest, does not count for the stages."""


@dataclass
class StageTimes:
    """CPU time of everything, ns, summed over blocks.

    Attributes:
        rounds, windows, events: What was decoded.
        transport, ingest, path: See the module.
        stages: The four stages of `STAGES`, int64.
        floor: PyMatching alone.
        send: Sending the answers alone.
    """

    rounds: int = 0
    windows: int = 0
    events: int = 0
    transport: int = 0
    ingest: int = 0
    path: int = 0
    stages: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(STAGES), np.int64))
    floor: int = 0
    send: int = 0

    def result(self) -> dict[str, Any]:
        """What a row says."""
        per_round = {
            name: value / self.rounds / 1000
            for name, value in (("transport", self.transport), ("ingest", self.ingest), ("path", self.path))
        }
        shares = self.stages / self.rounds / 1000
        named = dict(zip(STAGES, shares.tolist(), strict=True))
        floor = {
            "transport": per_round["transport"],
            "send": self.send / self.rounds / 1000,
            "match": self.floor / self.rounds / 1000,
        }
        return {
            "rounds": self.rounds,
            "windows": self.windows,
            "events_per_window": self.events / self.windows,
            "cpu_us_per_round": {
                "transport": per_round["transport"],
                "ingest": per_round["ingest"],
                "window": named["window"],
                "predecode": None,
                "match": named["match"],
                "commit": named["commit"],
                "publish": named["publish"],
                "other": per_round["path"] - sum(named.values()),
                "path": per_round["path"],
                "total": sum(per_round.values()),
            },
            "floor_us_per_round": floor,
            "total_over_floor": sum(per_round.values()) / sum(floor.values()),
            "path_over_floor": per_round["path"] / floor["match"],
            "match_over_floor": named["match"] / floor["match"],
        }


def clock_ns(clock: Callable[[], int]) -> float:
    """What one look at a clock adds to a stage, ns."""
    stamps = np.array([clock() for _ in range(_CLOCK_CALLS)])
    return float(np.median(np.diff(stamps)))


class StageBench:
    """One case, ready to be measured.

    Args:
        case, plan: What; a finite plan.
        num_shots: Shots of a block.
        lane: Where they are decoded.
    """

    def __init__(self, case: Case, plan: Plan, num_shots: int, lane: InlineLane, seed: int) -> None:
        config = case.config.model_copy(
            update={"source": case.config.source.model_copy(update={"shots": num_shots, "rounds_per_message": 1})}
        )
        self.plan, self.lane = plan, lane
        self.tape = Tape(plan, finite_shots(config, plan, seed))
        self.tape.follow(lane)
        self.closings = window_closings(plan, num_shots)
        self._clocks_ns = np.array([clock_ns(time.perf_counter_ns)] * 3 + [clock_ns(time.thread_time_ns)])
        self._context = zmq.Context()
        self._push: zmq.Socket[bytes] = self._context.socket(zmq.PUSH)
        self._pull: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        for socket in (self._push, self._pull):
            socket.set_hwm(0)
            socket.setsockopt(zmq.LINGER, 0)
        self._pull.setsockopt(zmq.RCVTIMEO, 10_000)
        self._pull.bind("ipc://*")
        self._push.connect(self._pull.get_string(zmq.LAST_ENDPOINT))

    def close(self) -> None:
        """End the sockets."""
        self._push.close()
        self._pull.close()
        self._context.term()

    def measure(self, times: StageTimes) -> None:
        """Pass the block through everything once, and add what it took."""
        times.transport += self._transport()
        times.ingest += self._ingest()
        path = self._path()
        times.path += path
        times.send += self._send(path // len(self.closings))
        self._ingest()
        rows, stages = self._staged()
        times.floor += self._floor(rows)
        times.rounds += len(self.tape)
        times.windows += len(self.closings)
        times.events += sum(int(np.bitwise_count(row).sum()) for found in rows.values() for row in found)
        times.stages += stages

    def _transport(self) -> int:
        """Receive the messages from ipc, one after the other. They wait in the queue when the clock starts."""
        count = len(self.tape)
        if self.tape.send(self._push, 0, count) != count:
            raise RuntimeError("the transport of this machine did not take a block of messages")
        self._pull.poll(10_000)
        began = time.thread_time_ns()
        received = drain(self._pull.underlying, count, self.lane.intake.message)
        took = time.thread_time_ns() - began
        if received != count:
            raise RuntimeError(f"the transport of this machine lost {count - received} of {count} messages")
        return took

    def _ingest(self) -> int:
        self.tape.renumber()
        began = time.thread_time_ns()
        self.tape.ingest(self.lane, 0, len(self.tape))
        return time.thread_time_ns() - began

    def _path(self) -> int:
        """Let windows close one by one, as in a stream that keeps up."""
        lane, step = self.lane, self.lane.pipeline.step
        heads = (lane.head - len(self.tape) + self.closings).tolist()
        cursors = lane.ring.cursors
        lane.head = heads[0] - 1
        began = time.thread_time_ns()
        for head in heads:
            cursors[0] = head
            step()
        took = time.thread_time_ns() - began
        self._collect()
        return took

    def _staged(self) -> tuple[dict[int, list[NDArray[np.uint8]]], NDArray[np.int64]]:
        """The same with a clock between the stages, and the rows that the matchers saw."""
        lane, batch = self.lane, self.lane.pipeline.batch
        heads = (lane.head - len(self.tape) + self.closings).tolist()
        cursors, clock, cpu_clock = lane.ring.cursors, time.perf_counter_ns, time.thread_time_ns
        window, match, commit, publish = lane.window, lane.match, lane.commit, lane.publish
        rows: dict[int, list[NDArray[np.uint8]]] = defaultdict(list)
        stamps = np.zeros((len(heads), len(STAGES) + 2), np.int64)
        lane.head = heads[0] - 1
        for i, head in enumerate(heads):
            cursors[0] = head
            t0 = clock()
            window(batch)
            t1 = clock()
            match(batch)
            t2 = clock()
            commit(batch)
            t3 = clock()
            t4 = cpu_clock()
            publish(batch)
            t5 = cpu_clock()
            stamps[i] = t0, t1, t2, t3, t4, t5
            index = batch.model_index
            rows[index].append(batch.rows_b8[: lane.match.matchers[index].model.row_bytes].copy())
        self._collect()
        taken = np.diff(stamps, axis=1)[:, [0, 1, 2, 4]]
        kept = taken[np.argsort(taken.sum(axis=1))[: max(1, len(taken) - len(taken) // INTERRUPTED)]]
        return rows, ((kept.mean(axis=0) - self._clocks_ns) * len(heads)).round().astype(np.int64)

    def _send(self, gap_ns: int) -> int:
        """Answers of the same size through the same socket, as far apart as the path's windows; only sending counts."""
        clock, cpu_clock = time.perf_counter_ns, time.thread_time_ns
        answer, took = bytes(CORRECTION_BYTES), 0
        for _ in range(len(self.closings)):
            due = clock() + gap_ns
            while clock() < due:
                pass
            began = cpu_clock()
            self.lane.out.send(answer, zmq.DONTWAIT)
            took += cpu_clock() - began
        self._collect()
        return took - round(float(self._clocks_ns[-1]) * len(self.closings))

    def _floor(self, rows: dict[int, list[NDArray[np.uint8]]]) -> int:
        """The same rows by the same matcher objects, all of a matcher in one call."""
        took = 0
        for index, found in rows.items():
            decoder, batch = self.lane.match.matchers[index], np.array(found)
            matcher = decoder.matcher if isinstance(decoder, FewEvents) else decoder
            began = time.thread_time_ns()
            matcher(batch)
            took += time.thread_time_ns() - began
        return took

    def _collect(self) -> None:
        """Take the corrections from the socket, so that they do not pile up."""
        lane = self.lane
        if drain(lane.corrections.underlying, len(self.closings), lane.intake.message) != len(self.closings):
            raise RuntimeError("the path did not answer every window of a block")


def window_closings(plan: Plan, num_shots: int) -> NDArray[np.int64]:
    """How many rounds must have come for each window of `num_shots` shots to close, int64, shape (num_windows,)."""
    stops = np.array([window.stop for window in windows_of_shot(plan.rounds.num_rounds, plan.window)], np.int64)
    return (stops + plan.rounds.num_rounds * np.arange(num_shots)[:, np.newaxis]).reshape(-1)
