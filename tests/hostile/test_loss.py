"""What is lost is held, filled or refused, and said; the next shot is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zmq

from rtqec.kernels.records import SIGNAL_SEQUENCE
from rtqec.plan import Plan, compile_plan
from rtqec.wire import CorrectionFlag, FrameStatus, Reason, Rung
from tests.harness import (
    Bench,
    BenchMaker,
    Piece,
    Speaker,
    check_cover,
    check_decoded,
    closed_plan,
    expected_flips,
    flips_of_shot,
    make_config,
    make_plan,
    slow_decoder,
    with_header,
    write_circuit,
)
from tests.unit.test_folding import SWEPT, WITHOUT_RESET

HELD = CorrectionFlag.LOSSY | CorrectionFlag.DEGRADED
LAST = CorrectionFlag.LAST_OF_SHOT
OPEN_PAST = CorrectionFlag.OPEN_PAST
MILLION = 1_000_000


def spans(corrections: np.ndarray, shot_id: int) -> list[tuple[int, int, int, int]]:
    """Of each correction of a shot: first round, first round behind it, flags, reason."""
    return [
        (int(c["first_round"]), int(c["first_round"] + c["num_rounds"]), int(c["flags"]), int(c["reason"]))
        for c in corrections[corrections["shot_id"] == shot_id]
    ]


def check_tainted(corrections: np.ndarray, shot_id: int, since: int) -> None:
    """A shot's frame is clean before the round in which a guess went into it, and tainted from there on."""
    for correction in corrections[corrections["shot_id"] == shot_id]:
        tainted = correction["first_round"] >= since
        assert correction["frame_status"] == (FrameStatus.TAINTED if tainted else FrameStatus.CLEAN)
        assert correction["tainted_since"] == (since if tainted else 0)


# Messages of a shot of 13 rounds that come, and what is said of it: windows of 3 + 3, a look-back of one round.
CONFIGURED, GAP, TRUNCATED = Reason.CONFIGURED, Reason.GAP, Reason.SHOT_TRUNCATED
INCOMPLETE = {
    "first": (range(1, 13), 0, [
        (0, 3, HELD, GAP), (3, 6, OPEN_PAST, CONFIGURED), (6, 9, 0, CONFIGURED), (9, 13, LAST, CONFIGURED),
    ]),
    "first three": (range(3, 13), 0, [(0, 6, HELD, GAP), (6, 9, OPEN_PAST, CONFIGURED), (9, 13, LAST, CONFIGURED)]),
    "last": (range(12), 9, [
        (0, 3, 0, CONFIGURED), (3, 6, 0, CONFIGURED), (6, 9, 0, CONFIGURED), (9, 13, HELD | LAST, TRUNCATED),
    ]),
    "first and last": (range(1, 12), 0, [
        (0, 3, HELD, GAP), (3, 6, OPEN_PAST, CONFIGURED), (6, 9, 0, CONFIGURED), (9, 13, HELD | LAST, TRUNCATED),
    ]),
    "all but the middle": (range(6, 7), 0, [(0, 13, HELD | LAST, TRUNCATED)]),
    "all but the last three": (range(10, 13), 0, [(0, 12, HELD, GAP), (12, 13, CorrectionFlag.DEGRADED | LAST,
                                                                     Reason.NO_WINDOW)]),
    "all but the last": (range(12, 13), 0, [(0, 13, HELD | LAST, GAP)]),
    "all": (range(0), 0, []),
}  # fmt: skip


