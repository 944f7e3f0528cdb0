"""A table in front of a matcher changes nothing but the time: every window has the matcher's own answer."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtqec.batch import Decoding
from rtqec.few_events import DETECTORS_MAX, FewEvents, worthwhile
from rtqec.match import Match, Matcher
from rtqec.plan.model import WindowModel
from tests.harness import closed_plan, make_plan

SPARSE = {"plan__noise": 0.001}


def rows_of(model: WindowModel, windows: list[list[int]]) -> np.ndarray:
    """uint8, shape (num_windows, row_bytes): windows with events at these of the model's detectors."""
    known = np.flatnonzero(np.unpackbits(model.mask_b8, bitorder="little"))
    dense = np.zeros((len(windows), 8 * model.row_bytes), np.uint8)
    for row, events in zip(dense, windows, strict=True):
        row[known[events]] = 1
    return np.packbits(dense, axis=1, bitorder="little")


@pytest.mark.parametrize("matching", ["plain", "correlated"])
def test_every_entry_is_the_matchers_answer(matching: str) -> None:
    """No event, each event and each pair of them are answered as the matcher answers them one by one."""
    for model in make_plan(plan__matching=matching, **SPARSE).models[:3]:
        matcher = Matcher(model, matching == "correlated")
        table = FewEvents(matcher, 4)
        detectors = int(np.bitwise_count(model.mask_b8).sum())
        for events in (events for few in range(3) for events in combinations(range(detectors), few)):
            row = rows_of(model, [list(events)])
            assert np.array_equal(table(row), matcher(row))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 23), max_size=5, unique=True), min_size=1, max_size=4))
def test_batches_with_few_and_many_events_are_answered_alike(windows: list[list[int]]) -> None:
    """Whatever windows travel together, and whatever came before them, each has the matcher's own answer."""
    model = next(m for m in make_plan(**SPARSE).models if int(np.bitwise_count(m.mask_b8).sum()) >= 24)
    rows = rows_of(model, windows)
    matcher = Matcher(model, correlated=False)
    assert np.array_equal(FewEvents(matcher, 4)(rows), matcher(rows))


def test_the_matcher_is_asked_only_for_more_than_two_events() -> None:
    """A batch of windows with at most two events never reaches the matcher; one window with three does."""
    model = make_plan(**SPARSE).models[1]
    matcher = Matcher(model, correlated=False)
    asked: list[int] = []

    class Watched:
        def __init__(self) -> None:
            self.model = model

        def __call__(self, rows: np.ndarray) -> np.ndarray:
            asked.append(len(rows))
            return matcher(rows)

    table = FewEvents(Watched(), 4)
    asked.clear()
    table(rows_of(model, [[], [3], [4, 9]]))
    assert asked == []
    table(rows_of(model, [[], [3, 4, 9]]))
    assert asked == [2]


def test_only_small_windows_with_little_noise_have_a_table() -> None:
    """A table is made where windows often have few events and their pairs are not too many, and not for union-find."""
    sparse, dense = make_plan(**SPARSE).models[1], make_plan(plan__noise=0.05).models[1]
    large = make_plan(plan__distance=9, plan__rounds=18, window__commit_rounds=9, window__buffer_rounds=9, **SPARSE)
    assert worthwhile(sparse)
    assert not worthwhile(dense)
    assert int(np.bitwise_count(large.models[0].mask_b8).sum()) > DETECTORS_MAX
    assert not worthwhile(large.models[0])
    models = [(sparse, Decoding.PLAIN), (dense, Decoding.PLAIN), (sparse, Decoding.UNION_FIND)]
    found = [type(decoder).__name__ for decoder in Match(models, 2).matchers]
    assert found == ["FewEvents", "Matcher", "UnionFind"]


def test_events_that_cannot_be_paired_leave_the_matcher_alone(tmp_path: Path) -> None:
    """A graph without boundary has no table, since single events have no answer; it is decoded as before."""
    model = closed_plan(tmp_path).models[0]
    with pytest.raises(ValueError, match=r"boundary|perfect"):
        FewEvents(Matcher(model, correlated=False), 2)
    (decoder,) = Match([(model, Decoding.PLAIN)], 2).matchers
    assert isinstance(decoder, Matcher)
