"""Recorded measurements through the real feed, without a path behind it: what lies in the ring afterwards."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from firmware_sim.sender import Sender
from rtqec.config import load_config
from rtqec.feed import Feed, Intake
from rtqec.kernels.records import FeedCounter
from rtqec.plan import compile_plans
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock
from tests.integration.conftest import CONFIGS

pytestmark = pytest.mark.recorded
SHOTS = 50_000


@pytest.mark.parametrize("experiment", ["surface_code_bX_d3_r05_center_3_5", "surface_code_bX_d5_r05_center_5_5"])
def test_folded_detection_events_equal_the_recorded_ones(recorded_data: Path, tmp_path: Path, experiment: str) -> None:
    """All 50,000 shots, one raw round per message, sweep bits with the first: bit for bit `detection_events.b8`."""
    folder = recorded_data / "google_qec3v5" / experiment
    sets = [f"plan.circuit={folder}/circuit_noisy.stim", f"plan.dem={folder}/circuit_detector_error_model.dem"]
    sets += [f"source.folder={folder}", "pace.period_us=2", "pace.burst_us=50", "feed.ring_rounds=500000"]
    config = load_config(CONFIGS / "sycamore_d5_r05.toml", sets)
    plans = compile_plans(config)
    ring = Ring(plans, config.feed.ring_rounds)
    telemetry = TelemetryBlock.create(tmp_path / "feed.telemetry", [0], 16)
    context = zmq.Context()
    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    for socket in (push, pull):
        socket.set_hwm(0)
    push.bind("inproc://rounds")
    pull.connect("inproc://rounds")
    feed = Feed(Intake(plans, [0], ring, telemetry, config.feed), ring, pull, np.zeros(2, np.int64))
    sender = Sender(config, plans)
    rounds = SHOTS * plans[0].rounds.num_rounds
    feed.start()
    sender.start(push, time.monotonic_ns())
    give_up = time.monotonic() + 60
    while telemetry.feed_counters[0, FeedCounter.ROUNDS] < rounds and time.monotonic() < give_up:
        time.sleep(0.01)
    sender.stop()
    ring.stop()
    feed.join()
    for socket in (push, pull):
        socket.close(linger=0)
    context.term()
    plan = plans[0]
    folded = ring.events_b8[: rounds * plan.layout.layer_bytes].reshape(SHOTS, -1)
    recorded = np.unpackbits(
        np.fromfile(folder / "detection_events.b8", np.uint8).reshape(SHOTS, -1),
        axis=1, bitorder="little", count=plan.experiment.own_dem.num_detectors,
    )  # fmt: skip
    assert telemetry.feed_counters[0, FeedCounter.ROUNDS] == rounds
    assert np.array_equal(folded, plan.rounds.layers_b8(recorded.astype(np.bool_)))
