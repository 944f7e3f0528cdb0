"""Windows take an error model apart without losing a component, and put each where it is decided."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import stim

from rtqec.errors import PlanError
from rtqec.layout import LayerLayout
from rtqec.match import Matcher
from rtqec.plan import Plan
from rtqec.plan.experiment import ExperimentSource
from rtqec.plan.model import EDGE_ROUNDS, ErrorTable, WindowModel, error_table, window_model
from rtqec.plan.rounds import RoundMap, round_map
from rtqec.plan.schedule import windows_of_shot
from tests.harness import make_config, make_plan

LAYOUT = LayerLayout(2, 0)


def table_of(text: str, num_rounds: int = 4, drop: bool = False) -> ErrorTable:
    """An error model of two detectors a round, D(2t) and D(2t + 1)."""
    times = np.repeat(np.arange(num_rounds), 2)
    starts = np.zeros(num_rounds + 1, np.int64)
    rounds = RoundMap(times, np.tile([0, 1], num_rounds), np.full(num_rounds, 2), starts, LAYOUT)
    return error_table(stim.DetectorErrorModel(text), rounds, LAYOUT, drop)


def components(model: WindowModel) -> list[tuple[float, list[tuple[tuple[int, ...], tuple[int, ...]]]]]:
    """Errors of a window's model: probability, and detectors and observables of each component."""
    found = []
    for instruction in model.dem.flattened():
        if instruction.type == "error":
            groups = [
                (
                    tuple(t.val for t in group if t.is_relative_detector_id()),
                    tuple(t.val for t in group if t.is_logical_observable_id()),
                )
                for group in instruction.target_groups()
            ]
            found.append((instruction.args_copy()[0], groups))
    return found


