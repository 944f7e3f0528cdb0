"""Raw measurements fold to Stim's detection events, whatever the circuit looks back to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stim
from numpy.typing import NDArray

from rtqec.errors import PlanError
from rtqec.plan import Plan, compile_plan
from rtqec.plan.folding import FoldProgram, fold_programs
from rtqec.plan.rounds import round_map
from tests.harness import BenchMaker, Piece, Speaker, make_config, write_circuit

SURFACE = stim.Circuit.generated(
    "surface_code:rotated_memory_z", distance=3, rounds=6, before_round_data_depolarization=0.01
)
WITHOUT_RESET = """
    R 0 1 2 3 4
    X_ERROR(0.02) 0 2 4
    CX 0 1 2 3
    CX 2 1 4 3
    M 1 3
    DETECTOR(1, 0) rec[-2]
    DETECTOR(3, 0) rec[-1]
    X_ERROR(0.02) 0 2 4
    CX 0 1 2 3
    CX 2 1 4 3
    M 1 3
    SHIFT_COORDS(0, 1)
    DETECTOR(1, 0) rec[-2]
    DETECTOR(3, 0) rec[-1]
    REPEAT 6 {
        X_ERROR(0.02) 0 2 4
        CX 0 1 2 3
        CX 2 1 4 3
        M 1 3
        SHIFT_COORDS(0, 1)
        DETECTOR(1, 0) rec[-2] rec[-6]
        DETECTOR(3, 0) rec[-1] rec[-5]
    }
    M 0 2 4
    SHIFT_COORDS(0, 1)
    DETECTOR(1, 0) rec[-3] rec[-2] rec[-5] rec[-7]
    DETECTOR(3, 0) rec[-2] rec[-1] rec[-4] rec[-6]
    OBSERVABLE_INCLUDE(0) rec[-1]
"""
SWEPT = """
    R 0 1 2 3 4
    CX sweep[0] 0 sweep[1] 2 sweep[2] 4
    X_ERROR(0.02) 0 2 4
    CX 0 1 2 3
    CX 2 1 4 3
    MR 1 3
    DETECTOR(1, 0) rec[-2]
    DETECTOR(3, 0) rec[-1]
    REPEAT 6 {
        X 0
        X_ERROR(0.02) 0 2 4
        CX 0 1 2 3
        CX 2 1 4 3
        MR 1 3
        SHIFT_COORDS(0, 1)
        DETECTOR(1, 0) rec[-2] rec[-4]
        DETECTOR(3, 0) rec[-1] rec[-3]
    }
    M 0 2 4
    SHIFT_COORDS(0, 1)
    DETECTOR(1, 0) rec[-3] rec[-2] rec[-5]
    DETECTOR(3, 0) rec[-2] rec[-1] rec[-4]
    OBSERVABLE_INCLUDE(0) rec[-1]
"""
CIRCUITS = {
    "surface": str(SURFACE),
    "look-back of two": WITHOUT_RESET,
    "sweep bits and constants": SWEPT,
    "constants": SWEPT.replace("CX sweep[0] 0 sweep[1] 2 sweep[2] 4", "X 0"),
}


def plan_of(folder: Path, text: str) -> Plan:
    config = make_config(plan={"circuit": write_circuit(folder, text), "distance": 3})
    return compile_plan(config, config.patch[0])


def fold_slowly(
    program: FoldProgram, blocks: list[NDArray[np.bool_]], t: int, sweep: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Detection events of round t, as the docstring of `FoldProgram` says them."""
    events = program.constants.astype(np.bool_)
    for slot, back, measurement in program.sources.tolist():
        events[slot] ^= blocks[t - back][measurement]
    for slot, bit in program.sweeps.tolist():
        events[slot] ^= sweep[bit]
    return events


@pytest.mark.parametrize("name", CIRCUITS)
def test_any_measurements_fold_to_what_stim_says(tmp_path: Path, make_bench: BenchMaker, name: str) -> None:
    """Random measurements and sweep bits fold to Stim's detection events: programs, and the compiled feed."""
    plan = plan_of(tmp_path, CIRCUITS[name])
    piece, speaker = Piece.of(plan), Speaker(plan)
    rng = np.random.default_rng(1)
    measurements = rng.random((20, piece.circuit.num_measurements)) < 0.5
    sweeps = rng.random((20, piece.circuit.num_sweep_bits)) < 0.5
    expected = piece.events(measurements, sweeps)
    bench = make_bench(plan)
    for shot_id, (shot, sweep) in enumerate(zip(measurements, sweeps, strict=True)):
        blocks = piece.blocks(shot)
        for t, program in enumerate(fold_programs(piece.circuit, piece.rounds)):
            mine = piece.rounds.detector_round == t
            assert np.array_equal(fold_slowly(program, blocks, t, sweep), expected[shot_id][mine])
        bench.ingest(*speaker.shot(blocks, shot_id, sweep if len(sweep) else None))
        assert np.array_equal(bench.layers(piece.rounds.num_rounds), piece.layers_b8(shot[None], sweep[None])[0])
        bench.carry()


