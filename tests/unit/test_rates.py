"""Bursts and drift change the error rates of an endless stream as they say, and nothing else."""

from __future__ import annotations

import numpy as np
import pymatching
import pytest
from numpy.typing import NDArray

from firmware_sim.endless import detector_places
from rtqec.plan import Plan
from rtqec.wire import ROUNDS_HEADER_BYTES
from tests.harness import Piece
from tests.unit.faulty import ENDLESS, Run, run


def sent_events(found: Run) -> NDArray[np.bool_]:
    """Detection events of the bulk rounds of an endless stream, bool, shape (num_rounds, num_detectors)."""
    bulk = found.plans[0].layer(100, False).num_detectors
    messages = found.messages[8:-8]
    stop = ROUNDS_HEADER_BYTES + (bulk + 7) // 8
    packed = np.array([list(message[ROUNDS_HEADER_BYTES:stop]) for message in messages], np.uint8)
    return np.unpackbits(packed, axis=1, bitorder="little", count=bulk).astype(np.bool_)


def predicted_fractions(plan: Plan, centre: tuple[float, float], radius: float, factor: float) -> NDArray[np.float64]:
    """Detection fraction of each detector of a bulk round, by the error model with near errors more probable."""
    places = plan.experiment.own_dem.get_detector_coordinates()
    middle = plan.rounds.num_rounds // 2
    keep = np.ones(plan.layer(100, False).num_detectors)
    for error in plan.experiment.own_dem:
        if error.type != "error":
            continue
        detectors = [t.val for t in error.targets_copy() if t.is_relative_detector_id()]
        x, y = np.mean([places[d][:2] for d in detectors], axis=0)
        near = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
        p = min(0.5, error.args_copy()[0] * (factor if near else 1.0))
        for d in {d for d in detectors if detectors.count(d) % 2}:
            if plan.rounds.detector_round[d] == middle:
                keep[plan.rounds.detector_slot[d]] *= 1 - 2 * p
    return (1 - keep) / 2


@pytest.mark.statistics
def test_bursts_raise_the_rates_near_their_centre_alone() -> None:
    """While a burst lasts every detector fires as the error model says with near errors more probable; then as ever."""
    centre, radius, factor = (2.0, 2.0), 2.3, 12.0
    place = {"centre": list(centre), "radius": radius}
    found = run(
        {"kind": "burst", "every_rounds": 100, "rounds": 50, "factor": factor, **place},
        source__rounds=60_000,
        **ENDLESS,
    )
    plan = found.plans[0]
    events = sent_events(found)
    phase = (np.arange(len(events)) + 8) % 100
    # Two rounds at each edge belong to both.
    during, after = events[(phase >= 2) & (phase < 48)], events[phase >= 52]
    assert len(found.faults.bursts) == 599
    for sample, raised in ((during, factor), (after, 1.0)):
        predicted = predicted_fractions(plan, centre, radius, raised)
        # Twice eight detectors at 4.5 sigma: fails once in ten thousand seeds.
        sigma = np.sqrt(predicted * (1 - predicted) / len(sample))
        assert (np.abs(sample.mean(axis=0) - predicted) < 4.5 * sigma).all()
    far = [slot for (t, slot), (x, y) in detector_places(plan).items() if t == 8 and (x - 2) ** 2 + (y - 2) ** 2 > 16]
    assert during.mean() > 2 * after.mean()
    assert np.abs(during[:, far].mean() - after[:, far].mean()) < 0.01


@pytest.mark.statistics
def test_bursts_decay_and_drift_swings() -> None:
    """A burst's excess falls by e every `decay_rounds`; drift raises rates in its first half and lowers them after."""
    burst = {"kind": "burst", "every_rounds": 200, "rounds": 150, "radius": 100.0, "factor": 11.0, "decay_rounds": 40}
    events = sent_events(run(burst, source__rounds=40_000, plan__noise=0.001, **ENDLESS)).mean(axis=1)
    phase = (np.arange(len(events)) + 8) % 200
    base = events[(phase > 155) & (phase < 198)].mean()
    early, later = (events[np.abs(phase - middle) < 4].mean() - base for middle in (20, 60))
    assert early / later == pytest.approx(np.e, rel=0.15)
    drift = {"kind": "drift", "period_rounds": 1000, "amplitude": 0.5}
    events = sent_events(run(drift, source__rounds=40_000, plan__noise=0.001, **ENDLESS)).mean(axis=1)
    phase = (np.arange(len(events)) + 8) % 1000
    high, low = (events[np.abs(phase - middle) < 50].mean() for middle in (250, 750))
    assert high / low == pytest.approx(3.0, rel=0.15)


@pytest.mark.statistics
@pytest.mark.parametrize("seed", range(8))
def test_the_truth_stays_right(seed: int) -> None:
    """With bursts and drift, and with rounds lost on the way, the source still knows which observables flipped."""
    burst = {"kind": "burst", "every_rounds": 40, "rounds": 20, "radius": 1.5, "factor": 10.0}
    drift = {"kind": "drift", "period_rounds": 60, "amplitude": 1.0}
    options = ENDLESS | {"plan__noise": 0.0005, "source__rounds": 200, "source__seed": seed}
    found = run(burst, drift, **options)
    piece = Piece.of(found.plans[0], 200)
    events = np.zeros(len(piece.rounds.detector_round), np.bool_)
    for message, header in zip(found.messages, found.headers, strict=True):
        packed = np.frombuffer(message[ROUNDS_HEADER_BYTES:], np.uint8)
        bits = np.unpackbits(packed, bitorder="little", count=int(header["bits_per_round"]))
        events[piece.rounds.detector_round == header["first_round"]] = bits
    dem = piece.circuit.detector_error_model(decompose_errors=True)
    matching = pymatching.Matching.from_detector_error_model(dem)
    assert events.any()
    assert int(matching.decode(events)[0]) == found.sender.endless_observables(0)
    lossy = run(burst, drift, {"kind": "drop", "probability": 0.3}, **options)
    assert lossy.sender.endless_observables(0) == found.sender.endless_observables(0)
