"""Rounds are named, checked and never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stim

from rtqec.errors import PlanError
from rtqec.plan import Plan, compile_plan
from rtqec.plan.folding import fold_programs
from rtqec.plan.rounds import RoundMap, round_map
from tests.harness import make_config, make_plan, write_circuit

# Two qubits measured every round, one of them compared; then both data bits.
SMALL = """
    X_ERROR(0.1) 0 1
    MR 0 1
    DETECTOR(0, 0) rec[-2]
    REPEAT 3 {{
        X_ERROR(0.1) 0 1
        MR 0 1
        SHIFT_COORDS(0, 1)
        DETECTOR{coordinate} rec[-2] rec[-4]
    }}
    X_ERROR(0.1) 2 3
    M 2 3
    SHIFT_COORDS(0, 1)
    DETECTOR(0, 0) rec[-1] rec[-4]
    OBSERVABLE_INCLUDE(0) rec[-1]
"""


def rounds_of(text: str, **plan: Any) -> RoundMap:
    circuit = stim.Circuit(text)
    table = make_config(plan={"circuit": "x.stim", **plan}).plan
    return round_map(table, circuit, circuit.detector_error_model(flatten_loops=True))


@pytest.mark.parametrize("asked", ["auto", 2, [2, 2, 2, 2, 2]])
def test_blocks_are_cut_as_asked(asked: Any) -> None:
    """A period that is found, given, or written out block by block cuts the same record alike."""
    rounds = rounds_of(SMALL.format(coordinate="(0, 0)"), measurements_per_round=asked)
    assert rounds.block_starts.tolist() == [0, 2, 4, 6, 8, 10]
    assert rounds.detector_round.tolist() == [0, 1, 2, 3, 4]
    assert rounds.detectors_per_layer.tolist() == [1] * 5
    assert rounds.num_rounds == 5


@pytest.mark.parametrize("asked", [3, 9, [2, 2, 2, 2], [2, 2, 2, 2, 3], [10], [2, 2, 2, 4]])
def test_blocks_that_do_not_fit_are_refused(asked: Any) -> None:
    """Blocks that do not add up to the record, or are fewer than the layers, are refused with all the numbers."""
    with pytest.raises(PlanError, match="which cuts 10 measurements into") as caught:
        rounds_of(SMALL.format(coordinate="(0, 0)"), measurements_per_round=asked)
    assert caught.value.where == "[plan] measurements_per_round"
    assert repr(asked) in caught.value.found


def test_a_record_without_a_period_is_refused() -> None:
    """A record that does not repeat up to a readout is not cut by guess."""
    with pytest.raises(PlanError, match='is "auto", but the measurements do not repeat'):
        rounds_of("X_ERROR(0.1) 0\nM 0\nDETECTOR(0) rec[-1]\nM 0\nDETECTOR(1) rec[-1] rec[-2]")


@pytest.mark.parametrize("task", ["surface_code:rotated_memory_z", "repetition_code:memory"])
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_short_memory_experiments_are_cut_into_rounds_and_a_readout(task: str, rounds: int) -> None:
    """Even one round and a readout are told apart: what the ancillas said, then what the data said."""
    plan = make_plan(plan__generated=task, plan__rounds=rounds, plan__distance=3)
    ancillas, data = (8, 9) if "surface" in task else (2, 3)
    assert plan.rounds.block_widths.tolist() == [ancillas] * rounds + [data]


def test_the_last_detectors_are_those_of_the_readout() -> None:
    """Where the first outcomes are in no detector, rounds are still aligned at the end."""
    rounds = rounds_of("""
        MR 0
        X_ERROR(0.1) 0
        MR 0
        DETECTOR(5) rec[-1] rec[-2]
        X_ERROR(0.1) 0
        MR 0
        DETECTOR(6) rec[-1] rec[-2]
        X_ERROR(0.1) 1
        M 1
        DETECTOR(7) rec[-1] rec[-2]
    """)
    assert rounds.detector_round.tolist() == [1, 2, 3]
    assert rounds.detectors_per_layer.tolist() == [0, 1, 1, 1]


def test_slots_follow_the_detector_number_in_each_layer(plan_d3: Plan) -> None:
    """Slots of a layer count its detectors in order of number; layers put each event in its own bit."""
    rounds = plan_d3.rounds
    for t in range(rounds.num_rounds):
        mine = np.flatnonzero(rounds.detector_round == t)
        assert rounds.detector_slot[mine].tolist() == list(range(len(mine)))
    assert len(set(rounds.detector_bit.tolist())) == len(rounds.detector_bit)
    events = np.eye(len(rounds.detector_bit), dtype=np.bool_)
    bits = np.unpackbits(rounds.layers_b8(events), axis=1, bitorder="little")
    assert np.array_equal(np.nonzero(bits)[1], rounds.detector_bit)
    assert bits.sum() == len(events)


TIME = {
    "no integer": ("(0, 0.5)", -1, "1.5 there", "are whole numbers"),
    "no coordinate": ("", -1, r"has coordinates \[\]", "not guessed"),
    "index too large": ("(0, 0)", 2, "is 2, but detector D0 has coordinates", "not guessed"),
    "index too small": ("(0, 0)", -3, "is -3, but detector D0 has coordinates", "not guessed"),
}


@pytest.mark.parametrize("name", TIME)
def test_a_coordinate_that_is_not_time_is_refused(name: str) -> None:
    """A time coordinate that is missing, no integer, or leaves holes is refused with detector and value."""
    coordinate, index, found, reason = TIME[name]
    with pytest.raises(PlanError, match=found) as caught:
        rounds_of(SMALL.format(coordinate=coordinate), time_coordinate=index, measurements_per_round=2)
    assert caught.value.where == "[plan] time_coordinate"
    assert reason in caught.value.reason


@pytest.mark.parametrize("index", [0, 1])
def test_a_place_is_not_taken_for_time(tmp_path: Path, index: int, plan_d3: Plan) -> None:
    """Naming x or y instead of t is refused: the surface code's places leave holes."""
    path = write_circuit(tmp_path, plan_d3.experiment.circuit)
    config = make_config(plan={"circuit": path, "time_coordinate": index, "distance": 3})
    with pytest.raises(PlanError) as caught:
        compile_plan(config, config.patch[0])
    assert caught.value.where == "[plan] time_coordinate"