REFUSED = {
    "three detectors": ("error(0.1) D0 D1 D2", "flips 3 detectors"),
    "three in a part": ("error(0.1) D0 D1 ^ D2 D3 D4", "flips 3 detectors"),
    "ambiguous observables": ("error(0.1) D0 D1 L0\nerror(0.2) D0 D1", "same detectors"),
    "ambiguous in parts": ("error(0.1) D0 L0 ^ D1\nerror(0.2) D0 ^ D1", "same detectors"),
    "no errors": ("detector D0\ndetector D1", "no errors that flip a detector"),
    "probability zero": ("error(0) D0 D1", "no errors that flip a detector"),
    "silent errors only": ("error(0.1) L0", "no errors that flip a detector"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_matching_cannot_do_is_refused(name: str) -> None:
    """An error model that matching would decode wrongly is refused with the error."""
    text, said = REFUSED[name]
    with pytest.raises(PlanError, match=said):
        table_of(text)


def test_silent_errors_are_counted() -> None:
    """Errors that flip no detector are left out, and their number is known."""
    table = table_of("error(0.1) L0\nerror(0.1) D0 L0\nerror(0) D1")
    assert (table.num_silent, table.num_errors) == (1, 1)


def test_a_hyperedge_is_split_and_each_part_decided_in_its_own_round() -> None:
    """Of an error in two parts, the one that begins in the commit region is committed, the other only looked at."""
    table = table_of("error(0.1) D0 D2 L0 ^ D3 D5 L1\nerror(0.2) D4 L0")
    first = window_model(table, LAYOUT, 0, 3, 1)
    # Layers have 8 bits: D0 is 0, D2 is 8, D3 is 9, D5 is 17. L2 is the seam of D2, one round after the commit.
    assert components(first) == [(0.1, [((0, 8), (0, 2)), ((9, 17), ())]), (0.2, [((16,), ())])]
    assert first.seam.tolist() == [[0, 0]]
    second = window_model(table, LAYOUT, 1, 4, 4)
    assert components(second) == [(0.1, [((1, 9), (1,))]), (0.2, [((8,), (0,))])]
    assert second.seam.shape == (0, 2)


def test_detectors_beyond_the_window_are_dropped() -> None:
    """The future is open: a component that reaches beyond the window becomes an edge to the boundary."""
    table = table_of("error(0.1) D0 D2 L0\nerror(0.1) D4 D6\nerror(0.1) D6")
    assert components(window_model(table, LAYOUT, 0, 3, 1)) == [(0.1, [((0, 8), (0, 1))]), (0.1, [((16,), ())])]


def test_a_model_masks_what_it_does_not_know() -> None:
    """The mask has exactly the detectors of the model's errors."""
    model = window_model(table_of("error(0.1) D0 D2 L0\nerror(0.1) D3"), LAYOUT, 0, 3, 1)
    assert np.flatnonzero(np.unpackbits(model.mask_b8, bitorder="little")).tolist() == [0, 8, 9]
    assert (model.row_bytes, model.answer_bytes, model.dem.num_detectors) == (3, 1, 24)


def test_parts_of_the_graph_without_observable_are_dropped_only_when_asked() -> None:
    """A connected part in which nothing flips an observable is left out for plain matching, and only then."""
    text = "error(0.1) D0 D2 ^ D1 D3\nerror(0.1) D2 L0\nerror(0.1) D3"
    kept, dropped = table_of(text), table_of(text, drop=True)
    assert kept.dropped == frozenset()
    assert dropped.dropped == {(0, 1), (1, 1)}
    assert (kept.num_errors, dropped.num_errors) == (3, 2)


STRADDLING = """
    error(0.1) D0 D2 L0
    error(0.2) D1 D5
    error(0.05) D1 D3 ^ D4 L0
    error(0.3) D2 D4 L0
    error(0.15) D0 L0
    error(0.25) D1 D7
"""


def test_an_open_past_gives_each_straddling_error_an_end_that_costs_nothing() -> None:
    """What reaches into a window from rounds that are gone becomes an edge to a detector behind its last layer, which
    flips no observable and can fire for nothing; the rest is as with a closed past."""
    table = table_of(STRADDLING)
    closed, opened = window_model(table, LAYOUT, 1, 3, 2), window_model(table, LAYOUT, 1, 3, 2, open_past=True)
    # Layers 0 and 1 are the window's, 2 is round 0, the last before it; the longest error of the table spans three.
    assert (opened.num_rounds, opened.past_rounds, opened.phase) == (2, 3, "resumed")
    past = [(0.1, [((16, 0), ())]), (0.2, [((17, 9), ())]), (0.05, [((17, 1), ())]),
            (0.5, [((16,), ())]), (0.5, [((17,), ())])]  # fmt: skip
    assert components(opened) == past + components(closed)
    assert components(closed) == [(0.05, [((8,), ())]), (0.3, [((0, 8), (0, 1))])]
    assert opened.seam.tolist() == closed.seam.tolist() == [[0, 0]]
    known = np.unpackbits(opened.mask_b8, bitorder="little")
    assert np.flatnonzero(known).tolist() == np.flatnonzero(np.unpackbits(closed.mask_b8, bitorder="little")).tolist()
    assert (opened.row_bytes, opened.dem.num_detectors) == (5, 40)


def test_a_lone_event_at_an_open_past_flips_nothing() -> None:
    """An event that a straddling error explains is matched with the past, for nothing; with a closed past it must be a
    rarer error of the window, which flips the observable."""
    table = table_of("error(0.1) D0 D2\nerror(0.001) D2 L0\nerror(0.01) D4 L0")
    row = np.array([[1, 0]], np.uint8)
    assert Matcher(window_model(table, LAYOUT, 1, 3, 3), correlated=False)(row)[0, 0] == 1
    row = np.array([[1, 0, 0]], np.uint8)
    assert Matcher(window_model(table, LAYOUT, 1, 3, 3, open_past=True), correlated=False)(row)[0, 0] == 0


WINDOWED = {
    "d3": {},
    "d3 commit one": {"window__commit_rounds": 1},
    "d3 all components": {"plan__drop_unobservable": False},
    "d3 correlated": {"plan__matching": "correlated"},
    "d5": {"plan__distance": 5, "plan__rounds": 20, "window__commit_rounds": 4, "window__buffer_rounds": 6},
    "repetition": {"plan__generated": "repetition_code:memory"},
}


@pytest.mark.parametrize("name", WINDOWED)
def test_every_component_is_committed_by_exactly_one_window(name: str) -> None:
    """The committed components of all windows are those of the whole model, once each, with their observables."""
    plan = make_plan(**WINDOWED[name])
    table, layout = plan.errors, plan.layout
    wanted = Counter(
        (p, tuple((t + anchor, slot) for t, slot in part.detectors), part.observables)
        for anchor, errors in table.by_round.items()
        for p, parts in errors.errors
        for part in parts
    )
    found: Counter[Any] = Counter()
    for window in windows_of_shot(table.num_rounds, plan.window):
        model = window_model(table, layout, window.start, window.stop, window.commit_stop)
        seam = [(window.commit_stop + t, slot) for t, slot in model.seam.tolist()]
        for p, groups in components(model):
            for detectors, flips in groups:
                nodes = sorted((window.start + d // layout.layer_bits, d % layout.layer_bits) for d in detectors)
                observables = tuple(o for o in flips if o < model.num_observables)
                beyond = {seam[o - model.num_observables] for o in flips if o >= model.num_observables}
                committed = nodes[0][0] < window.commit_stop
                assert beyond == ({node for node in nodes if node[0] >= window.commit_stop} if committed else set())
                assert committed or not flips
                if committed:
                    found[float(f"{p:.12g}"), tuple(nodes), observables] += 1
    assert found == wanted


@pytest.mark.parametrize("name", WINDOWED)
def test_an_open_past_adds_what_straddles_and_nothing_else(name: str) -> None:
    """In every window but the first: the components of the closed window, one edge per component of the whole model
    that reaches into it from before, and one free end per past detector of those."""
    plan = make_plan(**WINDOWED[name])
    table, layout = plan.errors, plan.layout
    for window in windows_of_shot(table.num_rounds, plan.window)[1:]:
        cut = (window.start, window.stop, window.commit_stop)
        closed, opened = window_model(table, layout, *cut), window_model(table, layout, *cut, open_past=True)
        straddling = Counter(
            (p, tuple((t + anchor, slot) for t, slot in part.detectors))
            for anchor, errors in table.by_round.items()
            for p, parts in errors.errors
            for part in parts
            if part.first_round + anchor < window.start <= part.detectors[-1][0] + anchor < window.stop
        )
        bits = layout.layer_bits

        def node(detector: int, window: Any = window, bits: int = bits) -> tuple[int, int]:
            """The round and slot of a detector of the window's model."""
            layer, slot = divmod(detector, bits)
            rounds = window.stop - window.start
            return (window.start + layer if layer < rounds else window.start - 1 - (layer - rounds)), slot

        found, free = Counter(), Counter()
        extra = components(opened)[: len(components(opened)) - len(components(closed))]
        assert components(opened)[len(extra) :] == components(closed)
        for p, ((detectors, observables),) in extra:
            assert observables == ()
            if len(detectors) == 1:
                assert p == 0.5
                free[detectors[0]] += 1
            else:
                assert sum(d >= bits * (window.stop - window.start) for d in detectors) == 1
                found[p, tuple(sorted(node(d) for d in detectors))] += 1
        assert found == straddling
        assert free == Counter({max(d) for _, ((d, _),) in extra if len(d) == 2})
        assert np.array_equal(opened.seam, closed.seam)
        known = np.unpackbits(opened.mask_b8, bitorder="little")
        assert not known[bits * (window.stop - window.start) :].any()


@pytest.mark.parametrize("name", WINDOWED)
def test_the_seam_lies_beyond_the_commit_region_and_within_the_window(name: str) -> None:
    """Seam detectors are counted from the first undecided round on, sorted, and the next window sees them."""
    plan = make_plan(**WINDOWED[name])
    for model in plan.models:
        rows = [tuple(row) for row in model.seam.tolist()]
        assert rows == sorted(set(rows))
        assert all(0 <= t < model.num_rounds - model.commit_rounds for t, _ in rows)
        assert model.dem.num_observables == model.num_observables + len(rows)
        assert model.dem.num_detectors == 8 * model.row_bytes


@pytest.mark.parametrize("num_rounds", range(2 * EDGE_ROUNDS, 25))
def test_a_stitched_table_is_that_of_the_generated_circuit(num_rounds: int) -> None:
    """Beginning and end of one experiment, joined in the bulk, give the windows of the circuit of that length."""
    plan = make_plan(plan__rounds="endless")
    source = ExperimentSource(make_config(plan__rounds="endless"), plan.table)
    experiment = source.of_rounds(num_rounds)
    rounds = round_map(plan.table, experiment.circuit, experiment.dem)
    generated = error_table(experiment.dem, rounds, plan.layout, drop=True)
    stitched = plan.errors.stitched(num_rounds)
    assert stitched.num_rounds == generated.num_rounds == num_rounds
    assert stitched.dropped == generated.dropped
    for window in windows_of_shot(num_rounds, plan.window):
        cut = (window.start, window.stop, window.commit_stop)
        assert window_model(stitched, plan.layout, *cut).content == window_model(generated, plan.layout, *cut).content


def test_equal_windows_have_equal_content_and_others_not(plan_d3: Plan) -> None:
    """Bulk windows share one content; another cut, commit or table changes it."""

    def content(start: int, stop: int, commit_stop: int) -> str:
        return window_model(plan_d3.errors, plan_d3.layout, start, stop, commit_stop).content

    assert content(3, 9, 6) == content(4, 10, 7)
    assert len({content(3, 9, 6), content(3, 9, 5), content(3, 8, 6), content(0, 6, 3), content(7, 13, 13)}) == 5
