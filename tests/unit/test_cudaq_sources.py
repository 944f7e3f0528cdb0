"""The simulator's sources of CUDA-Q: error models, syndrome files, replays over UDP, kernels."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pymatching
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from firmware_sim.cli import app
from firmware_sim.cudaq_source import load_program
from firmware_sim.sources import finite_shots
from firmware_sim.unfold import measurements_of_events
from rtqec.config import Config, load_config
from rtqec.cudaq.syndromes import Syndromes, write_syndromes
from rtqec.errors import ConfigError
from rtqec.plan import Plan, compile_plans
from tests.decoder_files import memory, shots, table_of, write_file
from tests.decoding_server import DecodingServer
from tests.harness import ENDPOINT, make_plan

CIRCUIT = memory(3, 6)


@pytest.fixture
def decoder_file(tmp_path: Path) -> Path:
    return write_file(tmp_path, table_of(CIRCUIT))


@pytest.fixture
def deployment(decoder_file: Path) -> Path:
    """A configuration with that decoder, whose rounds come over ZeroMQ."""
    path = decoder_file.with_name("lab.toml")
    path.write_text(f"""
        plan = {{ cudaq = "{decoder_file.name}", distance = 3 }}
        window = {{ commit_rounds = 3, buffer_rounds = 3 }}
        feed = {{ endpoint = "{ENDPOINT}", round_period_us = 100.0 }}
        publish = {{ endpoint = "{ENDPOINT}" }}
    """)
    return path


def plan_of(path: Path, *sets: str) -> tuple[Config, Plan]:
    config = load_config(path, sets)
    return config, compile_plans(config)[0]


def predictions(measurements: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What PyMatching makes of whole shots."""
    events = CIRCUIT.compile_m2d_converter().convert(measurements=measurements, append_observables=False)
    whole = pymatching.Matching.from_detector_error_model(CIRCUIT.detector_error_model(decompose_errors=True))
    return np.asarray(whole.decode_batch(events), np.bool_)


def test_measurements_show_the_errors_of_a_model(deployment: Path) -> None:
    """Where there is no circuit, random outcomes are made that fold to the sampled events, bit by bit."""
    config, plan = plan_of(deployment, "source.shots=200")
    found = finite_shots(config, plan, seed=3)
    events, flips, _ = plan.experiment.own_dem.compile_sampler(seed=3).sample(200)
    measurements = measurements_of_events(plan, events, seed=3)
    folded = CIRCUIT.compile_m2d_converter().convert(measurements=measurements, append_observables=False)
    assert np.array_equal(folded, events)
    assert found.observable_flips is not None
    assert np.array_equal(found.observable_flips, flips[:, 0])
    assert np.array_equal(found.detection_events_b8, np.packbits(events, axis=1, bitorder="little"))
    # Outcomes that no detector ties down are random: in the first round four of eight.
    assert (abs(measurements[:, :8].mean(axis=0) - 0.5) < 0.15).sum() == 4


def test_events_that_no_measurements_show_are_refused(tmp_path: Path) -> None:
    """Detectors of one round that depend on each other have no inverse."""
    text = """
        MR 0
        DETECTOR(0) rec[-1]
        DETECTOR(0) rec[-1]
        X_ERROR(0.1) 0
        M 0
        DETECTOR(1) rec[-1] rec[-2]
        OBSERVABLE_INCLUDE(0) rec[-1]
    """
    path = tmp_path / "twice.stim"
    path.write_text(text)
    plan = make_plan(plan__circuit=str(path), plan__generated=None, plan__noise=None, plan__rounds=None,
                     plan__measurements_per_round=1)  # fmt: skip
    with pytest.raises(ConfigError, match="depend on each other"):
        measurements_of_events(plan, np.zeros((1, 3), np.bool_), seed=1)


