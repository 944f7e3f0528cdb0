"""The waiting room puts messages back into their order, as far as it reaches, and says what it could not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtqec.plan import Plan
from rtqec.wire import CORRECTION
from tests.harness import Bench, Piece, Speaker, check_cover, make_plan, messages_dropped

NUM_SHOTS = 4
# What a correction says of times differs: a round counts as received when it was placed.
SAME = [name for name in CORRECTION.names if name not in ("published_ns", "confidence")]


def messages_of(plan: Plan, num_rounds: int, rounds_per_message: int) -> list[bytes]:
    """Some shots, one after the other."""
    piece, speaker = Piece.of(plan, num_rounds if plan.endless else None), Speaker(plan)
    shots = piece.sample(NUM_SHOTS, seed=num_rounds)
    return [m for i, shot in enumerate(shots) for m in speaker.shot(piece.blocks(shot), i, None, rounds_per_message)]


def shuffled(count: int, depth: int, delays: list[int]) -> list[int]:
    """An order in which nothing comes more than `depth` messages late. The first one, from which ingest begins to
    count, comes first."""
    late = [0] + [delays[i % len(delays)] % (depth + 1) if delays else 0 for i in range(1, count)]
    return sorted(range(count), key=lambda i: (i + late[i], i))


def run(bench: Bench, messages: list[bytes]) -> tuple[np.ndarray, bytes]:
    """Corrections of messages, and all layers as they were placed."""
    found, layers = [], b""
    for message in messages:
        before = bench.placed()
        bench.ingest(message)
        if bench.placed() > before:
            layers += bench.layers(bench.placed() - before).tobytes()
        found.append(bench.carry())
    return np.concatenate(found), layers


@pytest.mark.parametrize("endless", [False, True], ids=["finite", "endless"])
@settings(max_examples=50)
@given(
    depth=st.integers(1, 20), delays=st.lists(st.integers(0, 20), max_size=40), num_rounds=st.integers(14, 24),
    rounds_per_message=st.integers(1, 3), twice=st.sets(st.integers(0, 60), max_size=5),
)  # fmt: skip
def test_what_comes_within_reach_is_put_in_order(
    tmp_path_factory: pytest.TempPathFactory, endless: bool, depth: int, delays: list[int], num_rounds: int,
    rounds_per_message: int, twice: set[int],
) -> None:  # fmt: skip
    """In any order within `reorder_depth`, with duplicates, messages give the layers and corrections of their own."""
    plan = make_plan(plan__rounds="endless") if endless else make_plan()
    messages = messages_of(plan, num_rounds, rounds_per_message)
    order = shuffled(len(messages), depth, delays)
    arriving = [i for i in order for _ in range(1 + (i in twice))]
    with Bench(tmp_path_factory.mktemp("bench"), [plan]) as bench:
        expected, layers = run(bench, messages)
    with Bench(tmp_path_factory.mktemp("bench"), [plan], reorder_depth=depth, gap_wait_us=1e6) as bench:
        found, found_layers = run(bench, [messages[i] for i in arriving])
        counts = bench.feed_counts()
        assert not bench.feed_states[0]["num_waiting"]
    assert found_layers == layers
    assert np.array_equal(found[SAME], expected[SAME])
    assert counts.get("duplicate", 0) == len(arriving) - len(order) == messages_dropped(counts)
    overtaken = sum(i < max(order[:place]) for place, i in enumerate(order) if place)
    assert counts.get("reordered", 0) == overtaken
    assert "messages_missing" not in counts


FATES = st.dictionaries(st.integers(1, 50), st.sampled_from(["lost", "far too late", "wait is over"]), max_size=8)


@settings(max_examples=50)
@given(depth=st.integers(1, 8), delays=st.lists(st.integers(0, 8), max_size=20), fates=FATES)
def test_what_is_out_of_reach_is_given_up_and_said(
    tmp_path_factory: pytest.TempPathFactory, depth: int, delays: list[int], fates: dict[int, str]
) -> None:
    """Messages that never come, or come when they had been given up, cost themselves and nothing else: all others are
    placed, in order, and every message that came is placed or counted under one cause."""
    plan = make_plan()
    messages = messages_of(plan, 13, 1)
    order = shuffled(len(messages), depth, delays)
    lost = {i for i, fate in fates.items() if fate == "lost"}
    behind = [i for i, fate in fates.items() if fate == "far too late"]
    arriving = [i for i in order if i not in lost and i not in behind]
    found: list[Any] = []
    with Bench(tmp_path_factory.mktemp("bench"), [plan], reorder_depth=depth, gap_wait_us=1.0) as bench:
        time_ns = 0
        for i in arriving:
            bench.ingest(messages[i], received_ns=time_ns)
            found.append(bench.carry())
            while fates.get(i) == "wait is over" and bench.look_at_clocks(time_ns):
                time_ns += 1_000
        while bench.look_at_clocks(time_ns):
            time_ns += 1_000
        assert not bench.feed_states[0]["num_waiting"]
        assert time_ns <= 1_000 * 2 * len(messages)
        bench.ingest(*(messages[i] for i in behind), received_ns=time_ns)
        found.append(bench.carry())
        counts = bench.feed_counts()
    check_cover(np.concatenate(found))
    assert counts["messages"] == len(arriving) + len(behind) == counts["rounds"] + messages_dropped(counts)
    assert counts.get("late", 0) >= len([i for i in behind if i < max(arriving)])
    if "wait is over" not in fates.values():
        assert counts.get("late", 0) == len([i for i in behind if i < max(arriving)])
        assert counts.get("messages_missing", 0) == len([i for i in {*lost, *behind} if i < max(arriving)])
    assert "duplicate" not in counts
