"""Each message is placed once and in its turn; the waiting room is left in order, whatever waits in it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from rtqec.plan import Plan
from rtqec.wire import CorrectionFlag
from tests.harness import Bench, BenchMaker, Piece, Speaker, check_cover, check_decoded, expected_flips, make_plan

SHOT = 13


def shots_of(plan: Plan, num_shots: int, rounds_per_message: int = 1) -> tuple[list[list[bytes]], list[int]]:
    """The messages of some shots, and what they decode to."""
    piece, speaker = Piece.of(plan), Speaker(plan)
    shots = piece.sample(num_shots, seed=51)
    messages = [speaker.shot(piece.blocks(s), i, None, rounds_per_message) for i, s in enumerate(shots)]
    return messages, expected_flips(plan, shots)


def rounds_placed(bench: Bench) -> int:
    return bench.feed_counts().get("rounds", 0)


def test_a_message_waits_for_those_before_it(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """Messages ahead of their turn are invisible until what is missing has come; then all are placed at once."""
    (messages, *_), expected = shots_of(plan_d3, 1)
    bench = make_bench(plan_d3, reorder_depth=4)
    bench.ingest(*messages[:2], *messages[3:7])
    assert (rounds_placed(bench), bench.feed_states[0]["num_waiting"]) == (2, 4)
    assert "messages_missing" not in bench.feed_counts()
    bench.ingest(messages[2])
    assert (rounds_placed(bench), bench.feed_states[0]["num_waiting"]) == (7, 0)
    bench.ingest(*messages[7:])
    check_decoded(bench.carry(), 0, expected[0])


@pytest.mark.parametrize(("arriving", "placed", "missing"), [
    # The one that is one too far ahead makes ingest give up 2, and then waits no longer: 3 is not missing.
    ([0, 1, 3, 6, 4, 5], 7, 1),
    # With two gaps, each is given up in its turn.
    ([0, 1, 3, 5, 7, 8], 9, 3),
    # Nothing waits, and the next is out of reach: what lies between is given up at once.
    ([0, 1, 9], 10, 7),
])  # fmt: skip
def test_a_message_out_of_reach_gives_the_oldest_gap_up(
    make_bench: BenchMaker, plan_d3: Plan, arriving: list[int], placed: int, missing: int
) -> None:
    """At most `reorder_depth` messages ahead are waited for; what is missing before that is filled."""
    (messages, *_), _ = shots_of(plan_d3, 1)
    bench = make_bench(plan_d3, reorder_depth=3)
    bench.ingest(*(messages[i] for i in arriving))
    bench.look_at_clocks(1 << 40)
    assert bench.placed() == placed
    assert bench.feed_counts()["messages_missing"] == missing == bench.feed_counts()["rounds_filled"]


def test_a_gap_is_waited_for_so_long_and_no_longer(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """A gap is given up `gap_wait_us` after the first message that waits for it, and said; a second gap has its own
    time; what comes then is late."""
    (messages, *_), _ = shots_of(plan_d3, 1)
    bench = make_bench(plan_d3, reorder_depth=8, gap_wait_us=10.0)
    bench.ingest(*messages[:2], received_ns=1_000)
    assert not bench.look_at_clocks(50_000)
    bench.ingest(messages[3], received_ns=100_000)
    bench.ingest(messages[5], received_ns=105_000)
    assert bench.look_at_clocks(109_999)
    assert rounds_placed(bench) == 2
    assert bench.look_at_clocks(110_000)
    assert (rounds_placed(bench), bench.placed()) == (3, 4)
    assert bench.look_at_clocks(119_999)
    assert not bench.look_at_clocks(120_000)
    assert (rounds_placed(bench), bench.placed()) == (4, 6)
    bench.ingest(messages[2], messages[4], received_ns=120_001)
    counts = bench.feed_counts()
    assert (counts["late"], counts["messages_missing"], counts["rounds_filled"]) == (2, 2, 2)


def test_a_gap_behind_one_that_has_closed_is_waited_for_from_then_on(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """Where what was missing has come, the wait for the next gap begins with that."""
    (messages, *_), _ = shots_of(plan_d3, 1)
    bench = make_bench(plan_d3, reorder_depth=8, gap_wait_us=10.0)
    bench.ingest(*messages[:2], messages[3], messages[5], received_ns=100_000)
    bench.ingest(messages[2], received_ns=108_000)
    assert rounds_placed(bench) == 4
    assert bench.look_at_clocks(117_999)
    assert not bench.look_at_clocks(118_000)
    assert (rounds_placed(bench), bench.feed_counts()["rounds_filled"]) == (5, 1)


def test_a_duplicate_of_a_waiting_message_is_dropped(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """A message that waits already, or has been placed, is a duplicate."""
    (messages, *_), expected = shots_of(plan_d3, 1)
    bench = make_bench(plan_d3, reorder_depth=4)
    bench.ingest(*messages[:2], messages[3], messages[3], messages[4], messages[3], messages[1])
    assert bench.feed_counts()["duplicate"] == 3
    bench.ingest(*messages[2:])
    assert bench.feed_counts()["duplicate"] == 5
    check_decoded(bench.carry(), 0, expected[0])


def test_a_duplicate_is_known_for_64_messages(bench_d3: Bench, plan_d3: Plan) -> None:
    """Of the last 64 numbers ingest knows which came: of those a message is a duplicate or late; further back, late."""
    messages = [m for shot in shots_of(plan_d3, 8)[0] for m in shot]
    for place, message in enumerate(messages[:90]):
        if place != 40:
            bench_d3.ingest(message)
            bench_d3.carry()
    for place, cause in ((89, "duplicate"), (26, "duplicate"), (25, "late"), (0, "late"), (40, "late")):
        before = bench_d3.feed_counts()
        bench_d3.ingest(messages[place])
        assert bench_d3.feed_counts() == before | {"messages": before["messages"] + 1, cause: before.get(cause, 0) + 1}


def test_messages_too_long_to_wait_do_not_strand_those_that_do(make_bench: BenchMaker) -> None:
    """A message longer than the room ends the waiting of those before it: they are placed first, and in order."""
    plan = make_plan(
        plan__generated="repetition_code:memory", plan__distance=41, plan__rounds="endless",
        window__accept_short_buffer=True,
    )  # fmt: skip
    piece, speaker = Piece.of(plan, 1000), Speaker(plan)
    shot = piece.sample(1, seed=52)
    blocks = piece.blocks(shot[0])
    cuts = [0, 1, 2, 3, 4, 5, 990, 999, 1000]
    messages = [speaker.message(np.array(blocks[a:b]), first_round=a, last=b == 1000) for a, b in pairwise(cuts)]
    assert len(messages[5]) > 4096
    bench = make_bench(plan, reorder_depth=8, ring_rounds=2048)
    bench.ingest(messages[0], *messages[2:4], messages[5], messages[4], *messages[6:])
    bench.look_at_clocks(1 << 40)
    counts = bench.feed_counts()
    assert (counts["messages_missing"], counts["rounds_filled"], counts["late"]) == (2, 2, 1)
    corrections = bench.carry()
    check_cover(corrections)
    assert corrections["num_rounds"].sum() == 1000
    assert not (corrections["flags"] & CorrectionFlag.DEGRADED).any()


def test_a_shot_that_has_ended_is_not_continued(bench_d3: Bench, plan_d3: Plan) -> None:
    """A message with a new number but of a shot that has ended is late, and changes nothing."""
    (messages, *_), expected = shots_of(plan_d3, 1)
    speaker = Speaker(plan_d3)
    speaker.sequence = SHOT
    bench_d3.ingest(*messages)
    bench_d3.ingest(speaker.message(np.zeros(8, np.bool_), first_round=3))
    assert bench_d3.feed_counts()["late"] == 1
    check_decoded(bench_d3.carry(), 0, expected[0])
    assert not bench_d3.pipeline.step()
