"""What the daemon must count of a run with faults is known exactly, and a report says where it did not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from firmware_sim.expected import NAMES, expected_counts
from firmware_sim.report import DaemonCounts, faults_section, problems_of
from rtqec.kernels.records import FeedCounter
from rtqec.wire import ROUNDS_HEADER, ROUNDS_HEADER_BYTES
from tests.harness import Bench, BenchMaker, with_crc
from tests.unit.faulty import ENDLESS, EPOCH, FEW, SECOND, run


class Twin:
    """A daemon's ingest of one patch, slow and obvious: whole messages in, counts out."""

    def __init__(self, tag: int, num_rounds: int, depth: int, fill_max: int) -> None:
        self.tag, self.num_rounds, self.depth, self.fill_max = tag, num_rounds, depth, fill_max
        self.counts: Counter[str] = Counter()
        self.epoch, self.following, self.highest = -1, 0, 0
        self.waiting: dict[int, Any] = {}
        self.taken: set[int] = set()
        self.shot, self.next_round, self.is_open = -1, 0, False

    def receive(self, message: bytes) -> None:
        header = np.frombuffer(message[:ROUNDS_HEADER_BYTES], ROUNDS_HEADER)[0]
        if not intact(message, self.tag):
            self.counts["bad"] += 1
            return
        sequence = int(header["sequence"])
        if header["source_epoch"] != self.epoch:
            self.follow(int(header["source_epoch"]), sequence)
        while self.waiting and sequence > self.following + self.depth:
            self.give_up()
        if sequence in self.taken or sequence in self.waiting:
            self.counts["duplicate"] += 1
        elif sequence < self.following:
            self.counts["late"] += 1
        else:
            self.counts["reordered"] += self.depth > 0 and sequence < self.highest
            self.highest = max(self.highest, sequence)
            if 0 < sequence - self.following <= self.depth:
                self.waiting[sequence] = header
            else:
                self.take(header)

    def follow(self, epoch: int, sequence: int) -> None:
        """Another source; after the silence before it nothing is waited for."""
        self.finish()
        self.counts["restarts"] += self.epoch >= 0
        self.leave_shot()
        self.shot = -1
        self.epoch, self.following, self.highest = epoch, sequence, sequence
        self.taken.clear()

    def finish(self) -> Counter[str]:
        while self.waiting:
            self.give_up()
        return self.counts

    def give_up(self) -> None:
        self.take(self.waiting.pop(min(self.waiting)))

    def take(self, header: Any) -> None:
        sequence = int(header["sequence"])
        self.counts["messages_missing"] += sequence - self.following
        self.following = sequence + 1
        self.taken.add(sequence)
        self.place(header)
        if self.following in self.waiting:
            self.take(self.waiting.pop(self.following))

    def place(self, header: Any) -> None:
        first, count = int(header["first_round"]), int(header["num_rounds"])
        if not self.is_open or header["shot_id"] != self.shot:
            self.leave_shot()
            self.shot, self.is_open = int(header["shot_id"]), True
            self.counts["shots"] += 1
            self.counts["shots_headless"] += first > 0
        elif first - self.next_round > self.fill_max:
            self.counts["jumps"] += 1
        else:
            self.counts["rounds_filled"] += first - self.next_round
        self.next_round = first + count
        self.counts["rounds"] += count
        self.is_open = self.next_round < self.num_rounds

    def leave_shot(self) -> None:
        self.counts["shots_truncated"] += self.is_open
        self.is_open = False


INTACT: dict[bytes, bool] = {}


def intact(message: bytes, tag: int) -> bool:
    """Whether a message is of this plan, and its checksum holds; by the harness's bitwise CRC."""
    if message not in INTACT:
        INTACT[message] = with_crc(message) == message
    return INTACT[message] and int.from_bytes(message[76:80], "little") == tag


