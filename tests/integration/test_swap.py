"""A new plan takes over under load: no round is missed, and each correction is what its own plan says."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import stim

from firmware_sim.controller import Controller
from rtqec.config import load_config
from rtqec.plan import Plan, compile_plans
from rtqec.plan.schedule import windows_of_shot
from rtqec.service.ask import ask
from rtqec.windowed import WindowedDecoder
from rtqec.wire import FrameStatus, Rung
from tests.integration.conftest import CONFIGS, SMALL, SMALL_WINDOWS, Start, service_file

STEADY = (
    "ladder.fallbacks=[]", "feed.ring_rounds=1048576", "sink.settle_s=60", "control.endpoint=ipc://${XDG_RUNTIME_DIR}/c",
)  # fmt: skip
"""However busy the machine that runs the tests: nothing steps down, catches up or is held."""
NUM_SHOTS = 4000
PERIOD_US = 200
"""10 s in all, of which preparing the new plan takes one or two, or nearly all where the machine is busy."""


def write_circuit(path: Path, data: float, measurement: float) -> None:
    """A memory whose data and measurement errors have probabilities of their own."""
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=3, rounds=12, before_round_data_depolarization=data,
        before_measure_flip_probability=measurement,
    )  # fmt: skip
    path.write_text(str(circuit))


def answers(plans: list[Plan], decoders: list[WindowedDecoder], layers_b8: Any, chosen: list[int]) -> list[int]:
    """Flips of each window of a shot, each decoded by the plan that is chosen for it."""
    plan = plans[0]
    residual = layers_b8.copy()
    flips = []
    for k, window in enumerate(windows_of_shot(plan.rounds.num_rounds, plan.window)):
        decoder = decoders[chosen[k]]
        flips.append(decoder.decode(residual, window, decoder.decoder(window, Rung.MATCH)))
    return flips


def test_a_swap_under_load_and_back(start_daemon: Start, runtime_dir: Path, tmp_path: Path) -> None:
    """Every round is answered in order and clean, before and after the swap by the plan that was asked for."""
    files = [tmp_path / "before.stim", tmp_path / "after.stim"]
    write_circuit(files[0], 0.01, 0.01)
    write_circuit(files[1], 0.002, 0.04)
    config_file = tmp_path / "swap.toml"
    sets = [
        *STEADY, *SMALL_WINDOWS, f"plan.circuit={files[0]}", f"source.shots={NUM_SHOTS}", f"pace.period_us={PERIOD_US}",
        "sink.compare=false",
    ]  # fmt: skip
    text = "\n".join(
        line for line in (CONFIGS / "d5_memory_z.toml").read_text().splitlines()
        if line.split("=")[0].strip() not in ("generated", "distance", "rounds", "noise")
    )  # fmt: skip
    config_file.write_text(text.replace("[plan]", "[plan]\ndistance = 3"))
    start_daemon(str(config_file), *sets)
    configs = [load_config(config_file, [*sets, f"plan.circuit={file}"]) for file in files]
    plans = [compile_plans(config)[0] for config in configs]
    assert plans[0].rounds_digest == plans[1].rounds_digest
    controller = Controller(configs[0], plans[:1], keep=True)
    said: list[dict[str, Any]] = []

    def swap_to(target: int) -> None:
        request = {"verb": "swap-plan", "sets": [f"plan.circuit={files[target]}"]}
        said.append(ask(configs[0], request, timeout_s=120))

    asker = threading.Thread(target=swap_to, args=(1,))

    def look() -> None:
        if asker.ident is None and controller.sink.received > 0:
            asker.start()

    controller.run(look)
    asker.join()
    swap_to(0)
    assert all(answer["ok"] for answer in said), said
    first, second = (answer["patches"][0]["window_index"] for answer in said)
    corrections = controller.accounts[0].corrections
    assert corrections["window_index"].tolist() == list(range(len(corrections)))
    assert len(corrections) == NUM_SHOTS * len(list(windows_of_shot(plans[0].rounds.num_rounds, plans[0].window)))
    assert 0 < first < second == len(corrections)
    by = np.where((corrections["window_index"] >= first) & (corrections["window_index"] < second), 1, 0)
    assert corrections["plan_tag"].tolist() == [plans[k].tag for k in by]
    assert set(corrections["frame_status"].tolist()) == {FrameStatus.CLEAN}
    place = said[0]["patches"][0]
    assert (place["shot"], place["round"]) in {
        (int(corrections["shot_id"][first]), int(corrections["first_round"][first])),
        (int(corrections["shot_id"][first - 1]), 0),  # Between two shots.
    }
    shots = controller.sender.shots[0]
    assert shots is not None
    num_detectors = plans[0].experiment.dem.num_detectors
    events = np.unpackbits(shots.detection_events_b8, axis=1, bitorder="little", count=num_detectors)
    layers_b8 = plans[0].rounds.layers_b8(events.astype(np.bool_))
    decoders = [WindowedDecoder(plan) for plan in plans]
    per_shot = len(corrections) // NUM_SHOTS
    chosen = by.reshape(NUM_SHOTS, per_shot).tolist()
    expected = [answers(plans, decoders, layers_b8[shot], chosen[shot]) for shot in range(NUM_SHOTS)]
    assert corrections["flips"].reshape(NUM_SHOTS, per_shot).tolist() == expected
    # The other plan would have answered at least one shot differently.
    others = (answers(plans, decoders, layers_b8[shot], [1 - k for k in chosen[shot]]) for shot in range(NUM_SHOTS))
    assert any(other != answer for other, answer in zip(others, expected, strict=True))
    assert [lane["restarts"] for lane in service_file(runtime_dir)["lanes"]] == [0]


def test_a_plan_of_other_rounds_is_refused(start_daemon: Start, runtime_dir: Path) -> None:
    """The lane goes on as it was, and says what differs."""
    start_daemon("d5_memory_z.toml", *STEADY, *SMALL)
    config = load_config(CONFIGS / "d5_memory_z.toml", [*STEADY, *SMALL])
    before = service_file(runtime_dir)["lanes"]
    for sets, said in (
        (["plan.rounds=15"], "reads or cuts its rounds in another way"),
        (["plan.noise=0.7"], "[plan] noise"),
        (["feed.round_period_us=1"], "feed.round_period_us"),
        ([], "no plan differs"),
    ):
        answer = ask(config, {"verb": "swap-plan", "sets": sets}, timeout_s=120)
        assert not answer["ok"]
        assert said in answer["error"]
    assert service_file(runtime_dir)["lanes"] == before
