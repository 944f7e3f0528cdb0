"""Labels put through the layout explain every event, leave nothing, and flip the right observable."""

from __future__ import annotations

import numpy as np
import pytest
import stim
from hypothesis import given, settings
from hypothesis import strategies as st

from rtqec.errors import PlanError
from rtqec.neural.code import surface_code
from rtqec.neural.effects import DATA
from rtqec.neural.experiment import GridExperiment
from rtqec.neural.labels import Labeller
from rtqec.neural.restate import Restatement
from tests.orientations import ORIENTATIONS, memory_circuit

SHOTS = 200


def labels_of(experiment: GridExperiment, happened: np.ndarray) -> np.ndarray:
    """The XOR of the labels of the errors that happened, by hand: bool, (shots, 4, layers, distance, distance)."""
    layout, num_layers = experiment.layout, experiment.rounds.num_rounds
    size, n = layout.code.distance, layout.code.num_cells
    answers = np.zeros((len(happened), 4, num_layers, n), np.bool_)
    labeller = Labeller(experiment.effects)
    for error, mechanism in enumerate(experiment.mechanisms):
        for t, kind, channel, cell in labeller.label(mechanism):
            answers[happened[:, error], (0 if kind == DATA else 2) + channel, t, cell] ^= True
    return answers.reshape(len(happened), 4, num_layers, size, size)


@pytest.mark.parametrize("distance", [3, 5, 7])
@pytest.mark.parametrize("basis", ["X", "Z"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("noisy_end", [True, False])
@pytest.mark.parametrize("frame", ["own", "published"])
def test_labels_explain_everything(orientation: str, basis: str, distance: int, noisy_end: bool, frame: str) -> None:
    """In every orientation, basis and frame, with and without a noisy end: residual 0 and the right observable."""
    circuit = memory_circuit(distance, 4, orientation, basis, 0.01, noisy_end)
    experiment = GridExperiment.of_circuit(circuit, frame)  # type: ignore[arg-type]
    layout = experiment.layout
    if frame == "own":
        assert layout.own == 0
    else:
        assert layout.own == int((basis == "X") == (orientation in ("ZV", "ZH")))
    events, observables, happened = experiment.dem.compile_sampler(seed=20261121).sample(SHOTS, return_errors=True)
    assert happened.shape[1] == len(experiment.mechanisms)
    volume = layout.volume(events, experiment.rounds)
    residual, flips = Restatement(experiment.effects, (0, 1))(volume, labels_of(experiment, happened))
    assert not residual.any()
    assert np.array_equal(flips, observables[:, 0])


@settings(max_examples=20)
@given(
    task=st.sampled_from(["surface_code:rotated_memory_z", "surface_code:rotated_memory_x"]),
    distance=st.sampled_from([3, 5, 7]), rounds=st.integers(2, 9), noise=st.floats(0.001, 0.05), both=st.booleans(),
    seed=st.integers(0, 1 << 32),
)  # fmt: skip
def test_sampled_labels_leave_nothing(
    task: str, distance: int, rounds: int, noise: float, both: bool, seed: int
) -> None:
    """The sampler's shots are explained by its labels: the own channel, or both."""
    experiment = GridExperiment.generated(task, distance, rounds, noise)
    shots = experiment.labelled_shots(both)
    events, answers, flips = shots.sample(50, np.random.default_rng(seed))
    residual, found = Restatement(experiment.effects, shots.channels)(events, answers.astype(np.bool_))
    assert not residual[:, list(shots.channels)].any()
    assert np.array_equal(found, flips)


@pytest.mark.statistics
def test_sampled_rates_are_stims() -> None:
    """Rates of every detector and of the observable equal Stim's sampler's, each within 5 sigma (p < 1e-4 in all)."""
    experiment = GridExperiment.generated("surface_code:rotated_memory_z", 5, 4, 0.01)
    num = 40_000
    events, _, flips = experiment.labelled_shots().sample(num, np.random.default_rng(1))
    theirs, observables = experiment.circuit.compile_detector_sampler(seed=1).sample(num, separate_observables=True)  # type: ignore[union-attr]
    wanted = experiment.layout.volume(theirs, experiment.rounds)
    for mine, other in ((events.mean(axis=0), wanted.mean(axis=0)), (flips.mean(), observables.mean())):
        sigma = np.sqrt((mine * (1 - mine) + other * (1 - other)) / num)
        assert (np.abs(mine - other) <= 5 * sigma).all()


def test_events_of_a_single_data_error_are_its_checks() -> None:
    """A data error in the middle of a shot flips the checks around it, in its own round, on the grid."""
    code = surface_code(5)
    experiment = GridExperiment.generated("surface_code:rotated_memory_z", 5, 6, 0.01)
    pairs = {m.spots for m in experiment.mechanisms}
    for cell in range(code.num_cells):
        checks = code.checks_of[0][cell]
        assert frozenset((0, 3, check) for check in checks) in pairs


@pytest.mark.parametrize(
    "circuit",
    [
        stim.Circuit.generated("repetition_code:memory", distance=5, rounds=4, before_measure_flip_probability=0.01),
        stim.Circuit.generated(
            "surface_code:unrotated_memory_z", distance=3, rounds=4, before_measure_flip_probability=0.01
        ),
        stim.Circuit.generated(
            "surface_code:rotated_memory_z", distance=4, rounds=4, before_measure_flip_probability=0.01
        ),
        stim.Circuit.generated("color_code:memory_xyz", distance=3, rounds=4, before_measure_flip_probability=0.01),
    ],
    ids=["repetition", "unrotated", "even", "color"],
)
def test_other_codes_are_refused(circuit: stim.Circuit) -> None:
    """A circuit that is no rotated surface code is refused with key, finding, reason and remedy."""
    with pytest.raises(PlanError, match=r"\[predecode\]") as refused:
        GridExperiment.of_circuit(circuit)
    assert "Remove [predecode]" in refused.value.remedy
