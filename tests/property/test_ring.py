"""Nothing is lost in silence, whatever arrives and however the path stalls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtqec.plan import Plan
from rtqec.wire import CorrectionFlag, Reason
from tests.harness import Bench, Piece, Speaker, check_cover, make_plan

DROPPED = (
    "bad_size", "bad_magic", "bad_version", "bad_flags", "unknown_patch", "bad_plan_tag", "bad_width", "bad_round",
    "bad_crc", "late_or_duplicate", "ring_full", "shots_headless", "dead_shot_messages",
)  # fmt: skip

# What happens to some of the messages on their way; from "stall" to "carry" the path sleeps.
FATES = st.dictionaries(
    st.integers(0, 90), st.sampled_from(["lost", "twice", "swapped", "stall", "carry"]), max_size=25
)


def messages_of(plan: Plan, num_shots: int, num_rounds: int) -> list[bytes]:
    piece, speaker = Piece.of(plan, num_rounds if plan.endless else None), Speaker(plan)
    measurements = piece.sample(num_shots, seed=num_shots)
    return [m for shot_id, shot in enumerate(measurements) for m in speaker.shot(piece.blocks(shot), shot_id)]


@pytest.mark.parametrize("endless", [False, True], ids=["finite", "endless"])
@settings(max_examples=40)
@example(fates={0: "lost", 34: "stall", 52: "carry"}, num_rounds=14)
@example(fates={0: "lost", 39: "stall", 60: "carry"}, num_rounds=14)
@given(fates=FATES, num_rounds=st.integers(14, 40))
def test_nothing_is_lost_in_silence(
    tmp_path_factory: pytest.TempPathFactory, endless: bool, fates: dict[int, str], num_rounds: int
) -> None:
    """Messages placed and messages counted by cause are messages sent; corrections cover each placed shot once."""
    plan = make_plan(plan__rounds="endless") if endless else make_plan()
    messages = messages_of(plan, 6, num_rounds)
    sent, found, running = 0, [], True
    with Bench(tmp_path_factory.mktemp("bench"), [plan], ring_rounds=16) as bench:
        held_back = None
        for place, message in enumerate(messages):
            fate = fates.get(place, "sent")
            running = {"stall": False, "carry": True}.get(fate, running)
            if fate == "swapped" and held_back is None:
                held_back = message
                continue
            arriving = {"lost": [], "twice": [message, message]}.get(fate, [message])
            if held_back is not None:
                arriving, held_back = [*arriving, held_back], None
            bench.ingest(*arriving)
            sent += len(arriving)
            if running:
                found.append(bench.carry())
        found.append(bench.carry())
        counts = bench.feed_counts()
        assert bench.feed_counts(-1) == {}
        assert counts["messages"] == sent
        assert counts.get("rounds", 0) + sum(counts.get(cause, 0) for cause in DROPPED) == sent
        corrections = np.concatenate(found)
        check_cover(corrections)
        committed = bench.path_counts()["rounds_committed"]
        assert committed == corrections["num_rounds"].sum()
        check_shots(plan, corrections, counts, committed)


def check_shots(plan: Plan, corrections: np.ndarray, counts: dict[str, int], committed: int) -> None:
    """Every finished finite shot is covered whole; every round placed or filled is committed or still open."""
    last = (corrections["flags"] & CorrectionFlag.LAST_OF_SHOT) != 0
    ends = corrections["first_round"] + corrections["num_rounds"]
    held = np.isin(corrections["reason"], [Reason.SHOT_TRUNCATED, Reason.SHOT_HEADLESS])
    assert (corrections["flags"][held] & (CorrectionFlag.LOSSY | CorrectionFlag.DEGRADED)).all()
    if plan.num_rounds is not None:
        assert (ends[last] == plan.num_rounds).all()
    else:
        assert committed <= counts.get("rounds", 0) + counts.get("rounds_filled", 0)


@settings(max_examples=40)
@given(lost=st.sets(st.integers(1, 11), max_size=4), seed=st.integers(0, 1 << 30))
def test_a_filled_round_says_nothing_and_later_ones_fold_right(
    tmp_path_factory: pytest.TempPathFactory, lost: set[int], seed: int
) -> None:
    """A lost round's own detectors read 0, the next round carries the news of both, all later ones are as sent."""
    plan = make_plan()
    piece = Piece.of(plan)
    measurements = piece.sample(1, seed=seed)
    blocks = piece.blocks(measurements[0])
    # Slow twin: detectors of bulk rounds are differences, so that a filled round repeats the last one received.
    expected = piece.events(measurements)[0]
    rounds, slots = piece.rounds.detector_round, piece.rounds.detector_slot
    with Bench(tmp_path_factory.mktemp("bench"), [plan]) as bench:
        messages = Speaker(plan).shot(blocks)
        bench.ingest(*(m for t, m in enumerate(messages) if t not in lost))
        layers = np.unpackbits(bench.layers(13), bitorder="little").reshape(13, plan.layout.layer_bits)
    owed = np.zeros(plan.layout.layer_bits, np.bool_)
    for t in range(12):
        wanted = owed.copy()
        wanted[slots[rounds == t]] ^= expected[rounds == t]
        owed = wanted if t in lost else np.zeros_like(owed)
        assert np.array_equal(layers[t], np.zeros_like(wanted) if t in lost else wanted)
    if 11 not in lost:
        assert np.array_equal(layers[12, : (rounds == 12).sum()], expected[rounds == 12])


@settings(max_examples=30)
@given(lost=st.sets(st.integers(1, 11), min_size=1, max_size=3), seed=st.integers(0, 1 << 30))
def test_only_touched_corrections_are_lossy(
    tmp_path_factory: pytest.TempPathFactory, lost: set[int], seed: int
) -> None:
    """A correction is lossy exactly where its window looked at a lost round; the shots around are clean."""
    plan = make_plan()
    piece, speaker = Piece.of(plan), Speaker(plan)
    with Bench(tmp_path_factory.mktemp("bench"), [plan]) as bench:
        for shot_id, shot in enumerate(piece.sample(3, seed=seed)):
            messages = speaker.shot(piece.blocks(shot), shot_id)
            bench.ingest(*(m for t, m in enumerate(messages) if shot_id != 1 or t not in lost))
        corrections = bench.carry()
        assert bench.feed_counts()["rounds_filled"] == len(lost) == bench.feed_counts()["messages_missing"]
    check_cover(corrections)
    for correction in corrections:
        looked_at = set(range(int(correction["first_round"]), int(correction["last_round_needed"]) + 1))
        touched = correction["shot_id"] == 1 and bool(looked_at & lost)
        assert bool(correction["flags"] & CorrectionFlag.LOSSY) == touched
