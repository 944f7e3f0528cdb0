"""A daemon as readers see it, without one: a service file, and telemetry blocks that a test writes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from rtqec.config import Config
from rtqec.histogram import bin_edges
from rtqec.kernels.records import INGEST_BEAT, PATH_BEAT, FeedCounter, PathCounter, Span
from rtqec.service.state import ServiceFile, describe_lane
from rtqec.telemetry import TelemetryBlock, telemetry_path
from rtqec.wire import CORRECTION, FrameStatus, Reason, Rung
from tests.harness import make_config

LADDER = ["match", "catch_up", "union_find"]
PLACES = [[2.0, 0.0], [4.0, 2.0], [0.0, 2.0], [2.0, 4.0]]
"""Of the detectors of a full layer: two on each of two diagonals."""
JOURNAL = 16
_DIGEST = "f00dcafe" + "0" * 56


class FakeService:
    """The supervisor of this process, with lanes that are this process, too.

    Args:
        folder: For the runtime folder.
        lanes: The patch ids of each lane.

    Attributes:
        config: Of the deployment.
        blocks: One per lane.
        lanes, patches: As in the service file; change them and `write` again.
    """

    def __init__(self, folder: Path, *lanes: list[int]) -> None:
        self.shards = lanes or ([0],)
        ids = [patch_id for shard in self.shards for patch_id in shard]
        self.config: Config = make_config(
            service={"runtime_dir": str(folder)}, lane={"count": len(self.shards)},
            patch=[{"id": patch_id} for patch_id in ids],
            feed__endpoint="ipc://feed-{lane}", publish__endpoint="ipc://publish-{lane}",
        )  # fmt: skip
        self.narrowed = [self.config.of_lane(k, shard) for k, shard in enumerate(self.shards)]
        self.blocks = [self.make_block(k) for k in range(len(self.shards))]
        self.lanes: list[dict[str, Any]] = [
            describe_lane(narrowed, "ready", (os.getpid(), os.getpid()), 0) for narrowed in self.narrowed
        ]
        self.patches: list[dict[str, Any]] = [
            {
                "id": patch_id, "lane": lane["name"], "plan_tag": _DIGEST[:8], "digest": _DIGEST, "distance": 3,
                "rounds": "endless", "num_observables": 1, "commit_rounds": 3, "buffer_rounds": 3,
                "round_period_us": 10.0, "budget_us": 1000.0, "ladder": LADDER, "num_detectors": len(PLACES),
                "detectors": PLACES,
            }
            for lane, shard in zip(self.lanes, self.shards, strict=True) for patch_id in shard
        ]  # fmt: skip
        self._file = ServiceFile(self.config, folder / "lab.toml")
        self.write()

    def write(self, state: str = "ready", **head: Any) -> None:
        """Replace the service file; `head` overrides what it says of the daemon."""
        self._file._head |= head
        self._file.write(state, self.lanes, self.patches)

    def make_block(self, lane: int) -> TelemetryBlock:
        """The lane's block, made anew."""
        block = TelemetryBlock.create(telemetry_path(self.narrowed[lane]), self.shards[lane], JOURNAL, len(PLACES))
        block.header["ready_ns"] = time.monotonic_ns()
        block.patches["budget_ns"] = 1_000_000
        block.patches["steps_mask"] = (1 << len(LADDER)) - 1
        block.patches["backlog_rounds"] = 1000
        return block

    def carry(self, patch_id: int, rounds: int = 300, took_us: float = 50.0, rung: Rung = Rung.MATCH,
              reason: Reason = Reason.CONFIGURED, **fields: int) -> None:  # fmt: skip
        """Let a patch receive some rounds and answer them, a third as many windows, all alike.

        `fields` go to the corrections.
        """
        block, row = self.place_of(patch_id)
        windows = rounds // 3
        feed, path = block.feed_counters[row], block.path_counters[row]
        feed[[FeedCounter.MESSAGES, FeedCounter.ROUNDS]] += rounds
        path[[PathCounter.WINDOWS, PathCounter.CORRECTIONS_SENT]] += windows
        path[PathCounter.ROUNDS_COMMITTED] += rounds
        block.rung_counts[row, rung, reason] += windows
        bin_index = np.searchsorted(bin_edges(), took_us * 1000, side="right") - 1
        block.span_counts[row, :, bin_index] += np.arange(len(Span), 0, -1) * windows
        block.event_rounds[row] += rounds
        block.event_counts[row] += rounds * np.arange(len(PLACES)) // 10
        for _ in range(min(windows, JOURNAL)):
            self.publish(block, row, rung, reason, fields)
        block.control[[INGEST_BEAT, PATH_BEAT]] += 1

    def publish(self, block: TelemetryBlock, row: int, rung: Rung, reason: Reason, fields: dict[str, int]) -> None:
        """Write one correction into the journal."""
        correction = np.zeros(1, CORRECTION)[0]
        correction["window_index"] = block.written[row]
        correction["first_round"], correction["num_rounds"] = 3 * block.written[row], 3
        correction["rung"], correction["reason"] = rung, reason
        correction["published_ns"] = time.monotonic_ns()
        for name, value in fields.items():
            correction[name] = value
        block.journal[row, int(block.written[row]) % JOURNAL] = correction
        block.written[row] += 1

    def taint(self, patch_id: int, since: int) -> None:
        """Let the frame of a patch stand on a guess."""
        block, row = self.place_of(patch_id)
        fields = {"frame_status": int(FrameStatus.TAINTED), "tainted_since": since}
        self.publish(block, row, Rung.HOLD, Reason.GAP, fields)

    def place_of(self, patch_id: int) -> tuple[TelemetryBlock, int]:
        """The block and the row of a patch."""
        for shard, block in zip(self.shards, self.blocks, strict=True):
            if patch_id in shard:
                return block, shard.index(patch_id)
        raise AssertionError(patch_id)
