"""A plan says all that decides a correction; what cannot work is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stim

from rtqec.config import WindowTable
from rtqec.errors import PlanError
from rtqec.layout import LayerLayout, bytes_for_bits, ring_capacity, words_for_bits, words_for_bytes
from rtqec.plan import Plan, compile_plan
from rtqec.plan.experiment import ExperimentSource
from rtqec.plan.frames import with_other_frame
from rtqec.plan.schedule import windows_of_shot
from rtqec.windowed import WindowedDecoder
from tests.harness import Piece, make_config, make_plan, write_circuit


@pytest.mark.parametrize(
    ("num_bits", "num_bytes", "num_words"), [(0, 0, 0), (1, 1, 1), (8, 1, 1), (9, 2, 1), (64, 8, 1), (65, 9, 2)]
)
def test_bits_take_whole_bytes_and_words(num_bits: int, num_bytes: int, num_words: int) -> None:
    """Sizes are rounded up, never down."""
    assert bytes_for_bits(num_bits) == num_bytes
    assert words_for_bits(num_bits) == words_for_bytes(num_bytes) == num_words


@pytest.mark.parametrize(("detectors", "measurements", "layer_bytes", "words"),
                         [(0, 0, 1, 1), (8, 9, 1, 1), (9, 8, 2, 1), (24, 25, 3, 1),
                          (64, 65, 8, 2), (65, 0, 9, 2)])  # fmt: skip
def test_a_layer_is_whole_bytes(detectors: int, measurements: int, layer_bytes: int, words: int) -> None:
    """The stride holds the widest layer, at least one byte; scratch holds layer and block."""
    layout = LayerLayout(detectors, measurements)
    assert (layout.layer_bytes, layout.layer_bits, layout.scratch_words) == (layer_bytes, 8 * layer_bytes, words)


@pytest.mark.parametrize(("asked", "window", "capacity"),
                         [(16, 6, 16), (17, 6, 32), (16, 9, 32), (16, 8, 16), (16384, 10, 16384)])  # fmt: skip
def test_a_ring_is_a_power_of_two_that_holds_two_windows(asked: int, window: int, capacity: int) -> None:
    """A slot is found by a mask, and a window never waits for itself."""
    assert ring_capacity(asked, window) == capacity


def test_the_windows_of_a_shot_by_hand() -> None:
    """Thirteen rounds in windows of 3 + 3: commits of 3, and a last window that commits what is left."""
    windows = windows_of_shot(13, WindowTable(commit_rounds=3, buffer_rounds=3))
    assert [(w.start, w.stop, w.commit_stop, w.closing) for w in windows] == [
        (0, 6, 3, False), (3, 9, 6, False), (6, 12, 9, False), (9, 13, 13, True),
    ]  # fmt: skip
    assert [w.index for w in windows] == [0, 1, 2, 3]


def test_the_digest_is_stable(plan_d3: Plan) -> None:
    """The same configuration gives the same digest when it is compiled again, and the tag is its beginning."""
    config = make_config()
    again = compile_plan(config, config.patch[0])
    assert again is not plan_d3
    assert again.digest == plan_d3.digest
    assert f"{plan_d3.tag:08x}" == plan_d3.digest[:8]


CHANGES: dict[str, dict[str, Any]] = {
    "noise": {"plan__noise": 0.011},
    "rounds": {"plan__rounds": 13},
    "basis": {"plan__generated": "surface_code:rotated_memory_x"},
    "commit": {"window__commit_rounds": 4},
    "buffer": {"window__buffer_rounds": 4},
    "matching": {"plan__matching": "correlated"},
    "dropping": {"plan__drop_unobservable": False},
    "frames": {"plan__frames": "both"},
    "endless": {"plan__rounds": "endless"},
}


def test_the_digest_knows_everything_that_decides_a_correction(plan_d3: Plan) -> None:
    """Each change of circuit, window or matching changes the digest."""
    digests = {make_plan(**change).digest for change in CHANGES.values()} | {plan_d3.digest}
    assert len(digests) == len(CHANGES) + 1


def test_a_shared_model_is_stored_once(plan_d3: Plan, plan_endless: Plan) -> None:
    """Equal windows share a model: of a finite shot first, bulk, last; of an endless one a bulk that repeats."""
    assert len({model.content for model in plan_d3.models}) == len(plan_d3.models)
    bulk = plan_endless.own_shapes.open[plan_endless.num_rows - 1, 1, False]
    assert plan_endless.num_rows == 2
    assert plan_endless.window_indices(30)[1:-1] == [bulk] * 7


def test_a_finite_plan_has_the_rounds_of_its_circuit(plan_d3: Plan) -> None:
    """Widths and detectors of each round are those of the circuit; the readout is the last layer."""
    assert (plan_d3.num_rounds, plan_d3.distance, plan_d3.look_back) == (13, 3, 1)
    layers = [plan_d3.layer(t, t == 12) for t in range(13)]
    assert [layer.num_measurements for layer in layers] == [8] * 12 + [9]
    assert [layer.num_detectors for layer in layers] == [4] + [8] * 11 + [4]
    assert plan_d3.num_observables == 1
    assert not plan_d3.endless


def test_an_endless_plan_knows_a_window_for_every_end(plan_endless: Plan) -> None:
    """Every length from 2 rounds on can be closed; one round, or none, cannot."""
    for num_rounds in range(2, 60):
        assert len(plan_endless.window_indices(num_rounds)) == len(windows_of_shot(num_rounds, plan_endless.window))
    with pytest.raises(KeyError):
        plan_endless.window_indices(1)


def test_a_stretched_file_gives_the_plan_of_the_generator(tmp_path: Path) -> None:
    """An endless plan from a circuit file with a REPEAT block is that of the generated circuit."""
    generated = make_plan(plan__rounds="endless")
    source = ExperimentSource(make_config(), make_config().plan)
    path = write_circuit(tmp_path, source.of_rounds(9).circuit)
    config = make_config(plan={"circuit": path, "rounds": "endless"})
    plan = compile_plan(config, config.patch[0])
    assert [m.content for m in plan.models[:2]] == [m.content for m in generated.models[:2]]
    assert plan.window_indices(31) == generated.window_indices(31)


def test_a_short_buffer_is_refused_with_its_reason() -> None:
    """A buffer shorter than the distance is refused by number, reason and remedy."""
    config = make_config(window__buffer_rounds=2)
    with pytest.raises(PlanError) as caught:
        compile_plan(config, config.patch[0])
    error = caught.value
    assert error.where == "[window] buffer_rounds"
    assert error.found.startswith("is 2, but the distance of [plan] is 3 and asks for at least 3")
    assert "overturn" in error.reason
    assert "buffer_rounds = 3" in error.remedy
    assert "accept_short_buffer = true" in error.remedy


def test_a_short_buffer_can_be_accepted_by_name() -> None:
    """The loss is accepted where the configuration says so, and not needed where one window holds the shot."""
    assert make_plan(window__buffer_rounds=2, window__accept_short_buffer=True).window.buffer_rounds == 2
    assert make_plan(window__commit_rounds=13, window__buffer_rounds=0).window_indices(13) == [0]


LONG = """
    detector(0) D0
    detector(1) D1
    detector(2) D2
    detector(3) D3
    detector(4) D4
    detector(5) D5
    error(0.1) D0 D1 L0
    error(0.1) D1 D4
    error(0.1) D2 D3
    error(0.1) D5
