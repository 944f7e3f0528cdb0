"""Nothing is lost in silence, whatever arrives and however the path stalls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtqec.plan import Plan
from rtqec.wire import CorrectionFlag, Reason
from tests.harness import Bench, Piece, Speaker, check_cover, make_plan, messages_dropped, slow_decoder

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
        assert counts.get("rounds", 0) + messages_dropped(counts) == sent
        corrections = np.concatenate(found)
        assert bench.path_counts()["rounds_committed"] == corrections["num_rounds"].sum()
    for shot in check_cover(corrections):
        assert shot.through <= (plan.num_rounds or num_rounds)
        assert not shot.ended or plan.endless or shot.through == plan.num_rounds
        assert not shot.held
    gone = np.isin(corrections["reason"], [Reason.SHOT_TRUNCATED, Reason.GAP])
    held = CorrectionFlag.LOSSY | CorrectionFlag.DEGRADED
    assert (corrections["flags"][gone] & held == held).all()
    # Of these plans every lost round can be filled exactly: nothing else is a guess.
    assert not (
        corrections["flags"][~gone & (corrections["reason"] != Reason.NO_WINDOW)] & held & ~CorrectionFlag.LOSSY
    ).any()


def filled_layers(piece: Piece, shot: np.ndarray, lost: set[int]) -> np.ndarray:
    """A shot's layers with some rounds lost, bool, shape (num_rounds, layer_bits).

    Detectors of bulk rounds are differences to the round before, so that a filled round repeats the last one received,
    reads 0, and leaves its news to the next one.
    """
    expected = piece.events(shot[np.newaxis])[0]
    rounds, slots = piece.rounds.detector_round, piece.rounds.detector_slot
    layers = np.zeros((piece.rounds.num_rounds, piece.rounds.layout.layer_bits), np.bool_)
    owed = np.zeros(piece.rounds.layout.layer_bits, np.bool_)
    for t in range(piece.rounds.num_rounds):
        wanted = np.zeros_like(owed)
        wanted[slots[rounds == t]] = expected[rounds == t]
        if t in lost:
            owed ^= wanted
        else:
            layers[t], owed = wanted ^ owed, np.zeros_like(owed)
    return layers


@settings(max_examples=40)
@given(lost=st.sets(st.integers(1, 11), max_size=4), seed=st.integers(0, 1 << 30))
def test_a_filled_round_says_nothing_and_later_ones_fold_right(
    tmp_path_factory: pytest.TempPathFactory, lost: set[int], seed: int
) -> None:
    """A lost round's own detectors read 0, the next round carries the news of both, all later ones are as sent; and the
    windows decide as the slow ones do that know what was lost."""
    plan = make_plan(plan__noise=0.02)
    piece = Piece.of(plan)
    shot = piece.sample(1, seed=seed)[0]
    expected = filled_layers(piece, shot, lost)
    with Bench(tmp_path_factory.mktemp("bench"), [plan]) as bench:
        messages = Speaker(plan).shot(piece.blocks(shot))
        bench.ingest(*(m for t, m in enumerate(messages) if t not in lost))
        layers_b8 = bench.layers(13)
        corrections = bench.carry()
    layers = np.unpackbits(layers_b8, bitorder="little").reshape(13, plan.layout.layer_bits)
    # The readout's detectors lie in other slots than those of the round before it.
    compared = 12 if 11 in lost else 13
    assert np.array_equal(layers[:compared], expected[:compared])
    assert slow_decoder(plan).replay(layers_b8, corrections, sorted(lost)) == []


@pytest.mark.parametrize("events", [False, True], ids=["measurements", "events"])
@settings(max_examples=30)
@given(lost=st.sets(st.integers(1, 11), min_size=1, max_size=3), seed=st.integers(0, 1 << 30))
def test_only_touched_corrections_are_lossy(
    tmp_path_factory: pytest.TempPathFactory, events: bool, lost: set[int], seed: int
) -> None:
    """A correction is lossy exactly where its window looked at a lost round, or at the round after one, whose detectors
    carry the news of both; it counts those that it looked at. Lost events are a guess, lost measurements are not."""
    plan = make_plan()
    piece, speaker = Piece.of(plan), Speaker(plan, events=events)
    with Bench(tmp_path_factory.mktemp("bench"), [plan], events=events) as bench:
        shots = piece.sample(3, seed=seed)
        for shot_id, shot in enumerate(piece.events(shots) if events else shots):
            messages = speaker.shot(piece.blocks(shot, events), shot_id)
            bench.ingest(*(m for t, m in enumerate(messages) if shot_id != 1 or t not in lost))
        corrections = bench.carry()
        assert bench.feed_counts()["rounds_filled"] == len(lost) == bench.feed_counts()["messages_missing"]
    check_cover(corrections)
    touched = lost if events else lost | {t + plan.look_back for t in lost}
    for correction in corrections:
        looked_at = set(range(int(correction["first_round"]), int(correction["last_round_needed"]) + 1))
        mine = lost if correction["shot_id"] == 1 else set()
        assert int(correction["rounds_lost"]) == len(looked_at & mine)
        assert bool(correction["flags"] & CorrectionFlag.LOSSY) == bool(mine and looked_at & touched)
        assert bool(correction["flags"] & CorrectionFlag.DEGRADED) == bool(events and looked_at & mine)