MIXES: dict[str, list[dict[str, Any]]] = {
    "drop": [{"kind": "drop", "probability": 0.3}],
    "reorder": [{"kind": "reorder", "probability": 0.4, "distance": 2}],
    "restarts": [{"kind": "restart", "probability": 0.03, "silence_ms": 8}, {"kind": "drop", "probability": 0.6}],
    "skips": [{"kind": "skip", "probability": 0.05, "rounds": 30}, {"kind": "duplicate", "probability": 0.3}],
    "jumps": [{"kind": "skip", "every_rounds": 300, "rounds": 100}],
    "everything": [
        *[{"kind": kind, **values} for kind, values in FEW.items()],
        {"kind": "restart", "probability": 0.01, "silence_ms": 8},
    ],
    "most of everything": [
        {"kind": "drop", "probability": 0.5},
        {"kind": "reorder", "probability": 0.5, "distance": 2},
        {"kind": "corrupt", "probability": 0.2},
        {"kind": "restart", "probability": 0.03, "silence_ms": 8},
    ],
}


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
@pytest.mark.parametrize("mix", MIXES)
def test_expected_counts_are_those_of_a_slow_twin(mix: str, depth: int, make_bench: BenchMaker) -> None:
    """Counts derived from the log are those of a daemon that looks at every message: the twin's, and the real one's."""
    endless = ENDLESS if mix == "jumps" else {}
    found = run(*MIXES[mix], feed__reorder_depth=depth, feed__ring_rounds=4096 if mix != "jumps" else 64, **endless)
    expected = expected_counts(found.config, found.plans, found.sender)
    plan, num_rounds = found.plans[0], int(found.sender.shot_rounds[0])
    daemon = Twin(plan.tag, num_rounds, depth, 31 if mix == "jumps" else 2047)
    for message in found.messages:
        daemon.receive(message)
    twin = daemon.finish()
    assert {name: expected[name] for name in NAMES} == {name: twin[name] for name in NAMES}
    assert expected["rounds_answered"] == twin["shots"] * num_rounds
    if mix == "jumps":
        assert expected["jumps"] == 6
        return
    bench = make_bench(plan, reorder_depth=depth, ring_rounds=4096)
    epoch = EPOCH
    for i, message in enumerate(found.messages):
        header = np.frombuffer(message[:ROUNDS_HEADER_BYTES], ROUNDS_HEADER)[0]
        if header["source_epoch"] != epoch and intact(message, plan.tag):
            epoch = header["source_epoch"]
            wait_for_nothing(bench, i * SECOND)
        bench.ingest(message, received_ns=i * SECOND)
    wait_for_nothing(bench, len(found.messages) * SECOND)
    counted = Counter(bench.feed_counts()) + Counter(bench.feed_counts(-1))
    counted["bad"] = sum(counted[name] for name in counted if name.startswith("bad_")) + counted["unknown_patch"]
    assert {name: expected[name] for name in NAMES} == {name: counted[name] for name in NAMES}


def wait_for_nothing(bench: Bench, time_ns: int) -> None:
    """A silence until `time_ns`, after which nothing waits for its turn."""
    for ago_ns in range(SECOND // 2, SECOND // 4, -SECOND // 100):
        bench.look_at_clocks(time_ns - ago_ns)


def test_a_report_says_where_counts_disagree() -> None:
    """Counts that agree are no problem, whatever was lost; one that differs is named with both numbers."""
    found = run({"kind": "drop", "probability": 0.1}, {"kind": "wrong_plan", "probability": 0.1})
    faults, expected = found.sender.faults, expected_counts(found.config, found.plans, found.sender)
    feed = {c.name.lower(): expected.get(c.name.lower(), 0) for c in FeedCounter} | {"bad_plan_tag": expected["bad"]}
    section = faults_section(faults, expected, DaemonCounts({}, feed, 0))
    assert section is not None
    assert all(check["equal"] for check in section["agree"])
    assert section["injected"]["wrong_plan"]["messages"] == expected["bad"] > 0
    clean = dict.fromkeys(
        ("corrections_out_of_order", "corrections_wrong_digest", "corrections_wrong_frame", "corrections_bad",
         "index_gaps", "bad_amendments", "rounds_unsent", "rounds_answered", "rounds_expected"), 0
    ) | {"unexplained": 3, "rounds_lost": 7}  # fmt: skip
    assert problems_of(clean | {"faults": section}) == []
    feed["messages_missing"] += 1
    section = faults_section(faults, expected, DaemonCounts({}, feed, 0))
    (problem,) = problems_of(clean | {"faults": section})
    assert f"messages_missing is {expected['messages_missing'] + 1}" in problem
    assert len(problems_of(clean | {"faults": None})) == 2
