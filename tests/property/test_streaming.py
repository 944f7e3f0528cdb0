"""The running path and the slow one give the same corrections, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rtqec.plan import Plan
from rtqec.plan.schedule import windows_of_shot
from rtqec.reference import WholeShotMatcher
from rtqec.windowed import WindowedDecoder
from rtqec.wire import CORRECTION_BYTES, RPC_HEADER_BYTES, CorrectionFlag, Reason, Rung
from tests.harness import Bench, BenchMaker, Piece, Speaker, check_cover, flips_of_shot, make_plan, with_header, word

FINITE = {
    "d3": {},
    "d3 three by five": {"window__commit_rounds": 5, "window__buffer_rounds": 3},
    "d3 one window": {"window__commit_rounds": 30, "window__buffer_rounds": 3},
    "d3 commit one": {"window__commit_rounds": 1, "window__buffer_rounds": 3},
    "d3 correlated": {"plan__matching": "correlated"},
    "d3 both frames": {"plan__frames": "both"},
    "d3 all components": {"plan__drop_unobservable": False},
    "d3 memory x": {"plan__generated": "surface_code:rotated_memory_x"},
    "unrotated": {"plan__generated": "surface_code:unrotated_memory_z"},
    "repetition": {"plan__generated": "repetition_code:memory"},
    "d5": {"plan__distance": 5, "plan__rounds": 20, "window__commit_rounds": 5, "window__buffer_rounds": 5},
    "d9, two words a round": {"plan__distance": 9, "window__commit_rounds": 2, "window__buffer_rounds": 9},
}


def test_a_correction_says_whom_and_when_it_is_about(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """Each correction names patch, plan, rung, the rounds it needed, and the times of the last of them."""
    piece, speaker = Piece.of(plan_d3), Speaker(plan_d3, patch_id=6)
    bench = make_bench(plan_d3, patch_ids=[6])
    for t, block in enumerate(piece.blocks(piece.sample(1, seed=1)[0])):
        message = speaker.message(block, shot_id=77, first_round=t, last=t == 12, sent_ns=1000 + t)
        bench.ingest(with_header(message, ptp_timestamp=500 + t), received_ns=2000 + t)
    corrections = bench.carry()
    for window, correction in zip(windows_of_shot(13, plan_d3.window), corrections, strict=True):
        needed = window.stop - 1
        assert (correction["patch_id"], correction["shot_id"], correction["plan_tag"]) == (6, 77, plan_d3.tag)
        assert (correction["first_round"], correction["num_rounds"]) == (window.start, 3 if needed < 12 else 4)
        assert correction["last_round_needed"] == needed
        assert (correction["sent_ns"], correction["received_ns"]) == (1000 + needed, 2000 + needed)
        assert correction["ptp_timestamp"] == 500 + needed
        assert correction["published_ns"] > correction["received_ns"]
        assert (correction["rung"], correction["reason"]) == (Rung.MATCH, Reason.CONFIGURED)
        assert (correction["status"], correction["request_id"], correction["num_observables"]) == (0, window.index, 1)
        assert correction["result_len"] == CORRECTION_BYTES - RPC_HEADER_BYTES
        assert np.isnan(correction["confidence"])
        assert bool(correction["flags"] & CorrectionFlag.LAST_OF_SHOT) == window.closing


@pytest.mark.parametrize("name", FINITE)
@pytest.mark.parametrize("events", [False, True], ids=["measurements", "events"])
def test_seam_carried_is_seam_consumed(make_bench: BenchMaker, name: str, events: bool) -> None:
    """Every shot's corrections XOR to what the slow windows say, on raw measurements and on detection events."""
    plan = make_plan(plan__noise=0.02, **FINITE[name])
    piece = Piece.of(plan)
    measurements = piece.sample(40, seed=7)
    expected = WindowedDecoder(plan)(piece.layers_b8(measurements))
    bench = make_bench(plan, events=events)
    speaker = Speaker(plan, events=events)
    sent = piece.events(measurements) if events else measurements
    for shot_id, shot in enumerate(sent):
        bench.ingest(*speaker.shot(piece.blocks(shot, events), shot_id, rounds_per_message=1 + shot_id % 4))
        corrections = bench.carry()
        check_cover(corrections)
        assert flips_of_shot(corrections, shot_id) == word(expected[shot_id])
        assert int(corrections[-1]["frame"]) == word(expected[shot_id])
        assert not corrections["frame_status"].any()
    assert "unexplained" not in bench.path_counts()


ENDLESS = {
    "d3": {},
    "d3 two by four": {"window__commit_rounds": 2, "window__buffer_rounds": 4},
    "d3 seven by three": {"window__commit_rounds": 7, "window__buffer_rounds": 3},
    "d3 correlated": {"plan__matching": "correlated"},
    "d3 both frames": {"plan__frames": "both"},
}


