"""A CUDA-Q decoder's tables become rounds, and a plan that decodes as they say."""

from __future__ import annotations

import numpy as np
import pytest
import stim

from rtqec.cudaq.decoder import CudaqDecoder
from rtqec.cudaq.plan_decoder import decoder_of_plan
from rtqec.cudaq.rounds import blocks_that_repeat, rounds_from_blocks
from rtqec.reference import WholeShotMatcher
from rtqec.windowed import WindowedDecoder
from tests.cudaq import compiled, flips_of, identity_decoder
from tests.harness import Piece, make_plan

TASKS = ["surface_code:rotated_memory_z", "surface_code:rotated_memory_x", "repetition_code:memory"]


@pytest.mark.parametrize("task", TASKS)
def test_tables_of_a_plan_say_what_stim_folds(task: str) -> None:
    """Each detector is the XOR of the measurements that the tables name, in the rounds and blocks of the plan."""
    plan = make_plan(plan__generated=task)
    decoder = decoder_of_plan(plan)
    piece = Piece.of(plan)
    shots = piece.sample(50, seed=3)
    folded = np.array([shots[:, list(measurements)].sum(axis=1) % 2 for measurements in decoder.measurements_of]).T
    assert np.array_equal(folded.astype(np.bool_), piece.events(shots))
    assert decoder.num_measurements == shots.shape[1]
    assert decoder.rounds == tuple(plan.rounds.detector_round.tolist())
    assert decoder.block_widths == tuple(np.diff(plan.rounds.block_starts).tolist())


@pytest.mark.parametrize("distance", [3, 5])
@pytest.mark.parametrize("task", TASKS)
def test_rounds_are_found_in_the_tables(task: str, distance: int) -> None:
    """Where nobody names rounds, the blocks over which detectors look back are those of the circuit."""
    plan = make_plan(plan__generated=task, plan__distance=distance, window__buffer_rounds=distance)
    decoder = decoder_of_plan(plan)
    found = rounds_from_blocks(decoder.measurements_of, blocks_that_repeat(decoder.measurements_of))
    assert found == (decoder.rounds, decoder.block_widths)


def test_a_plan_of_tables_decodes_as_the_one_of_the_circuit() -> None:
    """The same windows, and for every shot the same corrections, whether rounds are named or found."""
    plan = make_plan(ladder__fallbacks=())
    decoder = decoder_of_plan(plan)
    model = stim.DetectorErrorModel("".join(f"{step}\n" for step in decoder.dem if step.type != "detector"))
    found = CudaqDecoder(model, decoder.measurements_of, decoder.num_observables)
    shots = Piece.of(plan).sample(40, seed=5)
    for tables in (decoder, found):
        other = compiled(tables)
        assert (other.num_rounds, other.rounds.detectors_per_layer.tolist()) == (
            plan.num_rounds, plan.rounds.detectors_per_layer.tolist(),
        )  # fmt: skip
        assert [flips_of(other, shot) for shot in shots] == [flips_of(plan, shot) for shot in shots]


def test_tables_without_structure_are_one_round() -> None:
    """The three bits of NVIDIA's smoke test: one window, which decodes the whole shot."""
    plan = compiled(identity_decoder())
    assert (plan.num_rounds, plan.num_observables) == (1, 3)
    assert [flips_of(plan, np.array(bits, np.bool_)) for bits in ([1, 0, 1], [0, 1, 0], [0, 0, 0])] == [5, 2, 0]


def test_random_tables_are_decoded_as_a_whole() -> None:
    """Detectors of any measurements, in any order: the corrections of whole-shot matching."""
    random = np.random.default_rng(7)
    tables = tuple(tuple(sorted(random.choice(100, 5, replace=False).tolist())) for _ in range(6))
    dem = stim.DetectorErrorModel(
        "\n".join(f"error({0.01 * (k + 1)}) D{k} D{k + 1}" for k in range(5)) + "\nerror(0.02) D0 L0\nerror(0.03) D5"
    )
    decoder = CudaqDecoder(dem, tables, 1)
    plan = compiled(decoder)
    assert plan.num_rounds == 1
    shots = random.random((60, decoder.num_measurements)) < 0.5
    events = np.array([shots[:, list(measurements)].sum(axis=1) % 2 for measurements in tables]).T.astype(np.bool_)
    expected = WholeShotMatcher(dem, False)(np.packbits(events, axis=1, bitorder="little"))
    assert np.array_equal(WindowedDecoder(plan)(Piece.of(plan).layers_b8(shots)), expected)