def test_the_circuits_are_what_they_are_here_for(tmp_path: Path) -> None:
    """The corpus has a look-back of two, constants, sweep bits, and a layer that is folded a word at a time."""
    plans = {name: plan_of(tmp_path, text) for name, text in CIRCUITS.items()}
    assert plans["look-back of two"].look_back == 2
    assert plans["sweep bits and constants"].num_sweep_bits == 3
    for name in ("constants", "sweep bits and constants"):
        assert any(layer.program.constants.any() for layer in plans[name].first_layers)
    assert any(layer.program.diagonal_back == 2 for layer in plans["look-back of two"].first_layers)
    assert any(layer.program.diagonal_back == 1 for layer in plans["constants"].first_layers)
    assert any(len(layer.program.sweeps) for layer in plans["sweep bits and constants"].first_layers)


def test_a_missing_sweep_block_means_zeros(tmp_path: Path, make_bench: BenchMaker) -> None:
    """A shot that brings no sweep bits is folded with zeros, not with those of the shot before."""
    plan = plan_of(tmp_path, SWEPT)
    piece, speaker = Piece.of(plan), Speaker(plan)
    shot = np.zeros(piece.circuit.num_measurements, np.bool_)
    bench = make_bench(plan)
    for shot_id, sweep in enumerate([np.ones(3, np.bool_), np.zeros(3, np.bool_)]):
        bench.ingest(*speaker.shot(piece.blocks(shot), shot_id, None if shot_id else sweep))
        assert np.array_equal(bench.layers(8), piece.layers_b8(shot[None], sweep[None])[0])
        bench.carry()


@pytest.mark.parametrize("name", CIRCUITS)
def test_fixes_flip_exactly_one_detector(tmp_path: Path, name: str) -> None:
    """Flipping the measurements that a slot's fix names flips that detector of the layer, and no other."""
    piece = Piece.of(plan_of(tmp_path, CIRCUITS[name]))
    checked = 0
    for t, program in enumerate(fold_programs(piece.circuit, piece.rounds)):
        for slot in sorted(set(program.fixes[:, 0].tolist())):
            shot = np.zeros(piece.circuit.num_measurements, np.bool_)
            before = piece.events(shot[None])[0]
            for measurement in program.fixes[program.fixes[:, 0] == slot, 1].tolist():
                shot[piece.rounds.block_starts[t] + measurement] ^= True
            flipped = np.flatnonzero((piece.events(shot[None])[0] ^ before) & (piece.rounds.detector_round == t))
            assert piece.rounds.detector_slot[flipped].tolist() == [slot]
            checked += 1
    assert checked == len(piece.rounds.detector_round)


@pytest.mark.parametrize("lost", [2, 3, 5])
@pytest.mark.parametrize("name", ["look-back of two", "constants", "sweep bits and constants"])
def test_a_lost_round_reads_zero_and_its_news_comes_later(
    tmp_path: Path, make_bench: BenchMaker, name: str, lost: int
) -> None:
    """A filled round's detectors read 0; each of its events comes back, once, in the round that looks back at it."""
    plan = plan_of(tmp_path, CIRCUITS[name])
    piece, back = Piece.of(plan), plan.look_back
    rng = np.random.default_rng(2)
    shot = rng.random(piece.circuit.num_measurements) < 0.5
    sweep = rng.random(piece.circuit.num_sweep_bits) < 0.5
    expected = piece.blocks(piece.events(shot[None], sweep[None])[0], events=True)
    bench = make_bench(plan)
    messages = Speaker(plan).shot(piece.blocks(shot), 0, sweep if len(sweep) else None)
    bench.ingest(*(m for t, m in enumerate(messages) if t != lost))
    assert bench.feed_counts()["rounds_filled"] == 1
    expected[lost + back] = expected[lost + back] ^ expected[lost]
    expected[lost] = np.zeros_like(expected[lost])
    layers = np.unpackbits(bench.layers(len(expected)), bitorder="little").reshape(len(expected), -1)
    for t in range(len(expected) - 1):
        assert np.array_equal(layers[t][: len(expected[t])], expected[t])


def test_a_chain_back_to_the_beginning_is_refused() -> None:
    """Detectors that look back further than the history that a patch keeps are refused."""
    lines = ["MR 0", "X_ERROR(0.1) 0"]
    lines += [f"X_ERROR(0.1) 0\nMR 0\nDETECTOR({t}) rec[-1] rec[-{t + 1}]" for t in range(1, 80)]
    circuit = stim.Circuit("\n".join([*lines, "M 1", "DETECTOR(80) rec[-1]"]))
    table: Any = make_config(plan={"circuit": "x", "measurements_per_round": [1] * 81}).plan
    rounds = round_map(table, circuit, circuit.detector_error_model())
    with pytest.raises(PlanError, match="the bound is 64"):
        fold_programs(circuit, rounds)
