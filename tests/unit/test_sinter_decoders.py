"""rtqec's windows give sinter the answers that a lane would give."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import sinter
import stim
from numpy.typing import NDArray

from rtqec.errors import ConfigError, PlanError
from rtqec.plan import Plan
from rtqec.plan.schedule import windows_of_shot
from rtqec.reference import WholeShotMatcher
from rtqec.sinter_decoders import WindowedSinterDecoder, sinter_decoders
from rtqec.windowed import WindowedDecoder
from rtqec.wire import Rung
from tests.harness import make_plan

SHOTS = 2000
"""More than the 1024 that are decoded at once."""


def sampled(plan: Plan, shots: int = SHOTS) -> tuple[stim.Circuit, NDArray[np.bool_], NDArray[np.bool_]]:
    """The plan's circuit, and shots of it: detection events and observable flips."""
    circuit = plan.experiment.circuit
    assert circuit is not None
    events, flips = circuit.compile_detector_sampler(seed=3).sample(shots, separate_observables=True)
    return circuit, events, flips


def model_of(circuit: stim.Circuit) -> stim.DetectorErrorModel:
    """As sinter makes it."""
    return circuit.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True)


def decoded(decoder: sinter.Decoder, dem: stim.DetectorErrorModel, events: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Through sinter's door, there and back."""
    packed = np.packbits(events, axis=1, bitorder="little")
    flips = decoder.compile_decoder_for_dem(dem=dem).decode_shots_bit_packed(bit_packed_detection_event_data=packed)
    assert flips.dtype == np.uint8
    return np.unpackbits(flips, axis=1, count=dem.num_observables, bitorder="little").astype(np.bool_)


def as_a_lane_would(plan: Plan, layers_b8: NDArray[np.uint8], rung: Rung) -> list[int]:
    """One window of one shot at a time."""
    decoder = WindowedDecoder(plan)
    flips = []
    for shot in layers_b8:
        residual, frame = shot.copy(), 0
        for window in windows_of_shot(plan.rounds.num_rounds, plan.window):
            frame ^= decoder.decode(residual, window, decoder.decoder(window, rung))
        flips.append(frame)
    return flips


def test_windows_are_those_of_the_plan(plan_d3: Plan) -> None:
    """The decoder made from the bare DEM answers every shot as the plan that was made from the circuit."""
    circuit, events, _ = sampled(plan_d3)
    flips = decoded(WindowedSinterDecoder(), model_of(circuit), events)
    assert flips.any()
    assert np.array_equal(flips, WindowedDecoder(plan_d3)(plan_d3.rounds.layers_b8(events)))


@pytest.mark.parametrize("rung", [Rung.MATCH, Rung.CORRELATED_MATCH])
def test_one_long_window_is_whole_shot_matching(plan_d3: Plan, rung: Rung) -> None:
    """A window longer than the shot gives PyMatching's answer on the whole shot, bit for bit."""
    circuit, events, _ = sampled(plan_d3)
    flips = decoded(WindowedSinterDecoder(rung=rung, commit_rounds=50), model_of(circuit), events)
    whole = WholeShotMatcher(model_of(circuit), rung == Rung.CORRELATED_MATCH)
    assert np.array_equal(flips, whole(np.packbits(events, axis=1, bitorder="little")))


@pytest.mark.parametrize(
    ("name", "matching", "rung"),
    [
        ("rtqec", "plain", Rung.MATCH),
        ("rtqec_correlated", "correlated", Rung.CORRELATED_MATCH),
        ("rtqec_union_find", "plain", Rung.UNION_FIND),
    ],
)
def test_each_rung_is_decoded_as_a_lane_decodes_it(name: str, matching: str, rung: Rung) -> None:
    """What is decoded in batches equals what is decoded one window after the other, on every rung."""
    plan = make_plan(plan__matching=matching)
    circuit, events, _ = sampled(plan)
    flips = decoded(sinter_decoders()[name], model_of(circuit), events)
    some = slice(SHOTS - 200, SHOTS)
    assert flips[some, 0].tolist() == as_a_lane_would(plan, plan.rounds.layers_b8(events[some]), rung)


def test_rungs_differ(plan_d3: Plan) -> None:
    """The three decoders are three: on 2000 shots no two of them answer alike, and none is wrong as often as not."""
    circuit, events, truth = sampled(plan_d3)
    answers = [decoded(decoder, model_of(circuit), events) for decoder in sinter_decoders().values()]
    assert len({answer.tobytes() for answer in answers}) == 3
    for answer in answers:
        assert (answer != truth).mean() < 0.25


def test_several_observables_come_packed(plan_d3: Plan) -> None:
    """Each observable has its own bit of the answer, the least significant first."""
    dem = model_of(sampled(plan_d3, 1)[0])
    twice = stim.DetectorErrorModel(str(dem).replace(" L0", " L0 L9"))
    events = sampled(plan_d3)[1]
    flips = decoded(WindowedSinterDecoder(), twice, events)
    assert flips.shape == (SHOTS, 10)
    assert np.array_equal(flips[:, 0], flips[:, 9])
    assert not flips[:, 1:9].any()
    assert np.array_equal(flips[:, :1], decoded(WindowedSinterDecoder(), dem, events))


def test_no_shots_have_no_answers(plan_d3: Plan) -> None:
    """sinter may ask for nothing, where it has discarded all shots of a batch."""
    circuit, events, _ = sampled(plan_d3)
    assert decoded(WindowedSinterDecoder(), model_of(circuit), events[:0]).shape == (0, 1)


def test_windows_follow_the_distance(plan_d5: Plan) -> None:
    """Without being told, a window commits as many rounds as the shortest error has parts, and looks at as many."""
    plan = WindowedSinterDecoder().plan(model_of(sampled(plan_d5, 1)[0]))
    assert (plan.distance, plan.window.commit_rounds, plan.window.buffer_rounds) == (5, 5, 5)


def test_decoders_travel_by_pickle(plan_d3: Plan) -> None:
    """A decoder that has been to a worker process is the same, and decodes the same."""
    circuit, events, _ = sampled(plan_d3, 100)
    for decoder in sinter_decoders().values():
        copy = pickle.loads(pickle.dumps(decoder))  # noqa: S301 (our own bytes)
        assert copy == decoder
        dem = model_of(circuit)
        assert np.array_equal(decoded(copy, dem, events), decoded(decoder, dem, events))


def test_a_model_without_time_is_refused(plan_d3: Plan) -> None:
    """Where detectors have no coordinates, the message names time_coordinate, the detector and the remedy."""
    bare = stim.DetectorErrorModel("error(0.1) D0 L0\nerror(0.1) D0 D1\nerror(0.1) D1")
    with pytest.raises(PlanError, match=r"time_coordinate is -1, but detector D0 has coordinates \[\]") as refusal:
        WindowedSinterDecoder().compile_decoder_for_dem(dem=bare)
    assert "add coordinates to the circuit" in str(refusal.value)
    with pytest.raises(PlanError, match="time_coordinate is 7"):
        WindowedSinterDecoder(time_coordinate=7).plan(model_of(sampled(plan_d3, 1)[0]))


def test_windows_that_cannot_work_are_refused(plan_d3: Plan) -> None:
    """The message names the option by which the windows were asked for."""
    dem = model_of(sampled(plan_d3, 1)[0])
    with pytest.raises(PlanError, match="buffer_rounds is 1, but the distance"):
        WindowedSinterDecoder(buffer_rounds=1).plan(dem)
    assert WindowedSinterDecoder(buffer_rounds=1, accept_short_buffer=True).plan(dem).window.buffer_rounds == 1
    with pytest.raises(ConfigError, match="commit_rounds is 0"):
        WindowedSinterDecoder(commit_rounds=0).plan(dem)
    with pytest.raises(ConfigError, match="rung is HOLD"):
        WindowedSinterDecoder(rung=Rung.HOLD).plan(dem)
    silent = stim.DetectorErrorModel("detector(0) D0\nerror(0.1) D0\nlogical_observable L0")
    with pytest.raises(PlanError, match=r"distance is not given, and Stim finds no undetected logical error"):
        WindowedSinterDecoder().plan(silent)


def test_a_refusal_survives_the_way_to_another_process() -> None:
    """sinter hands a worker's exception over by pickle; the message and its parts come through whole."""
    with pytest.raises(PlanError) as refusal:
        WindowedSinterDecoder().plan(stim.DetectorErrorModel("error(0.1) L0\nerror(0.1) D0"))
    copy = pickle.loads(pickle.dumps(refusal.value))  # noqa: S301 (our own bytes)
    assert type(copy) is PlanError
    assert (str(copy), copy.where, copy.remedy) == (
        str(refusal.value), refusal.value.where, refusal.value.remedy,
    )  # fmt: skip


def test_sinter_collects_with_it(plan_d3: Plan) -> None:
    """`sinter.collect` takes the decoder by name, sends it to a worker process, and counts every shot."""
    circuit = sampled(plan_d3, 1)[0]
    (stats,) = sinter.collect(
        num_workers=1, tasks=[sinter.Task(circuit=circuit)], decoders=["rtqec"], max_shots=500,
        custom_decoders=sinter_decoders(), allowed_cpu_affinity_ids=[],
    )  # fmt: skip
    assert (stats.decoder, stats.shots) == ("rtqec", 500)
    assert 0 < stats.errors < 250


def test_rtqec_does_not_need_sinter() -> None:
    """Where sinter is not installed, the daemon's commands can still be imported."""
    script = "import sys; sys.modules['sinter'] = None; import rtqec.cli, rtqec.verify, rtqec.lane"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