@pytest.mark.parametrize("lost", INCOMPLETE)
def test_a_shot_without_an_end_is_held_and_the_next_one_decoded(bench_d3: Bench, plan_d3: Plan, lost: str) -> None:
    """A finite shot without its first or last messages is held where it must be, and decoded behind the gap with an
    open past, as the slow windows say; its neighbours are clean."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    shots = piece.sample(3, seed=21)
    expected = expected_flips(plan_d3, shots)
    kept, tainted_since, said = INCOMPLETE[lost]
    for shot_id, shot in enumerate(shots):
        messages = speaker.shot(piece.blocks(shot), shot_id)
        bench_d3.ingest(*([messages[t] for t in kept] if shot_id == 1 else messages))
    corrections = bench_d3.carry()
    check_cover(corrections)
    assert spans(corrections, 1) == said
    check_tainted(corrections, 1, tainted_since)
    mine = corrections[corrections["shot_id"] == 1]
    assert slow_decoder(plan_d3).replay(piece.layers_b8(shots[1:2])[0], mine) == []
    for shot_id in (0, 2):
        check_decoded(corrections, shot_id, expected[shot_id])


def test_an_endless_stream_without_a_beginning_is_taken_up_with_an_open_past(
    make_bench: BenchMaker, plan_endless: Plan
) -> None:
    """Of an endless shot whose first rounds never came, what cannot be folded is held, the rest decoded."""
    piece, speaker = Piece.of(plan_endless, 20), Speaker(plan_endless)
    shots = piece.sample(2, seed=22)
    bench = make_bench(plan_endless)
    bench.ingest(*speaker.shot(piece.blocks(shots[0]), 0)[1:], *speaker.shot(piece.blocks(shots[1]), 1))
    counts = bench.feed_counts()
    assert (counts["shots_headless"], counts["rounds"], "messages_missing" in counts) == (1, 39, False)
    corrections = bench.carry()
    check_cover(corrections)
    assert spans(corrections, 0)[:3] == [(0, 3, HELD, GAP), (3, 6, OPEN_PAST, CONFIGURED), (6, 9, 0, CONFIGURED)]
    assert spans(corrections, 0)[-1] == (15, 20, LAST, CONFIGURED)
    check_tainted(corrections, 0, 0)
    mine = corrections[corrections["shot_id"] == 0]
    assert slow_decoder(plan_endless).replay(piece.layers_b8(shots[:1])[0], mine) == []
    check_decoded(corrections, 1, expected_flips(plan_endless, shots, 20)[1])


@pytest.mark.parametrize(("kept", "said"), [
    (4, [(0, 18, HELD, GAP), (18, 20, CorrectionFlag.DEGRADED | LAST, Reason.NO_WINDOW)]),
    (2, [(0, 20, HELD | LAST, GAP)]),
    (1, [(0, 20, HELD | LAST, GAP)]),
])  # fmt: skip
def test_an_endless_stream_that_is_heard_only_at_its_end_is_held(
    make_bench: BenchMaker, plan_endless: Plan, kept: int, said: list[tuple[int, ...]]
) -> None:
    """An endless plan ends no shot with an open past: it is held whole, and the next one decoded."""
    piece, speaker = Piece.of(plan_endless, 20), Speaker(plan_endless)
    shots = piece.sample(2, seed=22)
    bench = make_bench(plan_endless)
    bench.ingest(*speaker.shot(piece.blocks(shots[0]), 0)[-kept:], *speaker.shot(piece.blocks(shots[1]), 1))
    corrections = bench.carry()
    check_cover(corrections)
    assert spans(corrections, 0) == said
    check_decoded(corrections, 1, expected_flips(plan_endless, shots, 20)[1])


def test_an_endless_stream_that_stops_is_held_from_there(make_bench: BenchMaker, plan_endless: Plan) -> None:
    """When another shot begins, what is left of an endless one is held, and the new one is decoded."""
    piece, speaker = Piece.of(plan_endless, 20), Speaker(plan_endless)
    shots = piece.sample(2, seed=23)
    bench = make_bench(plan_endless)
    bench.ingest(*speaker.shot(piece.blocks(shots[0]), 0)[:-4])
    bench.ingest(*speaker.shot(piece.blocks(shots[1]), 1))
    corrections = bench.carry()
    check_cover(corrections)
    assert spans(corrections, 0) == [
        *((start, start + 3, 0, CONFIGURED) for start in range(0, 12, 3)), (12, 16, HELD | LAST, TRUNCATED)
    ]  # fmt: skip
    check_decoded(corrections, 1, expected_flips(plan_endless, shots, 20)[1])


def test_a_stream_too_short_for_any_window_is_held(make_bench: BenchMaker, plan_endless: Plan) -> None:
    """A shot of one round, for which an endless plan has no window, is a guess, but nothing of it was lost."""
    piece, speaker = Piece.of(plan_endless, 20), Speaker(plan_endless)
    shot = piece.sample(1, seed=24)
    bench = make_bench(plan_endless)
    bench.ingest(speaker.message(piece.blocks(shot[0])[-1], shot_id=0, first_round=0, last=True))
    bench.ingest(*speaker.shot(piece.blocks(shot[0]), 1))
    corrections = bench.carry()
    check_cover(corrections)
    assert spans(corrections, 0) == [(0, 1, CorrectionFlag.DEGRADED | LAST, Reason.NO_WINDOW)]
    check_decoded(corrections, 1, expected_flips(plan_endless, shot, 20)[0])


# Rounds that come: (round of the experiment that is sent, number that it bears). Shots of 40 rounds; ring of 32.
def plain(*rounds: int, leap: int = 0) -> list[tuple[int, int]]:
    return [(t, t + leap) for t in rounds]


JUMPS = {
    "beyond the ring": ([*plain(*range(8)), *plain(*range(30, 40))], [
        (0, 3, 0, CONFIGURED), (3, 33, HELD, GAP), (33, 36, OPEN_PAST, CONFIGURED), (36, 40, LAST, CONFIGURED),
    ]),
    "a million rounds": ([*plain(*range(8)), *plain(*range(8, 40), leap=MILLION)], [
        (0, 3, 0, CONFIGURED), (3, MILLION + 11, HELD, GAP), (MILLION + 11, MILLION + 14, OPEN_PAST, CONFIGURED),
        *((MILLION + t, MILLION + t + 3, 0, CONFIGURED) for t in range(14, 35, 3)),
        (MILLION + 35, MILLION + 40, LAST, CONFIGURED),
    ]),
    "twice in a row": ([*plain(*range(8)), (8, MILLION), *plain(*range(9, 40), leap=2 * MILLION)], [
        (0, 3, 0, CONFIGURED), (3, 2 * MILLION + 10, HELD, GAP),
        (2 * MILLION + 10, 2 * MILLION + 13, OPEN_PAST, CONFIGURED),
        *((2 * MILLION + t, 2 * MILLION + t + 3, 0, CONFIGURED) for t in range(13, 34, 3)),
        (2 * MILLION + 34, 2 * MILLION + 40, LAST, CONFIGURED),
    ]),
    "again behind a window": ([*plain(*range(8)), *plain(*range(8, 20), leap=MILLION),
                               *plain(*range(20, 40), leap=2 * MILLION)], [
        (0, 3, 0, CONFIGURED), (3, MILLION + 11, HELD, GAP), (MILLION + 11, MILLION + 14, OPEN_PAST, CONFIGURED),
        (MILLION + 14, MILLION + 17, 0, CONFIGURED), (MILLION + 17, 2 * MILLION + 22, HELD, GAP),
        (2 * MILLION + 22, 2 * MILLION + 25, OPEN_PAST, CONFIGURED),
        *((2 * MILLION + t, 2 * MILLION + t + 3, 0, CONFIGURED) for t in range(25, 34, 3)),
        (2 * MILLION + 34, 2 * MILLION + 40, LAST, CONFIGURED),
    ]),
    "and broken off at once": ([*plain(*range(8)), (8, MILLION)], [
        (0, 3, 0, CONFIGURED), (3, MILLION + 1, HELD | LAST, TRUNCATED),
    ]),
    "and broken off later": ([*plain(*range(8)), *plain(*range(8, 13), leap=MILLION)], [
        (0, 3, 0, CONFIGURED), (3, MILLION + 11, HELD, GAP), (MILLION + 11, MILLION + 13, HELD | LAST, TRUNCATED),
    ]),
    "just before the end": ([*plain(*range(8)), *plain(38, 39)], [
        (0, 3, 0, CONFIGURED), (3, 39, HELD, GAP), (39, 40, CorrectionFlag.DEGRADED | LAST, Reason.NO_WINDOW),
    ]),
    "to the end": ([*plain(*range(8)), *plain(39)], [(0, 3, 0, CONFIGURED), (3, 40, HELD | LAST, GAP)]),
    "from the first round": ([*plain(0), *plain(*range(1, 12), leap=MILLION)], [
        (0, MILLION + 2, HELD, GAP), (MILLION + 2, MILLION + 5, OPEN_PAST, CONFIGURED),
        (MILLION + 5, MILLION + 8, 0, CONFIGURED), (MILLION + 8, MILLION + 12, HELD | LAST, TRUNCATED),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", JUMPS)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "round by round"])
def test_a_gap_that_no_ring_could_hold_is_jumped(
    make_bench: BenchMaker, plan_endless: Plan, name: str, at_once: bool
) -> None:
    """What lies in a gap that cannot be filled is held, up to the first window behind it; the shot then goes on with an
    open past and a tainted frame. The next shot is decoded."""
    sent, said = JUMPS[name]
    piece, speaker = Piece.of(plan_endless, 40), Speaker(plan_endless)
    shots = piece.sample(2, seed=25)
    blocks = piece.blocks(shots[0])
    messages = [speaker.message(blocks[t], shot_id=0, first_round=number, last=t == 39) for t, number in sent]
    messages += speaker.shot(piece.blocks(shots[1]), 1)
    bench = make_bench(plan_endless, ring_rounds=32)
    found = []
    for place, message in enumerate(messages):
        bench.ingest(message)
        # A ring of 32 takes no more at once.
        if not at_once or place % 10 == 9:
            found.append(bench.carry())
    corrections = np.concatenate([*found, bench.carry()])
    assert "ring_full" not in bench.feed_counts()
    check_cover(corrections)
    assert spans(corrections, 0) == said
    check_tainted(corrections, 0, said[[flags & HELD for _, _, flags, _ in said].index(HELD)][0])
    check_decoded(corrections, 1, expected_flips(plan_endless, shots, 40)[1])


@pytest.mark.parametrize("headless", [True, False])
def test_a_gap_wakes_the_path(make_bench: BenchMaker, plan_endless: Plan, headless: bool) -> None:
    """The path, which sleeps until a window's worth of rounds has come, looks at once where a gap begins: what is held
    can be answered sooner than a window closes."""
    piece, speaker = Piece.of(plan_endless, 40), Speaker(plan_endless)
    messages = speaker.shot(piece.blocks(piece.sample(1, seed=40)[0]), 0)
    bench = make_bench(plan_endless, ring_rounds=32)
    bench.ingest(*([] if headless else messages[:6]))
    bench.carry()
    woken = int(bench.ring.signal[SIGNAL_SEQUENCE])
    bench.ingest(messages[30])
    assert bench.ring.signal[SIGNAL_SEQUENCE] == woken + 1
    assert not bench.pipeline.step()
    bench.ingest(messages[31], messages[32])
    assert bench.ring.signal[SIGNAL_SEQUENCE] == woken + 2
    assert bench.carry()["reason"].tolist() == [GAP]


@pytest.mark.parametrize("headless", [True, False])
@pytest.mark.parametrize("leap", [(1 << 32) - 4, (1 << 32) - 1, 1 << 32, 1 << 33, 1 << 50])
def test_a_gap_may_have_more_rounds_than_a_correction_can_say(
    make_bench: BenchMaker, plan_endless: Plan, leap: int, headless: bool
) -> None:
    """What has run for days is taken up where it is; the number of the rounds that are held is exact or, where the
    field is too small, its largest value, and the next correction says where they ended."""
    piece, speaker = Piece.of(plan_endless, 40), Speaker(plan_endless)
    shots = piece.sample(2, seed=38)
    bench = make_bench(plan_endless)
    messages = speaker.shot(piece.blocks(shots[0]), 0)
    bench.ingest(*([] if headless else messages[:6]))
    bench.ingest(*(with_header(m, first_round=t + leap) for t, m in enumerate(messages) if t >= 6))
    found = [bench.carry()]
    bench.ingest(*speaker.shot(piece.blocks(shots[1]), 1))
    corrections = np.concatenate([*found, bench.carry()])
    check_cover(corrections)
    gap = corrections[corrections["reason"] == GAP]
    start, stop = 0 if headless else 3, -(-(leap + 7) // 3) * 3
    assert (int(gap["first_round"][0]), int(gap["num_rounds"][0])) == (start, min(stop - start, (1 << 32) - 1))
    resumed = corrections[int(gap["window_index"][0]) + 1]
    assert (int(resumed["first_round"]), int(resumed["flags"])) == (stop, OPEN_PAST)
    assert bench.path_counts()["rounds_committed"] == leap + 40 + 40
    check_decoded(corrections, 1, expected_flips(plan_endless, shots, 40)[1])


def test_a_damaged_round_number_does_not_silence_an_endless_stream(make_bench: BenchMaker, plan_endless: Plan) -> None:
    """After one message with a round number far ahead, all that follow look old; a run of them is believed, and the
    stream is taken up again, as another part of the same shot."""
    piece, speaker = Piece.of(plan_endless, 60), Speaker(plan_endless)
    shots = piece.sample(2, seed=39)
    bench = make_bench(plan_endless, ring_rounds=128)
    messages = speaker.shot(piece.blocks(shots[0]), 0)
    messages[20] = with_header(messages[20], first_round=1 << 40)
    bench.ingest(*messages[:36])
    counts = bench.feed_counts()
    assert (counts["late"], counts["jumps"], "resyncs" in counts) == (15, 1, False)
    bench.ingest(*messages[36:])
    counts = bench.feed_counts()
    assert (counts["late"], counts["resyncs"], counts["shots_truncated"]) == (15, 1, 1)
    found = [bench.carry()]
    bench.ingest(*speaker.shot(piece.blocks(shots[1]), 1))
    corrections = np.concatenate([*found, bench.carry()])
    first, second, _ = check_cover(corrections)
    assert (first.ended, second.through) == (True, 60)
    again = corrections[np.flatnonzero(corrections["reason"] == GAP)[-1] + 1]
    assert (int(again["first_round"]), int(again["flags"])) == (39, OPEN_PAST)
    check_decoded(corrections, 1, expected_flips(plan_endless, shots, 60)[1])


def test_a_gap_in_a_finite_shot_is_jumped_too(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """Where most of a finite shot is lost, and the ring is small, its end is decoded or held, the next shot decoded."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    shots = piece.sample(2, seed=28)
    bench = make_bench(plan_d3, ring_rounds=16)
    messages = speaker.shot(piece.blocks(shots[0]), 0)
    bench.ingest(messages[0], *messages[9:])
    corrections = [bench.carry()]
    bench.ingest(*speaker.shot(piece.blocks(shots[1]), 1))
    corrections = np.concatenate([*corrections, bench.carry()])
    check_cover(corrections)
    assert bench.feed_counts()["jumps"] == 1
    assert spans(corrections, 0) == [(0, 12, HELD, GAP), (12, 13, CorrectionFlag.DEGRADED | LAST, Reason.NO_WINDOW)]
    check_decoded(corrections, 1, expected_flips(plan_d3, shots)[1])


