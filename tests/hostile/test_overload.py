"""A lane that cannot keep up says so, answers in time all the same, and makes up for it when it can."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from rtqec.batch import Decoding
from rtqec.kernels.records import CURSOR_STRIDE, HEAD, TAIL
from rtqec.plan import Plan
from rtqec.wire import CorrectionFlag, FrameStatus, Reason, Rung
from tests.harness import (
    Bench,
    BenchMaker,
    Piece,
    Speaker,
    check_cover,
    check_decoded,
    expected_flips,
    make_plan,
    slow_decoder,
)

CLEAN, TAINTED = FrameStatus.CLEAN, FrameStatus.TAINTED
DEGRADED, LAST = CorrectionFlag.DEGRADED, CorrectionFlag.LAST_OF_SHOT
AMENDMENT, CAUGHT_UP, OPEN_PAST = CorrectionFlag.AMENDMENT, CorrectionFlag.CAUGHT_UP, CorrectionFlag.OPEN_PAST
FOREVER_US = 1e9
"""A budget of 1000 s: what costs less is on time, what costs more is not, whatever the machine."""
CHEAP_NS, DEAR_NS = 1e3, 1e15


def price(bench: Bench, *dear: Decoding) -> None:
    """Let windows of some engines be too slow, and all others be fast enough."""
    for cost_ns, (_, engine) in zip(bench.streams.cost_ns, bench.streams.models, strict=True):
        cost_ns[:] = DEAR_NS if engine in dear else CHEAP_NS


class Stream:
    """Shots of a plan for a bench, and what is said of them."""

    def __init__(
        self, bench: Bench, plan: Plan, num_shots: int = 4, num_rounds: int | None = None, patch: int = 0
    ) -> None:
        self.bench, self.plan, self.num_rounds = bench, plan, num_rounds
        self.piece, self.speaker = Piece.of(plan, num_rounds), Speaker(plan, patch_id=patch)
        self.shots = self.piece.sample(num_shots, seed=61 + patch)
        self.expected = expected_flips(plan, self.shots, num_rounds)
        self.layers_b8 = self.piece.layers_b8(self.shots)

    def messages(self, shot_id: int) -> list[bytes]:
        """All messages of a shot."""
        return self.speaker.shot(self.piece.blocks(self.shots[shot_id]), shot_id)

    def at_once(self, *shot_ids: int) -> np.ndarray:
        """Corrections of shots that come before the path looks."""
        for shot_id in shot_ids:
            self.bench.ingest(*self.messages(shot_id), received_ns=time.monotonic_ns())
        return self.bench.carry()

    def by_rounds(self, shot_id: int, *dear: Decoding) -> np.ndarray:
        """Corrections of a shot, each round of which is carried before the next one comes."""
        found = []
        for message in self.messages(shot_id):
            price(self.bench, *dear)
            self.bench.ingest(message, received_ns=time.monotonic_ns())
            found.append(self.bench.carry())
        return np.concatenate(found)

    def wrong(self, shot_id: int, corrections: np.ndarray) -> list[int]:
        """Corrections of a shot whose flips are not those of the same cuts and rungs, decoded slowly."""
        return slow_decoder(self.plan).replay(self.layers_b8[shot_id], corrections)


def said(corrections: np.ndarray) -> list[tuple[int, ...]]:
    """Of each correction: first round, first round behind it, rung, reason, flags."""
    return [
        (int(c["first_round"]), int(c["first_round"] + c["num_rounds"]), int(c["rung"]), int(c["reason"]),
         int(c["flags"])) for c in corrections
    ]  # fmt: skip


LADDER = ("match", "catch_up", "union_find", "hold")
# Engines that are too slow, and the rung that remains for a window with nothing behind it.
REMAINING = {
    "nothing": ((), Rung.CORRELATED_MATCH, Reason.CONFIGURED),
    "correlated": ((Decoding.CORRELATED,), Rung.MATCH, Reason.DEADLINE),
    "matching": ((Decoding.CORRELATED, Decoding.PLAIN), Rung.UNION_FIND, Reason.DEADLINE),
    "everything": (tuple(Decoding), Rung.UNION_FIND, Reason.DEADLINE),
}


@pytest.mark.parametrize("slow", REMAINING)
def test_a_window_steps_down_to_what_is_on_time(make_bench: BenchMaker, slow: str) -> None:
    """Each rung in turn is chosen where those above it are predicted to be late, of open and closing windows alike; the
    correction says which and why, and its flips are those of that rung."""
    dear, rung, reason = REMAINING[slow]
    plan = make_plan(plan__matching="correlated", plan__noise=0.02)
    bench = make_bench(plan, fallbacks=LADDER[:3], budget_us=FOREVER_US)
    stream = Stream(bench, plan, num_shots=6)
    for shot_id in range(6):
        corrections = stream.by_rounds(shot_id, *dear)
        check_cover(corrections)
        assert said(corrections) == [
            (0, 3, rung, reason, 0), (3, 6, rung, reason, 0), (6, 9, rung, reason, 0), (9, 13, rung, reason, LAST),
        ]  # fmt: skip
        assert stream.wrong(shot_id, corrections) == []
    counts = bench.path_counts()
    assert counts.get("stepped_down", 0) == (24 if dear else 0)
    assert "corrections_late" not in counts
    assert bench.telemetry.rung_counts[0].sum(axis=1).tolist() == [24 if r == rung else 0 for r in Rung]


@pytest.mark.parametrize("fallbacks", [(), ("catch_up",), ("match", "catch_up")])
def test_a_ladder_of_one_rung_is_never_stepped_down(make_bench: BenchMaker, fallbacks: tuple[str, ...]) -> None:
    """Where there is nothing else to decode with, a slow window is decoded as configured, and not called a fallback."""
    plan = make_plan(ladder__fallbacks=fallbacks)
    bench = make_bench(plan, fallbacks=fallbacks, budget_us=FOREVER_US)
    stream = Stream(bench, plan)
    corrections = stream.by_rounds(0, *Decoding)
    check_decoded(corrections, 0, stream.expected[0])
    assert set(corrections["reason"]) == {Reason.CONFIGURED}
    assert "stepped_down" not in bench.path_counts()


@pytest.mark.parametrize("endless", [False, True], ids=["finite", "endless"])
def test_windows_that_queue_are_caught_up_with(make_bench: BenchMaker, endless: bool) -> None:
    """Where one window cannot be on time and more rounds have come, the most that has come is decided at once, and
    said; its flips are those of the same cuts. The last window, behind which nothing waits, steps further down."""
    plan = make_plan(
        plan__matching="correlated", plan__noise=0.02, plan__rounds="endless" if endless else 39,
        ladder__fallbacks=LADDER[:3],
    )  # fmt: skip
    bench = make_bench(plan, fallbacks=LADDER[:3], budget_us=FOREVER_US, ring_rounds=256)
    stream = Stream(bench, plan, num_rounds=40 if endless else None)
    price(bench, Decoding.CORRELATED, Decoding.PLAIN)
    corrections = stream.at_once(0)
    check_cover(corrections)
    assert said(corrections) == [
        *((start, start + 12, Rung.MATCH, Reason.BACKLOG, CAUGHT_UP) for start in (0, 12, 24)),
        (36, 40, Rung.UNION_FIND, Reason.DEADLINE, LAST),
    ]  # fmt: skip
    assert stream.wrong(0, corrections) == []
    assert (bench.path_counts()["caught_up"], bench.path_counts()["stepped_down"]) == (3, 1)
    price(bench)
    corrections = stream.at_once(1)
    assert set(corrections["reason"]) == {Reason.CONFIGURED}
    assert stream.wrong(1, corrections) == []


def test_a_shot_that_has_come_whole_is_caught_up_with_whole(make_bench: BenchMaker) -> None:
    """What catches up may end the shot, where a plan has such a window."""
    plan = make_plan(ladder__fallbacks=("catch_up",))
    bench = make_bench(plan, fallbacks=("catch_up",), budget_us=FOREVER_US)
    stream = Stream(bench, plan)
    price(bench, Decoding.PLAIN)
    corrections = stream.at_once(0)
    assert said(corrections) == [(0, 13, Rung.MATCH, Reason.BACKLOG, CAUGHT_UP | LAST)]
    assert stream.wrong(0, corrections) == []


def test_rounds_that_pile_up_are_answered_at_once_and_decoded_later(make_bench: BenchMaker) -> None:
    """Beyond the bound all closed windows are held, degraded, tainted; then they are decoded in order as amendments,
    and the frame is clean again. An amendment is never late."""
    plan = make_plan(ladder__fallbacks=())
    bench = make_bench(plan, backlog_rounds=8, budget_us=0.001)
    stream = Stream(bench, plan)
    corrections = stream.at_once(0)
    check_cover(corrections)
    match, late = (Rung.MATCH, Reason.BACKLOG), CorrectionFlag.LATE
    assert said(corrections) == [
        (0, 13, Rung.HOLD, Reason.BACKLOG, DEGRADED | LAST | late),
        (0, 3, *match, AMENDMENT), (3, 6, *match, AMENDMENT), (6, 9, *match, AMENDMENT),
        (9, 13, *match, AMENDMENT | LAST),
    ]  # fmt: skip
    assert corrections["frame_status"].tolist() == [TAINTED, CLEAN, CLEAN, CLEAN, CLEAN]
    assert int(corrections[-1]["frame"]) == stream.expected[0]
    counts = bench.path_counts()
    assert (counts["rounds_held"], counts["rounds_amended"], counts["rounds_committed"]) == (13, 13, 13)
    assert (counts["corrections_late"], bench.telemetry.service_counts.sum()) == (1, 1)
    bench.streams.patches["budget_ns"] = 1 << 60
    check_decoded(stream.by_rounds(1), 1, stream.expected[1])


@pytest.mark.parametrize("num_rounds", range(13, 29))
def test_catching_up_ends_where_the_shot_does(make_bench: BenchMaker, num_rounds: int) -> None:
    """Whatever its length, a shot that was held whole is amended whole, in as few windows as the ladder allows; none
    but the last looks at the readout."""
    plan = make_plan(plan__rounds="endless", ladder__fallbacks=("catch_up",))
    bench = make_bench(plan, fallbacks=("catch_up",), backlog_rounds=8)
    stream = Stream(bench, plan, num_rounds=num_rounds)
    corrections = stream.at_once(0)
    (shot,) = check_cover(corrections)
    assert shot.num_held == shot.num_amended == num_rounds
    ends = corrections["first_round"][1:-1] + corrections["num_rounds"][1:-1] + plan.window.buffer_rounds
    assert (ends < num_rounds).all()
    assert len(corrections) <= 2 + num_rounds // 6
    assert corrections["frame_status"][-1] == CLEAN
    assert stream.wrong(0, corrections) == []


def test_what_is_held_after_an_amendment_stands_on_it(make_bench: BenchMaker) -> None:
    """The frame of every correction is the XOR of all flips of its shot so far, also where rounds are held again before
    those held first have all been decoded."""
    plan = make_plan(plan__rounds=30, plan__noise=0.03, ladder__fallbacks=())
    bench = make_bench(plan, backlog_rounds=8)
    stream = Stream(bench, plan, num_shots=12)
    held_on_flips = 0
    for shot_id in range(12):
        messages, found = stream.messages(shot_id), []
        for start in range(0, 31, 9):
            bench.ingest(*messages[start : start + 9])
            for _ in range(3):
                bench.pipeline.step()
            found.append(bench.collect())
        corrections = np.concatenate([*found, bench.carry()])
        (shot,) = check_cover(corrections)
        assert (shot.num_held, shot.frame) == (shot.num_amended, stream.expected[shot_id])
        held_on_flips += int((corrections["frame"][corrections["rung"] == Rung.HOLD] != 0).sum())
    assert held_on_flips > 3


def test_live_windows_come_before_amendments(make_bench: BenchMaker) -> None:
    """While one patch has rounds to amend, windows of another are decoded as they close; then the rest is amended."""
    plan = make_plan(ladder__fallbacks=())
    bench = make_bench(plan, plan, backlog_rounds=8)
    streams = [Stream(bench, plan, patch=p) for p in range(2)]
    bench.ingest(*streams[0].messages(0))
    bench.pipeline.step()
    found = [bench.collect()]
    for message in streams[1].messages(0):
        bench.ingest(message)
        while int(bench.ring.cursors[CURSOR_STRIDE + HEAD]) - int(bench.streams.states[1]["start"]) >= 6:
            bench.pipeline.step()
            found.append(bench.collect())
            if found[-1][0]["flags"] & LAST:
                break
    corrections = np.concatenate([*found, bench.carry()])
    assert corrections["patch_id"].tolist() == [0, 1, 1, 1, 1, 0, 0, 0, 0]
    for p, stream in enumerate(streams):
        mine = corrections[corrections["patch_id"] == p]
        check_cover(mine)
        assert int(mine[-1]["frame"]) == stream.expected[0]


def test_held_rounds_are_given_up_where_the_ring_gets_too_full(make_bench: BenchMaker, plan_endless: Plan) -> None:
    """Without room for what is held, decoding goes on where answers have got to, with an open past; the frame stays
    tainted until the shot ends. What is given up is counted, and the next shot decoded."""
    plan = make_plan(plan__rounds="endless", ladder__fallbacks=())
    bench = make_bench(plan, ring_rounds=32, backlog_rounds=10)
    stream = Stream(bench, plan, num_rounds=40)
    messages = stream.messages(0)
    bench.ingest(*messages[:12])
    bench.pipeline.step()
    bench.ingest(*messages[12:24])
    found = [bench.carry()]
    for message in messages[24:]:
        bench.ingest(message)
        found.append(bench.carry())
    corrections = np.concatenate(found)
    check_cover(corrections)
    hold, amend = (Rung.HOLD, Reason.BACKLOG, DEGRADED), (Rung.MATCH, Reason.BACKLOG)
    assert said(corrections)[:7] == [
        (0, 9, *hold), (9, 21, *hold), (9, 12, *amend, AMENDMENT | OPEN_PAST), (12, 15, *amend, AMENDMENT),
        (15, 18, *amend, AMENDMENT), (18, 21, *amend, AMENDMENT), (21, 24, Rung.MATCH, Reason.CONFIGURED, 0),
    ]  # fmt: skip
    assert set(corrections["frame_status"]) == {TAINTED}
    assert set(corrections["tainted_since"]) == {0}
    assert stream.wrong(0, corrections) == []
    counts = bench.path_counts()
    assert (counts["rounds_held"], counts["rounds_amended"], counts["rounds_given_up"]) == (21, 12, 9)
    check_decoded(stream.by_rounds(1), 1, stream.expected[1])
    assert bench.ring.cursors[HEAD] == bench.ring.cursors[TAIL]


def test_a_window_that_cannot_be_on_time_is_held_and_amended(make_bench: BenchMaker) -> None:
    """The step `hold` answers the one window at once, and decodes it as soon as nothing else is to be done."""
    plan = make_plan(plan__matching="correlated", plan__noise=0.02)
    bench = make_bench(plan, fallbacks=LADDER, budget_us=FOREVER_US, backlog_rounds=20)
    stream = Stream(bench, plan)
    for shot_id in range(4):
        corrections = stream.by_rounds(shot_id, *Decoding)
        (shot,) = check_cover(corrections)
        assert shot.num_held == shot.num_amended == 13
        hold, amend = (Rung.HOLD, Reason.DEADLINE), (Rung.MATCH, Reason.BACKLOG)
        assert said(corrections) == [
            (0, 3, *hold, DEGRADED), (0, 3, *amend, AMENDMENT), (3, 6, *hold, DEGRADED), (3, 6, *amend, AMENDMENT),
            (6, 9, *hold, DEGRADED), (6, 9, *amend, AMENDMENT),
            (9, 13, *hold, DEGRADED | LAST), (9, 13, *amend, AMENDMENT | LAST),
        ]  # fmt: skip
        assert corrections["frame_status"].tolist() == [TAINTED, CLEAN] * 4
        assert stream.wrong(shot_id, corrections) == []
    assert set(stream.by_rounds(0)["rung"]) == {Rung.CORRELATED_MATCH}


def test_a_reset_makes_the_frame_clean_until_the_next_guess(make_bench: BenchMaker) -> None:
    """After a reset was asked for, the next correction is clean; one that is a guess itself is tainted since its own
    rounds, whatever was held before."""
    plan = make_plan(plan__rounds=30, ladder__fallbacks=())
    bench = make_bench(plan, backlog_rounds=8)
    stream = Stream(bench, plan)
    first, second = stream.messages(0), stream.messages(1)
    bench.ingest(*first[1:9])
    assert set(bench.carry()["frame_status"]) == {TAINTED}
    bench.telemetry.resets[0] += 1
    bench.ingest(*first[9:12])
    assert bench.carry()["frame_status"].tolist() == [CLEAN]
    bench.ingest(second[0])
    assert bench.carry()["tainted_since"].tolist() == [9]
    bench.ingest(*second[1:12])
    bench.carry()
    bench.ingest(*second[12:21])
    bench.pipeline.step()
    bench.pipeline.step()
    bench.telemetry.resets[0] += 1
    bench.pipeline.step()
    bench.ingest(*second[21:30])
    bench.pipeline.step()
    corrections = bench.collect()
    statuses = zip(corrections["frame_status"].tolist(), corrections["tainted_since"].tolist(), strict=True)
    assert [(*what[:3], *status) for what, status in zip(said(corrections), statuses, strict=True)] == [
        (9, 18, Rung.HOLD, TAINTED, 9), (9, 12, Rung.MATCH, CLEAN, 0), (12, 15, Rung.MATCH, CLEAN, 0),
        (18, 27, Rung.HOLD, TAINTED, 18),
    ]  # fmt: skip


@pytest.mark.parametrize(("cost", "batches"), [(1e3, 4), (DEAR_NS, 8)])
def test_patches_go_together_only_while_all_are_on_time(make_bench: BenchMaker, cost: float, batches: int) -> None:
    """Windows of two patches share a batch where it is predicted to be on time, else each is decoded alone."""
    plan = make_plan(ladder__fallbacks=())
    bench = make_bench(plan, plan, budget_us=FOREVER_US)
    streams = [Stream(bench, plan, patch=p) for p in range(2)]
    found = []
    for pair in zip(*(stream.messages(0) for stream in streams), strict=True):
        bench.streams.cost_ns.fill(cost)
        bench.ingest(*pair, received_ns=time.monotonic_ns())
        found.append(bench.carry())
    corrections = np.concatenate(found)
    assert sum(bench.path_counts(p).get("batches", 0) for p in range(2)) == batches
    for p, stream in enumerate(streams):
        check_decoded(corrections[corrections["patch_id"] == p], 0, stream.expected[0])


@pytest.mark.parametrize(("cost", "mispredicted"), [(1e3, 4), (DEAR_NS, 0)])
def test_a_wrong_prediction_is_counted(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch, cost: float, mispredicted: int
) -> None:
    """A window that was to be on time and was not is counted; one that was known to be late is late only."""
    plan = make_plan(ladder__fallbacks=())
    bench = make_bench(plan, budget_us=20_000)
    stream = Stream(bench, plan)
    match = bench.pipeline._match

    def slow_match(batch: Any) -> None:
        time.sleep(0.03)
        match(batch)

    monkeypatch.setattr(bench.pipeline, "_match", slow_match)
    for message in stream.messages(0):
        bench.streams.cost_ns.fill(cost)
        bench.ingest(message, received_ns=time.monotonic_ns())
        bench.carry()
    counts = bench.path_counts()
    assert (counts["corrections_late"], counts.get("mispredicted", 0)) == (4, mispredicted)
