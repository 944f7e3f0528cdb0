"""A patch follows one source: one that restarts is understood, one that intrudes refused; nothing is dropped unsaid."""

from __future__ import annotations

import numpy as np
import pytest

from rtqec.kernels.sequence import RESYNC_RUN
from rtqec.plan import Plan
from rtqec.wire import CorrectionFlag, Reason
from tests.harness import (
    Bench,
    BenchMaker,
    Piece,
    Speaker,
    check_cover,
    check_decoded,
    expected_flips,
    messages_dropped,
    with_header,
)

MS = 1_000_000
SHOT_MESSAGES = 13


class Controller:
    """Shots of `plan_d3` from one source, and what they decode to."""

    def __init__(self, plan: Plan, num_shots: int, epoch: int = 1, seed: int = 41) -> None:
        self.plan, self.piece, self.speaker = plan, Piece.of(plan), Speaker(plan)
        self.speaker.epoch = epoch
        self.shots = self.piece.sample(num_shots, seed=seed)
        self.expected = expected_flips(plan, self.shots)

    def shot(self, shot_id: int) -> list[bytes]:
        """The messages of a shot."""
        return self.speaker.shot(self.piece.blocks(self.shots[shot_id]), shot_id)


@pytest.mark.parametrize("takeover_ms", [50.0, 5.0])
def test_a_restart_under_a_new_epoch_is_followed_after_a_silence(
    make_bench: BenchMaker, plan_d3: Plan, takeover_ms: float
) -> None:
    """A source that comes back with another epoch and sequence 0 ends the open shot; the shot that it sends, even of
    the same number, is decoded whole, and nothing of it counts as missing."""
    controller = Controller(plan_d3, 1)
    bench = make_bench(plan_d3, takeover_ms=takeover_ms)
    bench.ingest(*controller.shot(0)[:6], received_ns=MS)
    controller.speaker.sequence, controller.speaker.epoch = 0, 2
    bench.ingest(*controller.shot(0), received_ns=MS + round(takeover_ms * MS))
    counts = bench.feed_counts()
    assert (counts["restarts"], counts["shots_truncated"], counts["rounds"]) == (1, 1, 6 + SHOT_MESSAGES)
    assert messages_dropped(counts) == 0
    assert "messages_missing" not in counts
    corrections = bench.carry()
    check_cover(corrections)
    ends = np.flatnonzero(corrections["flags"] & CorrectionFlag.LAST_OF_SHOT)
    assert corrections["reason"][ends].tolist() == [Reason.SHOT_TRUNCATED, Reason.CONFIGURED]
    check_decoded(corrections[ends[0] + 1 :], 0, controller.expected[0])


def test_a_second_source_is_refused_while_the_first_is_heard(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """Messages of another epoch change nothing, and are counted, until the known source has been silent; then the other
    takes over, and what the first still sends is refused in its turn."""
    first, second = Controller(plan_d3, 3), Controller(plan_d3, 3, epoch=9, seed=42)
    bench = make_bench(plan_d3, takeover_ms=10.0)
    for time_ms, (own, other) in enumerate(zip(first.shot(0), second.shot(2), strict=True), start=1):
        bench.ingest(own, other, received_ns=9 * MS * time_ms)
    counts = bench.feed_counts()
    assert (counts["second_source"], counts["rounds"]) == (SHOT_MESSAGES, SHOT_MESSAGES)
    heard_ns = 9 * MS * SHOT_MESSAGES
    bench.ingest(*second.shot(1)[:1], received_ns=heard_ns + 10 * MS - 1)
    assert bench.feed_counts()["second_source"] == SHOT_MESSAGES + 1
    second.speaker.sequence = 70
    bench.ingest(*second.shot(1), received_ns=heard_ns + 10 * MS)
    bench.ingest(*first.shot(2), received_ns=heard_ns + 11 * MS)
    counts = bench.feed_counts()
    assert (counts["restarts"], counts["second_source"]) == (1, 2 * SHOT_MESSAGES + 1)
    assert "messages_missing" not in counts
    corrections = bench.carry()
    check_cover(corrections)
    assert set(corrections["shot_id"]) == {0, 1}
    check_decoded(corrections, 0, first.expected[0])
    check_decoded(corrections, 1, second.expected[1])


def test_a_source_that_counts_anew_under_its_old_epoch_is_followed(bench_d3: Bench, plan_d3: Plan) -> None:
    """After a run of messages that are too old, one behind the other, the source is believed to count anew: the open
    shot ends there, the shot in which that happens has no beginning, and the next one is decoded."""
    controller = Controller(plan_d3, 4)
    controller.speaker.sequence = 1000
    bench_d3.ingest(*controller.shot(0), *controller.shot(1)[:5])
    controller.speaker.sequence = 0
    bench_d3.ingest(*controller.shot(1), *controller.shot(2), *controller.shot(3))
    counts = bench_d3.feed_counts()
    assert (counts["resyncs"], counts["late"], counts["shots_truncated"]) == (1, RESYNC_RUN - 1, 1)
    assert counts["rounds"] + messages_dropped(counts) == counts["messages"]
    corrections = bench_d3.carry()
    check_cover(corrections)
    check_decoded(corrections, 0, controller.expected[0])
    check_decoded(corrections, 3, controller.expected[3])
    assert corrections[corrections["shot_id"] == 1]["reason"][-1] == Reason.SHOT_TRUNCATED
    assert corrections[corrections["shot_id"] == 2]["reason"][0] == Reason.GAP


@pytest.mark.parametrize(
    "leap", [1000, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 62) - 1, 1 << 62, 1 << 63, (1 << 64) - 1]
)
def test_a_damaged_sequence_number_does_not_silence_the_patch(make_bench: BenchMaker, plan_d3: Plan, leap: int) -> None:
    """After one message with a number far ahead, believed or not, a later shot is decoded, with a waiting room and
    without one."""
    for reorder_depth in (0, 4):
        controller = Controller(plan_d3, 4)
        bench = make_bench(plan_d3, reorder_depth=reorder_depth)
        messages = controller.shot(0)
        damaged = with_header(messages[5], sequence=leap, request_id=leap & 0xFFFFFFFF)
        bench.ingest(*messages[:5], damaged, *messages[6:])
        for shot_id in range(1, 4):
            bench.ingest(*controller.shot(shot_id))
        bench.look_at_clocks(1 << 40)
        corrections = bench.carry()
        check_cover(corrections)
        check_decoded(corrections, 3, controller.expected[3])
        counts = bench.feed_counts()
        assert counts["rounds"] + messages_dropped(counts) == counts["messages"]