def test_time_may_stand_at_any_index(tmp_path: Path, plan_d3: Plan) -> None:
    """The same circuit with time at index 0 of 4 gives the same plan, once that is said."""
    text = []
    for line in str(plan_d3.experiment.circuit.flattened()).split("\n"):
        head, paren, tail = line.partition("(")
        if head == "DETECTOR":
            inner, _, rest = tail.partition(")")
            x, y, t = inner.split(",")
            text.append(f"DETECTOR({t}, {x}, {y}, 9){rest}")
        else:
            text.append(head + paren + tail)
    path = write_circuit(tmp_path, "\n".join(text))
    config = make_config(plan={"circuit": path, "time_coordinate": 0, "distance": 3})
    assert compile_plan(config, config.patch[0]).digest == plan_d3.digest


def test_rounds_without_detectors_are_refused() -> None:
    """A time coordinate that skips a round is refused with that round."""
    with pytest.raises(PlanError, match="no detector has round 2 of 4") as caught:
        rounds_of(
            "MR 0\nX_ERROR(0.1) 0\nMR 0\nDETECTOR(0) rec[-1]\nMR 0\nM 1\nDETECTOR(2) rec[-1]",
            measurements_per_round=[1, 1, 1, 1],
        )
    assert caught.value.where == "[plan] time_coordinate"


@pytest.mark.parametrize("widths", [1, [1, 3, 2, 2, 2], [1, 2, 2, 2, 3]])
def test_a_detector_that_uses_later_rounds_is_refused(widths: int | list[int]) -> None:
    """A detector of round t that needs a measurement of a later block cannot be folded in time."""
    text = SMALL.format(coordinate="(0, 0)").replace("DETECTOR(0, 0) rec[-2]\n", "DETECTOR(0, 0) rec[-1]\n")
    rounds = rounds_of(text, measurements_per_round=widths)
    with pytest.raises(PlanError, match=r"puts detector D\d into round \d, but it uses measurement \d of round"):
        fold_programs(stim.Circuit(text), rounds)


def test_a_circuit_without_detectors_is_refused() -> None:
    """Nothing to decode is an error, not an empty plan."""
    with pytest.raises(PlanError, match="has no detectors"):
        rounds_of("M 0\nOBSERVABLE_INCLUDE(0) rec[-1]")