"""


def test_errors_longer_than_the_buffer_are_refused(tmp_path: Path) -> None:
    """An error whose detectors lie further apart than the buffer is refused with that number."""
    path = tmp_path / "long.dem"
    path.write_text(LONG)
    window = {"commit_rounds": 1, "buffer_rounds": 2}
    config = make_config(plan={"dem": str(path), "distance": 2}, window=window, feed__payload="detection_events")
    with pytest.raises(PlanError, match="detectors lie 3 rounds apart and asks for at least 3"):
        compile_plan(config, config.patch[0])


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown task": ({"plan__generated": "surface_code:nothing"}, "[plan] generated", "Stim says"),
    "colour code": ({"plan__generated": "color_code:memory_xyz"}, "[plan]", "flip the same detectors"),
    "no sibling": ({"plan__generated": "repetition_code:memory", "plan__frames": "both"},
                   "[plan] frames", "no sibling"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_circuit_that_cannot_be_matched_is_refused(name: str) -> None:
    """What Stim cannot generate, matching cannot decode, or the other frame does not have, is refused by key."""
    overrides, where, said = REFUSED[name]
    config = make_config(**overrides)
    with pytest.raises(PlanError) as caught:
        compile_plan(config, config.patch[0])
    assert caught.value.where == where
    assert said in caught.value.found


@pytest.mark.parametrize(
    ("circuit", "said"),
    [
        ("NOT_A_GATE 0", "which Stim cannot read"),
        ("X_ERROR(0.1) 0\nMR 0\nDETECTOR(0) rec[-1]\nM 1\nDETECTOR(1) rec[-1]", "has 0 observables"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(tmp_path: Path, circuit: str, said: str) -> None:
    """A circuit that Stim cannot read, or that has no observable, is refused."""
    config = make_config(plan={"circuit": write_circuit(tmp_path, circuit), "distance": 3})
    with pytest.raises(PlanError, match=said):
        compile_plan(config, config.patch[0])


def test_an_endless_plan_needs_rounds_that_repeat(tmp_path: Path, plan_d3: Plan) -> None:
    """A file without a REPEAT block is too short to believe that its bulk goes on for ever."""
    path = write_circuit(tmp_path, plan_d3.experiment.circuit.flattened())
    config = make_config(plan={"circuit": path, "rounds": "endless", "distance": 3})
    with pytest.raises(PlanError, match='is "endless", but the file has 13 rounds; the bound is 40'):
        compile_plan(config, config.patch[0])


def test_a_dem_alone_gives_a_plan_of_detection_events(tmp_path: Path, plan_d3: Plan) -> None:
    """The circuit's own DEM gives the same windows, without anything to fold."""
    path = tmp_path / "d3.dem"
    path.write_text(str(plan_d3.experiment.own_dem))
    config = make_config(plan={"dem": str(path), "distance": 3}, feed__payload="detection_events")
    plan = compile_plan(config, config.patch[0])
    for windows, expected in ((plan.own_shapes.open, plan_d3.own_shapes.open),
                              (plan.own_shapes.closing, plan_d3.own_shapes.closing)):  # fmt: skip
        contents = {key: plan.models[model].content for key, model in windows.items()}
        assert contents == {key: plan_d3.models[model].content for key, model in expected.items()}
    assert all(layer.program is None for layer in plan.first_layers)


