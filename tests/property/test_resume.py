"""Wherever a lane dies: the one that takes its place answers every round once, and says which it never saw."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtqec.plan import Plan
from rtqec.wire import CorrectionFlag, FrameStatus, Reason
from tests.harness import Bench, Piece, Speaker, check_cover, check_decoded, expected_flips, make_plan

NUM_SHOTS = 3
ENDLESS_ROUNDS = 40
DRAWN = st.integers(0, 1 << 20)


@pytest.fixture(params=["plan_d3", "plan_endless"])
def plan(request: pytest.FixtureRequest) -> Plan:
    """A finite plan, and one without end."""
    found: Plan = request.getfixturevalue(request.param)
    return found


@settings(max_examples=120, deadline=None)
@given(name=st.sampled_from(["finite", "endless"]), fate=st.tuples(DRAWN, DRAWN, DRAWN))
def test_every_round_is_answered_once_over_a_death(name: str, fate: tuple[int, int, int]) -> None:
    """Corrections before and after follow each other, with one gap at most, held and tainted; other shots are clean."""
    plan = make_plan() if name == "finite" else make_plan(plan__rounds="endless")
    piece = Piece.of(plan, ENDLESS_ROUNDS if plan.endless else None)
    speaker = Speaker(plan)
    shots = piece.sample(NUM_SHOTS, seed=7)
    messages = [m for shot_id, shot in enumerate(shots) for m in speaker.shot(piece.blocks(shot), shot_id)]
    per_shot = len(messages) // NUM_SHOTS
    # Messages that the first lane received; after how many of them it last carried; lost while there was none.
    received = 1 + fate[0] % (len(messages) - 1)
    carried = fate[1] % (received + 1)
    lost = fate[2] % (min(per_shot, len(messages) - received) + 1)
    with tempfile.TemporaryDirectory() as folder:
        with Bench(Path(folder), [plan], ring_rounds=256) as first:
            first.ingest(*messages[:carried])
            before = first.carry()
            first.ingest(*messages[carried:received])
            telemetry = first.telemetry
        with Bench(Path(folder), [plan], ring_rounds=256, telemetry=telemetry) as second:
            second.ingest(*messages[received + lost :])
            corrections = np.concatenate([before, second.carry()])
            taken_up = second.taken_up
    check_cover(corrections)
    flips = expected_flips(plan, shots, ENDLESS_ROUNDS if plan.endless else None)
    touched = set(range(carried // per_shot, (received + lost) // per_shot + 1))
    for shot_id in sorted({*corrections["shot_id"].tolist()} - touched):
        check_decoded(corrections, shot_id, flips[shot_id])
    if taken_up:
        after = corrections[corrections["window_index"] >= len(before)]
        assert (after["first_round"][:1] == taken_up[0]["round"]).all()
        own = after[after["shot_id"] == taken_up[0]["shot"]]
        assert set(own["frame_status"].tolist()) <= {FrameStatus.TAINTED}
        assert set(own["reason"][:1].tolist()) <= {Reason.GAP, Reason.SHOT_TRUNCATED}
        assert (own["flags"][:1] & CorrectionFlag.LOSSY).all()


def test_a_shot_that_had_ended_is_not_taken_up(plan: Plan, tmp_path: Path) -> None:
    """Between two shots a death costs nothing: the next one is decoded as if nothing had been."""
    num_rounds = ENDLESS_ROUNDS if plan.endless else None
    piece, speaker = Piece.of(plan, num_rounds), Speaker(plan)
    shots = piece.sample(2, seed=3)
    with Bench(tmp_path, [plan]) as first:
        first.ingest(*speaker.shot(piece.blocks(shots[0]), 0))
        before = first.carry()
        telemetry = first.telemetry
    with Bench(tmp_path, [plan], telemetry=telemetry) as second:
        assert second.taken_up == []
        second.ingest(*speaker.shot(piece.blocks(shots[1]), 1))
        corrections = np.concatenate([before, second.carry()])
    assert (np.diff(corrections["window_index"].astype(np.int64)) == 1).all()
    for shot_id, flips in enumerate(expected_flips(plan, shots, num_rounds)):
        check_decoded(corrections, shot_id, flips)
    assert second.feed_counts()["rounds"] == 2 * piece.rounds.num_rounds