@pytest.mark.parametrize("name", ENDLESS)
@settings(max_examples=25)
@given(num_rounds=st.integers(2, 60), seed=st.integers(0, 1 << 30), rounds_per_message=st.integers(1, 5))
def test_an_endless_stream_may_end_at_any_round(
    tmp_path_factory: pytest.TempPathFactory, name: str, num_rounds: int, seed: int, rounds_per_message: int
) -> None:
    """An endless plan, closed after any number of rounds, decodes the shot as the slow windows do."""
    plan = make_plan(plan__rounds="endless", plan__noise=0.02, **ENDLESS[name])
    # The two experiments of two rounds share no detector: a shot of that length has no window with both frames.
    assume(num_rounds > 2 or plan.num_observables == 1)
    piece = Piece.of(plan, num_rounds)
    measurements = piece.sample(2, seed=seed)
    expected = WindowedDecoder(plan)(piece.layers_b8(measurements))
    with Bench(tmp_path_factory.mktemp("bench"), [plan]) as bench:
        speaker = Speaker(plan)
        for shot_id, shot in enumerate(measurements):
            for message in speaker.shot(piece.blocks(shot), shot_id, rounds_per_message=rounds_per_message):
                bench.ingest(message)
            corrections = bench.carry()
            check_cover(corrections)
            assert corrections["num_rounds"].sum() == num_rounds
            assert flips_of_shot(corrections, shot_id) == word(expected[shot_id])


@pytest.mark.parametrize("rounds", [4, 5, 7, 8, 10, 11, 20])
def test_an_endless_plan_decodes_like_a_finite_one(rounds: int) -> None:
    """Windows of an endless plan, put together for a length, are those of the finite plan of that length.

    (Not where a readout follows an open window at once: only the finite plan can know that it will.)
    """
    endless, finite = make_plan(plan__rounds="endless"), make_plan(plan__rounds=rounds)
    num_rounds = rounds + 1
    assert finite.num_rounds == num_rounds
    found = [endless.models[i].content for i in endless.window_indices(num_rounds)]
    assert found == [finite.models[i].content for i in finite.window_indices(num_rounds)]


@pytest.mark.parametrize("name", ["d3", "d3 all components", "d3 commit one", "d5", "repetition", "unrotated"])
def test_committed_edges_explain_every_detection_event(name: str) -> None:
    """The detectors of all committed edges give exactly the detection events: nothing is left unexplained."""
    plan = make_plan(plan__noise=0.03, **FINITE[name])
    piece = Piece.of(plan)
    assert WindowedDecoder(plan).unexplained(piece.layers_b8(piece.sample(60, seed=11))) == 0


def test_windows_agree_with_whole_shots(plan_d5: Plan) -> None:
    """With a buffer of the distance, windows disagree with whole-shot matching on hardly any shot."""
    piece = Piece.of(plan_d5)
    measurements = piece.sample(2000, seed=3)
    whole = WholeShotMatcher(plan_d5.experiment.own_dem, correlated=False)(
        np.packbits(piece.events(measurements), axis=1, bitorder="little")
    )
    windowed = WindowedDecoder(plan_d5)(piece.layers_b8(measurements))
    # At p = .01 a third of the events of .003 lie closer; without a buffer the same shots disagree 100 times as often.
    assert (whole != windowed).mean() < 0.01


def test_two_patches_share_a_batch_and_nothing_else(make_bench: BenchMaker, plan_d3: Plan) -> None:
    """Patches whose windows travel in one batch are decoded as if each were alone."""
    piece = Piece.of(plan_d3)
    measurements = piece.sample(20, seed=5)
    expected = WindowedDecoder(plan_d3)(piece.layers_b8(measurements))
    bench = make_bench(plan_d3, plan_d3, patch_ids=[4, 9])
    speakers = [Speaker(plan_d3, patch_id=4), Speaker(plan_d3, patch_id=9)]
    for shot_id in range(10):
        for place, speaker in enumerate(speakers):
            bench.ingest(*speaker.shot(piece.blocks(measurements[2 * shot_id + place]), shot_id))
        corrections = bench.carry()
        for place, speaker in enumerate(speakers):
            mine = corrections[corrections["patch_id"] == speaker.patch_id]
            check_cover(mine)
            assert flips_of_shot(mine, shot_id) == word(expected[2 * shot_id + place])


@pytest.mark.parametrize("buffer_rounds", [0, 1])
@pytest.mark.parametrize("at_once", [True, False], ids=["shot at once", "round by round"])
def test_a_seam_survives_a_buffer_that_was_accepted_by_name(
    make_bench: BenchMaker, buffer_rounds: int, at_once: bool
) -> None:
    """With a buffer too short for its errors, corrections do not depend on when the rounds arrive."""
    plan = make_plan(
        plan__generated="repetition_code:memory", plan__distance=5, plan__noise=0.03,
        window__buffer_rounds=buffer_rounds, window__accept_short_buffer=True,
    )  # fmt: skip
    piece, speaker = Piece.of(plan), Speaker(plan)
    measurements = piece.sample(40, seed=31)
    expected = WindowedDecoder(plan)(piece.layers_b8(measurements))
    bench = make_bench(plan)
    for shot_id, shot in enumerate(measurements):
        found = []
        for message in speaker.shot(piece.blocks(shot), shot_id):
            bench.ingest(message)
            if not at_once:
                found.append(bench.carry())
        corrections = np.concatenate([*found, bench.carry()])
        check_cover(corrections)
        assert flips_of_shot(corrections, shot_id) == word(expected[shot_id])
