"""What is lost is held, filled or refused, and said; the next shot is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zmq

from rtqec.plan import Plan
from rtqec.windowed import WindowedDecoder
from rtqec.wire import CorrectionFlag, FrameStatus, Reason, Rung
from tests.harness import Bench, BenchMaker, Piece, Speaker, check_cover, closed_plan, flips_of_shot, word

HELD = CorrectionFlag.LOSSY | CorrectionFlag.DEGRADED


def expected_flips(plan: Plan, shots: np.ndarray) -> list[int]:
    return [word(bits) for bits in WindowedDecoder(plan)(Piece.of(plan).layers_b8(shots))]


@pytest.mark.parametrize("lost", ["first", "last", "all but the middle"])
def test_a_shot_without_an_end_is_held_and_the_next_one_decoded(bench_d3: Bench, plan_d3: Plan, lost: str) -> None:
    """A finite shot without its first or last message is covered whole, held, degraded; its neighbours are clean."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3)
    shots = piece.sample(3, seed=21)
    expected = expected_flips(plan_d3, shots)
    for shot_id, shot in enumerate(shots):
        messages = speaker.shot(piece.blocks(shot), shot_id)
        kept = {"first": messages[1:], "last": messages[:-1], "all but the middle": messages[6:7]}[lost]
        bench_d3.ingest(*(kept if shot_id == 1 else messages))
    corrections = bench_d3.carry()
    check_cover(corrections)
    for shot_id in (0, 2):
        mine = corrections[corrections["shot_id"] == shot_id]
        assert flips_of_shot(corrections, shot_id) == expected[shot_id]
        assert set(mine["flags"][:-1]) <= {0}
        assert set(mine["frame_status"]) == {FrameStatus.CLEAN}
    middle = corrections[corrections["shot_id"] == 1]
    assert middle["num_rounds"].sum() == plan_d3.num_rounds
    last = middle[-1]
    assert last["flags"] == HELD | CorrectionFlag.LAST_OF_SHOT
    assert last["rung"] == Rung.HOLD
    assert last["flips"] == 0
    assert last["reason"] == (Reason.SHOT_TRUNCATED if lost == "last" else Reason.SHOT_HEADLESS)
    assert (last["frame_status"], last["tainted_since"]) == (FrameStatus.TAINTED, last["first_round"])


def test_an_endless_stream_without_a_beginning_is_refused_until_the_next_shot(
    make_bench: BenchMaker, plan_endless: Plan
) -> None:
    """Rounds of an endless shot whose first round never came are counted, and the next shot is decoded."""
    piece, speaker = Piece.of(plan_endless, 20), Speaker(plan_endless)
    shots = piece.sample(2, seed=22)
    bench = make_bench(plan_endless)
    bench.ingest(*speaker.shot(piece.blocks(shots[0]), 0)[1:])
    assert bench.feed_counts() == {"messages": 19, "shots": 1, "shots_headless": 1, "dead_shot_messages": 18}
    assert len(bench.carry()) == 0
    bench.ingest(*speaker.shot(piece.blocks(shots[1]), 1))
    corrections = bench.carry()
    check_cover(corrections)
    assert flips_of_shot(corrections, 1) == word(WindowedDecoder(plan_endless)(piece.layers_b8(shots))[1])
    assert not corrections["flags"][:-1].any()


def test_an_endless_stream_that_stops_is_held_from_there(make_bench: BenchMaker, plan_endless: Plan) -> None:
    """When another shot begins, what is left of an endless one is held, and the new one is decoded."""
    piece, speaker = Piece.of(plan_endless, 20), Speaker(plan_endless)
    shots = piece.sample(2, seed=23)
    bench = make_bench(plan_endless)
    bench.ingest(*speaker.shot(piece.blocks(shots[0]), 0)[:-4])
    bench.ingest(*speaker.shot(piece.blocks(shots[1]), 1))
    corrections = bench.carry()
    check_cover(corrections)
    stopped = corrections[corrections["shot_id"] == 0]
    assert stopped["num_rounds"].sum() == 16
    assert stopped[-1]["flags"] == HELD | CorrectionFlag.LAST_OF_SHOT
    assert stopped[-1]["reason"] == Reason.SHOT_TRUNCATED
    assert not stopped["flags"][:-1].any()
    assert flips_of_shot(corrections, 1) == word(WindowedDecoder(plan_endless)(piece.layers_b8(shots))[1])