def bulk_edges(dem: stim.DetectorErrorModel, first: float, last: float) -> dict[frozenset[Any], set[tuple[int, ...]]]:
    """Observables of each edge whose detectors all lie in rounds [first, last], by the detectors' coordinates."""
    places = dem.get_detector_coordinates()
    edges: dict[frozenset[Any], set[tuple[int, ...]]] = {}
    for instruction in dem.flattened():
        for group in instruction.target_groups() if instruction.type == "error" else []:
            nodes = frozenset(tuple(places[t.val]) for t in group if t.is_relative_detector_id())
            if nodes and all(first <= place[-1] <= last for place in nodes):
                flips = tuple(sorted(t.val for t in group if t.is_logical_observable_id()))
                edges.setdefault(nodes, set()).add(flips)
    return edges


@pytest.mark.parametrize("basis", ["x", "z"])
def test_both_frames_have_the_edges_of_each_experiment(basis: str) -> None:
    """In the bulk, observable 0 flips as in this experiment, and observable 1 as in its sibling's."""
    task = f"surface_code:rotated_memory_{basis}"
    both = make_plan(plan__generated=task, plan__frames="both").experiment
    sibling = make_plan(plan__generated=f"surface_code:rotated_memory_{'xz'.replace(basis, '')}").experiment
    own = bulk_edges(both.own_dem, 3, 9)
    other = bulk_edges(sibling.own_dem, 3, 9)
    found = bulk_edges(both.dem, 3, 9)
    assert both.dem.num_observables == 2
    assert set(found) == set(own)
    for nodes, flips in found.items():
        assert {tuple(o for o in f if o == 0) for f in flips} == own[nodes]
        if nodes in other:
            assert {tuple(0 for o in f if o == 1) for f in flips} == other[nodes]
    assert len(set(found) & set(other)) > 0.9 * len(found)
    assert any(1 in f for flips in found.values() for f in flips)


def test_experiments_that_are_no_siblings_are_refused(plan_d3: Plan, plan_d5: Plan) -> None:
    """Two experiments with few detectors in common cannot lend each other a frame."""
    moved = stim.DetectorErrorModel("error(0.1) D0 D1 L0\ndetector(99, 99, 0) D0\ndetector(99, 98, 0) D1")
    with pytest.raises(PlanError, match="only 0 of 2 detectors"):
        with_other_frame(plan_d3.experiment.own_dem, moved)


def test_both_frames_leave_the_own_frame_alone() -> None:
    """The own observable's prediction of windows with both frames is that of windows with one."""
    both, own = make_plan(plan__frames="both"), make_plan(plan__drop_unobservable=False)
    piece = Piece.of(own)
    layers = piece.layers_b8(piece.sample(300, seed=41))
    assert np.array_equal(WindowedDecoder(both)(layers)[:, 0], WindowedDecoder(own)(layers)[:, 0])