def swept_plan(folder: Path) -> Plan:
    """A finite plan whose shots bring sweep bits, long enough to jump in a small ring."""
    text = SWEPT.replace("REPEAT 6", "REPEAT 30")
    config = make_config(plan={"circuit": write_circuit(folder, text), "distance": 3})
    return compile_plan(config, config.patch[0])


@pytest.mark.parametrize("jumps", [False, True])
def test_a_shot_without_its_sweep_bits_is_held_whole(make_bench: BenchMaker, tmp_path: Path, jumps: bool) -> None:
    """Where the sweep bits of a shot are lost nothing of it can be folded, behind a gap either; the next is decoded."""
    plan = swept_plan(tmp_path)
    piece, speaker = Piece.of(plan), Speaker(plan)
    rng = np.random.default_rng(3)
    shots, sweeps = piece.sample(2, seed=32), rng.random((2, 3)) < 0.5
    bench = make_bench(plan, ring_rounds=16)
    found = []
    for shot_id, shot in enumerate(shots):
        for t, message in enumerate(speaker.shot(piece.blocks(shot), shot_id, sweeps[shot_id])):
            if shot_id or (t > 0 and not (jumps and 12 <= t < 22)):
                bench.ingest(message)
                found.append(bench.carry())
    corrections = np.concatenate(found)
    check_cover(corrections)
    assert bench.feed_counts().get("jumps", 0) == jumps
    mine = corrections[corrections["shot_id"] == 0]
    assert (mine["num_rounds"].sum(), mine["rung"].max()) == (plan.num_rounds, Rung.HOLD)
    assert [span[2:] for span in spans(corrections, 0)] == [(HELD, GAP)] * (len(mine) - 1) + [(HELD | LAST, GAP)]
    check_tainted(corrections, 0, 0)
    assert int(corrections[-1]["frame"]) == int(slow_decoder(plan)(piece.layers_b8(shots, sweeps))[1, 0])
    assert not corrections[corrections["shot_id"] == 1]["frame_status"].any()