def test_a_syndrome_file_is_a_source(deployment: Path) -> None:
    """Its shots become rounds, its corrections the truth; at most as many as are asked for."""
    measurements, events = shots(CIRCUIT, 50, seed=4)
    answers = predictions(measurements)
    path = deployment.parent / "syndromes.txt"
    write_syndromes(path, Syndromes(measurements, (8,) * 6 + (9,), answers, 9, 1))
    sets = ["source.kind=syndromes", "source.syndromes=syndromes.txt", "source.shots=40"]
    config, plan = plan_of(deployment, *sets)
    found = finite_shots(config, plan, seed=1)
    assert found.num_shots == 40
    assert found.observable_flips is not None
    assert np.array_equal(found.observable_flips, answers[:40, 0])
    assert np.array_equal(found.detection_events_b8, np.packbits(events[:40], axis=1, bitorder="little"))


def test_a_source_of_another_experiment_is_refused(deployment: Path) -> None:
    """Measurements, corrections, payload: each by name; so is a table without its file."""
    path = deployment.parent / "syndromes.txt"
    sets = ["source.kind=syndromes", "source.syndromes=syndromes.txt"]
    config, plan = plan_of(deployment, *sets)
    write_syndromes(path, Syndromes(np.zeros((2, 9), np.bool_), (9,), None, 9, 1))
    with pytest.raises(ConfigError, match="shots of 9 measurements"):
        finite_shots(config, plan, seed=1)
    write_syndromes(path, Syndromes(np.zeros((2, 57), np.bool_), (57,), np.zeros((2, 3), np.bool_), 9, 3))
    with pytest.raises(ConfigError, match="corrections of 3 bits"):
        finite_shots(config, plan, seed=1)
    write_syndromes(path, Syndromes(np.zeros((2, 57), np.bool_), (57,), None, 9, 1))
    events, _ = plan_of(deployment, *sets, "feed.payload=detection_events")
    with pytest.raises(ConfigError, match="gives raw measurements"):
        finite_shots(events, plan, seed=1)
    for kind in ("syndromes", "cudaq"):
        with pytest.raises(ConfigError, match=f'kind = "{kind}" needs'):
            load_config(deployment, [f"source.kind={kind}"])


@pytest.fixture
def server() -> Iterator[DecodingServer]:
    server = DecodingServer(57, lambda bits: predictions(bits[np.newaxis])[0])
    yield server
    server.close()


@pytest.mark.parametrize("verb", ["loop", "run", "chaos"])
def test_a_daemon_that_listens_to_cudaq_is_fed_over_udp(decoder_file: Path, verb: str) -> None:
    """Rounds have nowhere to go: the message says who sends over that wire, and how a decoder file gets them."""
    result = CliRunner().invoke(app, [verb, str(decoder_file)])
    assert isinstance(result.exception, ConfigError)
    assert "firmware-sim replay-cudaq" in str(result.exception)
    assert "[plan] cudaq" in str(result.exception)


def test_shots_are_replayed_over_udp(tmp_path: Path, server: DecodingServer) -> None:
    """`firmware-sim replay-cudaq` says how many corrections are as recorded; exit 1 where one is not."""
    measurements, _ = shots(CIRCUIT, 30, seed=5)
    answers = predictions(measurements)
    path = tmp_path / "syndromes.txt"
    command = ["replay-cudaq", str(path), "--port", str(server.address[1])]
    for recorded, status, said in (
        (answers, 0, "30 of 30 corrections as recorded\n"),
        (
            answers ^ (np.arange(30) == 7)[:, np.newaxis],
            1,
            "29 of 30 corrections as recorded; the first that differs is",
        ),
        (None, 0, "30 shots answered; the file has no corrections"),
    ):
        write_syndromes(path, Syndromes(measurements, (8,) * 6 + (9,), recorded, 9, 1))
        result = CliRunner().invoke(app, command)
        assert (result.exit_code, said in result.output) == (status, True), result.output


def test_a_kernel_without_cudaq_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "cudaq", None)
    with pytest.raises(ConfigError, match=r"rtqec\[cudaq\]"):
        load_program("[source] program", tmp_path / "kernel.py")