def test_a_stream_too_short_for_any_window_is_held(make_bench: BenchMaker, plan_endless: Plan) -> None:
    """A shot of one round, for which an endless plan has no window, is held with that reason."""
    piece, speaker = Piece.of(plan_endless, 20), Speaker(plan_endless)
    shot = piece.sample(1, seed=24)[0]
    bench = make_bench(plan_endless)
    readout = piece.blocks(shot)[-1]
    bench.ingest(speaker.message(readout, shot_id=0, first_round=0, last=True))
    bench.ingest(*speaker.shot(piece.blocks(shot), 1))
    corrections = bench.carry()
    check_cover(corrections)
    assert corrections[0]["reason"] == Reason.NO_WINDOW
    assert corrections[0]["flags"] == HELD | CorrectionFlag.LAST_OF_SHOT
    expected = WindowedDecoder(plan_endless)(piece.layers_b8(shot[np.newaxis]))[0]
    assert flips_of_shot(corrections, 1) == word(expected)


def test_a_gap_that_no_ring_could_hold_ends_the_shot(make_bench: BenchMaker, plan_endless: Plan) -> None:
    """After a gap longer than half the ring the shot is held and dropped, counted, and the next one decoded."""
    piece, speaker = Piece.of(plan_endless, 40), Speaker(plan_endless)
    shots = piece.sample(2, seed=25)
    bench = make_bench(plan_endless, ring_rounds=32)
    messages = speaker.shot(piece.blocks(shots[0]), 0)
    found = []
    for message in [*messages[:8], *messages[30:], *speaker.shot(piece.blocks(shots[1]), 1)]:
        bench.ingest(message)
        found.append(bench.carry())
    corrections = np.concatenate(found)
    check_cover(corrections)
    counts = bench.feed_counts()
    assert (counts["shots_truncated"], counts["messages_missing"]) == (1, 22)
    assert counts["rounds"] + counts["dead_shot_messages"] == counts["messages"]
    assert flips_of_shot(corrections, 1) == word(WindowedDecoder(plan_endless)(piece.layers_b8(shots))[1])


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
    assert corrections["flags"].tolist() == [HELD | CorrectionFlag.LAST_OF_SHOT, CorrectionFlag.LAST_OF_SHOT]
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
    assert bench.path_counts()["late"] == len(corrections) == bench.telemetry.service_counts.sum()
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


def test_a_source_that_restarts_within_a_shot_begins_another_one(bench_d3: Bench, plan_d3: Plan) -> None:
    """A new epoch ends the open shot as truncated; the shot after it, even of the same number, is decoded whole."""
    piece = Piece.of(plan_d3)
    shots = piece.sample(2, seed=77)
    speaker = Speaker(plan_d3)
    bench_d3.ingest(*speaker.shot(piece.blocks(shots[0]), shot_id=5)[:6])
    speaker.sequence, speaker.epoch = 0, 2
    bench_d3.ingest(*speaker.shot(piece.blocks(shots[1]), shot_id=5))
    corrections = bench_d3.carry()
    ends = [c for c in corrections if c["flags"] & CorrectionFlag.LAST_OF_SHOT]
    assert [int(c["reason"]) for c in ends] == [Reason.SHOT_TRUNCATED, Reason.CONFIGURED]
    assert int(ends[1]["frame_status"]) == FrameStatus.CLEAN
    expected = WindowedDecoder(plan_d3)(piece.layers_b8(shots[1:]))[0]
    assert int(ends[1]["frame"]) == int(expected[0])