def test_detection_events_need_no_sweep_bits(make_bench: BenchMaker, tmp_path: Path) -> None:
    """A feed of detection events goes on behind a lost first message, whether or not the shot had sweep bits."""
    plan = swept_plan(tmp_path)
    piece, speaker = Piece.of(plan), Speaker(plan, events=True)
    shots = piece.events(piece.sample(1, seed=37))
    bench = make_bench(plan, events=True)
    bench.ingest(*speaker.shot(piece.blocks(shots[0], events=True), 0)[1:])
    corrections = bench.carry()
    check_cover(corrections)
    assert spans(corrections, 0)[:2] == [(0, 3, HELD, GAP), (3, 6, OPEN_PAST, CONFIGURED)]
    assert corrections["rung"][1:].tolist() == [Rung.MATCH] * (len(corrections) - 1)


def test_lost_rounds_of_an_event_feed_taint_the_frame(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """Where the feed carries detection events, a lost round is a guess: degraded, tainted until the shot ends."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3, events=True)
    events = piece.events(piece.sample(2, seed=26))
    bench = make_bench(plan_d3, events=True)
    messages = speaker.shot(piece.blocks(events[0], events=True), 0)
    bench.ingest(*messages[:7], *messages[8:], *speaker.shot(piece.blocks(events[1], events=True), 1))
    corrections = bench.carry()
    check_cover(corrections)
    tainted = [(int(c["shot_id"]), int(c["first_round"])) for c in corrections if c["frame_status"]]
    # Windows [3, 9) and [6, 12) look at round 7, and the one after stands on their frame.
    assert tainted == [(0, start) for start in (3, 6, 9) if start in corrections["first_round"]]
    assert set(corrections["tainted_since"][corrections["frame_status"] == FrameStatus.TAINTED]) == {3}
    degraded = (corrections["flags"] & CorrectionFlag.DEGRADED) != 0
    assert (corrections["last_round_needed"][degraded] >= 7).all()
    assert (corrections["first_round"][degraded] <= 7).all()


def test_events_that_cannot_be_paired_are_said_and_the_rest_is_decoded(make_bench: BenchMaker, tmp_path: Path) -> None:
    """A window whose events cannot be paired is held with that reason and counted; the next shot is decoded."""
    plan = closed_plan(tmp_path)
    speaker = Speaker(plan, events=True)
    bench = make_bench(plan, events=True)
    odd, even = np.array([[1, 0], [0, 0]], np.bool_), np.array([[1, 1], [0, 0]], np.bool_)
    bench.ingest(*speaker.shot(list(odd), 0), *speaker.shot(list(even), 1))
    corrections = bench.carry()
    assert corrections["reason"].tolist() == [Reason.NO_MATCHING, Reason.CONFIGURED]
    assert corrections["rung"].tolist() == [Rung.HOLD, Rung.MATCH]
    assert corrections["flags"].tolist() == [CorrectionFlag.DEGRADED | LAST, LAST]
    assert corrections["frame_status"].tolist() == [FrameStatus.TAINTED, FrameStatus.CLEAN]
    assert corrections["flips"].tolist() == [0, 1]
    assert bench.path_counts()["unexplained"] == 1


def test_a_full_ring_is_counted_and_the_next_shot_decoded(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """While the path stalls, messages beyond the ring are counted; rounds before are kept, later shots decoded."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    shots = piece.sample(4, seed=27)
    expected = expected_flips(plan_d3, shots)
    bench = make_bench(plan_d3, ring_rounds=16)
    for shot_id in range(3):
        bench.ingest(*speaker.shot(piece.blocks(shots[shot_id]), shot_id))
    assert bench.feed_counts()["ring_full"] == 39 - bench.feed_counts()["rounds"] > 0
    stalled = bench.carry()
    bench.ingest(*speaker.shot(piece.blocks(shots[3]), 3))
    corrections = np.concatenate([stalled, bench.carry()])
    check_cover(corrections)
    assert flips_of_shot(corrections, 0) == expected[0]
    assert flips_of_shot(corrections, 3) == expected[3]
    assert not corrections[corrections["shot_id"] == 3]["flags"][:-1].any()


def test_a_late_correction_says_so(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """A correction published after its deadline is flagged and counted as late, and its flips are unchanged."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    shots = piece.sample(1, seed=29)
    bench = make_bench(plan_d3, budget_us=0.001)
    bench.ingest(*speaker.shot(piece.blocks(shots[0]), 0), received_ns=1)
    corrections = bench.carry()
    assert (corrections["flags"] & CorrectionFlag.LATE).all()
    assert bench.path_counts()["corrections_late"] == len(corrections) == bench.telemetry.service_counts.sum()
    assert flips_of_shot(corrections, 0) == expected_flips(plan_d3, shots)[0]


def test_a_controller_that_does_not_read_stops_nothing(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """Without anybody to read, corrections are counted as unsent and shots go on being decoded."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    bench = make_bench(plan_d3)
    bench._corrections.close()
    with bench._context.socket(zmq.PUSH) as deaf:
        bench.pipeline._publish._pointer = deaf.underlying
        for shot_id, shot in enumerate(piece.sample(3, seed=30)):
            bench.ingest(*speaker.shot(piece.blocks(shot), shot_id))
            while bench.pipeline.step():
                pass
    counts = bench.path_counts()
    assert counts["corrections_unsent"] == counts["windows"] == 3 * len(plan_d3.window_indices(13))
    assert counts["rounds_committed"] == 39


def plan_without_reset(folder: Path, num_rounds: int) -> Plan:
    """A finite plan with a look-back of two rounds, windows of 1 + 3."""
    text = WITHOUT_RESET.replace("REPEAT 6", f"REPEAT {num_rounds - 3}")
    window = {"commit_rounds": 1, "buffer_rounds": 3}
    config = make_config(plan={"circuit": write_circuit(folder, text), "distance": 3}, window=window)
    return compile_plan(config, config.patch[0])


@pytest.mark.parametrize("seed", range(4))
def test_rounds_lost_just_behind_a_jump_are_not_guessed_from_what_lies_before_it(
    make_bench: BenchMaker, tmp_path: Path, seed: int
) -> None:
    """With a look-back of two, a round lost behind a jump is filled from rounds that never came: decoding starts later,
    where every round folds to what was sent (a lost round's news comes two rounds later)."""
    plan = plan_without_reset(tmp_path, 63)
    piece, speaker = Piece.of(plan), Speaker(plan)
    shot = np.random.default_rng(seed).random(piece.circuit.num_measurements) < 0.5
    bench = make_bench(plan, ring_rounds=32)
    messages = speaker.shot(piece.blocks(shot))
    bench.ingest(*messages[:8], messages[26], *messages[28:46])
    assert bench.feed_counts()["rounds_filled"] == 1
    layers = bench.layers(20).reshape(20, -1)
    wanted = piece.layers_b8(shot[np.newaxis]).reshape(plan.num_rounds, -1)
    corrections = bench.carry()
    gap = corrections["reason"].tolist().index(GAP)
    assert not (corrections["flags"][gap + 1 :] & CorrectionFlag.DEGRADED).any()
    for t in range(int(corrections["first_round"][gap + 1]), 46):
        assert np.array_equal(layers[t - 26], wanted[t] ^ wanted[t - 2] if t == 29 else wanted[t]), t


def test_a_jump_into_ceaseless_losses_does_not_fill_the_ring(make_bench: BenchMaker, tmp_path: Path) -> None:
    """Where every second message behind a jump is lost, nothing can be folded for long: it is held a window at a time,
    and slots are given back."""
    plan = plan_without_reset(tmp_path, 150)
    piece, speaker = Piece.of(plan), Speaker(plan)
    shots = piece.sample(2, seed=36)
    bench = make_bench(plan, ring_rounds=16)
    messages = speaker.shot(piece.blocks(shots[0]), 0)
    found = []
    for message in [*messages[:8], *messages[30:130:2], *messages[130:], *speaker.shot(piece.blocks(shots[1]), 1)]:
        bench.ingest(message)
        found.append(bench.carry())
    corrections = np.concatenate(found)
    assert "ring_full" not in bench.feed_counts()
    check_cover(corrections)
    assert corrections[corrections["shot_id"] == 0]["num_rounds"].sum() == plan.num_rounds
    check_decoded(corrections, 1, expected_flips(plan, shots)[1])


@pytest.mark.parametrize("endless", [False, True], ids=["finite", "endless"])
def test_a_silent_shot_is_closed_after_a_while(make_bench: BenchMaker, endless: bool) -> None:
    """`round_timeout_ms` after its last message a shot is ended, held, and said to be; what still comes of it is late.
    The next shot is decoded."""
    plan = make_plan(plan__rounds="endless") if endless else make_plan()
    piece, speaker = Piece.of(plan, 13 if endless else None), Speaker(plan)
    shots = piece.sample(2, seed=33)
    bench = make_bench(plan, round_timeout_ms=2.0)
    messages = speaker.shot(piece.blocks(shots[0]), 0)
    bench.ingest(*messages[:5], received_ns=1_000_000)
    bench.look_at_clocks(2_999_999)
    assert "shots_timed_out" not in bench.feed_counts()
    assert not len(bench.carry())
    bench.look_at_clocks(3_000_000)
    bench.look_at_clocks(9_000_000)
    counts = bench.feed_counts()
    assert (counts["shots_timed_out"], counts["shots_truncated"]) == (1, 1)
    held = bench.carry()
    assert spans(held, 0) == [(0, 5 if endless else 13, HELD | LAST, TRUNCATED)]
    assert (held["received_ns"], held["last_round_needed"]) == (3_000_000, 5)
    bench.ingest(*messages[5:8], *speaker.shot(piece.blocks(shots[1]), 1), received_ns=10_000_000)
    assert bench.feed_counts()["late"] == 3
    corrections = np.concatenate([held, bench.carry()])
    check_cover(corrections)
    check_decoded(corrections, 1, expected_flips(plan, shots, 13 if endless else None)[1])


def test_a_shot_that_goes_on_in_time_is_not_closed(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """A shot whose messages come within `round_timeout_ms` of each other is decoded, however long it takes."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    shots = piece.sample(1, seed=34)
    bench = make_bench(plan_d3, round_timeout_ms=2.0)
    for t, message in enumerate(speaker.shot(piece.blocks(shots[0]), 0), start=1):
        bench.ingest(message, received_ns=1_000_000 * t)
        bench.look_at_clocks(1_000_000 * t + 999_999)
    bench.look_at_clocks(1 << 40)
    assert "shots_timed_out" not in bench.feed_counts()
    check_decoded(bench.carry(), 0, expected_flips(plan_d3, shots)[0])


# How a shot of a finite plan is longer, shorter or wider than the plan: of its 13 messages, those that come instead.
MISSHAPEN = {
    "longer": (lambda m: [*m[:12], with_header(m[12], flags=0), with_header(m[12], first_round=13, sequence=13,
                                                                           request_id=13)], "bad_round", 2),
    "shorter": (lambda m: [*m[:7], with_header(m[12], first_round=7, sequence=7, request_id=7)], "bad_round", 1),
    "wider": (lambda m: [*m[:7], with_header(m[7], bits_per_round=16), *m[8:]], "bad_width", 1),
    "narrower at the end": (lambda m: [*m[:12], with_header(m[12], bits_per_round=8)], "bad_width", 1),
    "without an end": (lambda m: [*m[:12], with_header(m[12], flags=0)], "bad_round", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", MISSHAPEN)
def test_a_shot_of_another_shape_than_the_plans_is_refused_where_it_differs(
    bench_d3: Bench, plan_d3: Plan, name: str
) -> None:
    """Rounds that the plan does not have are refused and counted; the shot is covered, the next one decoded."""
    spoil, cause, count = MISSHAPEN[name]
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    shots = piece.sample(2, seed=35)
    arriving = spoil(speaker.shot(piece.blocks(shots[0]), 0))
    speaker.sequence = 14
    bench_d3.ingest(*arriving, *speaker.shot(piece.blocks(shots[1]), 1))
    assert bench_d3.feed_counts()[cause] == count
    corrections = bench_d3.carry()
    check_cover(corrections)
    mine = corrections[corrections["shot_id"] == 0]
    assert mine["num_rounds"].sum() == 13
    assert (mine["reason"][-1] == TRUNCATED) == (name != "wider")
    assert mine["flags"][-2 if name == "wider" else -1] & CorrectionFlag.LOSSY
    check_decoded(corrections, 1, expected_flips(plan_d3, shots)[1])