def test_stragglers_are_no_restart(bench_d3: Bench, plan_d3: Plan) -> None:
    """Old messages, fewer than a run in a row, or with current ones between them, never make the patch go back."""
    controller = Controller(plan_d3, 3)
    old = [*controller.shot(0), *controller.shot(0)]
    controller.speaker.sequence = 1000
    bench_d3.ingest(*old[:1])
    current = [*controller.shot(1), *controller.shot(2)]
    bench_d3.ingest(current[0], *old[1:RESYNC_RUN], current[1], *old[1:RESYNC_RUN], *current[2:])
    counts = bench_d3.feed_counts()
    assert (counts["late"], "resyncs" in counts) == (2 * (RESYNC_RUN - 1), False)
    corrections = bench_d3.carry()
    check_decoded(corrections, 1, controller.expected[1])
    check_decoded(corrections, 2, controller.expected[2])


@pytest.mark.parametrize("reorder_depth", [0, 4])
@pytest.mark.parametrize("start", [1 << 62, (1 << 63) - 3, 1 << 63, (1 << 64) - 3])
def test_numbers_that_no_source_can_reach_are_refused(
    make_bench: BenchMaker, plan_d3: Plan, start: int, reorder_depth: int
) -> None:
    """Sequence numbers from 2^62 on are refused and counted, in whatever order they come; others are heard."""
    controller = Controller(plan_d3, 2)
    bench = make_bench(plan_d3, reorder_depth=reorder_depth)
    messages = controller.shot(0)
    damaged = [
        with_header(m, sequence=(start + t) % (1 << 64), request_id=(start + t) % (1 << 32))
        for t, m in enumerate(messages)
    ]
    hostile = [*damaged[:2], *damaged[4:6], *damaged[3:6], *damaged[9:]]
    bench.ingest(*(m for m in hostile if int(np.frombuffer(m, "<u8")[4]) >= 1 << 62))
    assert bench.feed_counts()["bad_round"] == bench.feed_counts()["messages"]
    controller.speaker.sequence = 0
    bench.ingest(*controller.shot(1))
    check_decoded(bench.carry(), 1, controller.expected[1])


def test_what_waits_when_the_source_changes_is_counted(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """Messages that waited for their turn when another source took over, or the source counted anew, are dropped by
    name; the next shot is decoded."""
    controller = Controller(plan_d3, 4)
    bench = make_bench(plan_d3, reorder_depth=8)
    messages = controller.shot(0)
    bench.ingest(*messages[:3], *messages[5:8], received_ns=MS)
    assert bench.feed_counts()["rounds"] == 3
    controller.speaker.sequence, controller.speaker.epoch = 0, 2
    bench.ingest(*controller.shot(1), received_ns=200 * MS)
    counts = bench.feed_counts()
    assert counts["restarts"] == 1
    assert counts["rounds"] + messages_dropped(counts) == counts["messages"]
    corrections = bench.carry()
    check_cover(corrections)
    check_decoded(corrections, 1, controller.expected[1])


def test_a_restart_into_a_full_ring_is_counted_and_taken_later(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """Where the ring has no room to end the open shot, the new source's messages are counted, and followed later."""
    controller = Controller(plan_d3, 3)
    bench = make_bench(plan_d3, ring_rounds=16)
    bench.ingest(*controller.shot(0), received_ns=MS)
    bench.ingest(*controller.shot(1), received_ns=MS)
    controller.speaker.sequence, controller.speaker.epoch = 0, 2
    bench.ingest(*controller.shot(2), received_ns=200 * MS)
    counts = bench.feed_counts()
    assert counts["rounds"] + messages_dropped(counts) == counts["messages"]
    first = bench.carry()
    bench.ingest(*controller.shot(2), received_ns=201 * MS)
    corrections = np.concatenate([first, bench.carry()])
    check_cover(corrections)
    check_decoded(corrections, 0, controller.expected[0])
    assert bench.feed_counts()["restarts"] == 1
    assert corrections["flags"][-1] == CorrectionFlag.LAST_OF_SHOT
