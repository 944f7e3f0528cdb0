"""A kernel of CUDA-Q is decoded as PyMatching decodes its error model. By hand: pytest -m cudaq."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pymatching
import pytest
import stim

from firmware_sim.cudaq_source import load_program
from rtqec.config import load_config
from rtqec.cudaq.decoder_writer import write_decoder_file
from rtqec.errors import ConfigError
from rtqec.plan import compile_plans
from rtqec.windowed import WindowedDecoder
from tests.integration.conftest import RunLoop
from tests.integration.test_cudaq import AT_LEISURE, Daemon

pytestmark = pytest.mark.cudaq
ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "examples" / "cudaq_memory.py"
pytest.importorskip("cudaq", reason="CUDA-Q is not installed (extra cudaq, 3 GB)")


def test_a_kernel_gives_model_measurements_and_rounds(tmp_path: Path) -> None:
    """Events folded by its matrix and decoded in windows: the corrections are PyMatching's on the same model."""
    experiment = load_program("program", PROGRAM)
    decoder = experiment.decoder
    assert decoder.block_widths == (*[4] * 21, 5)
    assert decoder.num_measurements == 89
    measurements, flips = experiment.sample(2000, seed=7)
    again, _ = experiment.sample(2000, seed=7)
    assert np.array_equal(measurements, again)
    events = np.stack([measurements[:, list(row)].sum(axis=1) % 2 for row in decoder.measurements_of], axis=1)
    expected = pymatching.Matching.from_detector_error_model(decoder.dem).decode_batch(events.astype(np.uint8))
    path = tmp_path / "memory.yml"
    write_decoder_file(path, [decoder])
    (plan,) = compile_plans(load_config(path))
    found = WindowedDecoder(plan)(plan.rounds.layers_b8(events.astype(np.bool_)))
    assert (found != expected).sum() <= 4
    # The truth of the samples is the model's: what decoding is good for.
    assert (expected != flips).mean() < 0.5 * flips.mean()


def test_the_model_is_that_of_the_same_circuit_in_stim() -> None:
    """Detection fractions of the samples are those of the model."""
    experiment = load_program("program", PROGRAM)
    decoder = experiment.decoder
    measurements, _ = experiment.sample(4000, seed=3)
    events = np.stack([measurements[:, list(row)].sum(axis=1) % 2 for row in decoder.measurements_of], axis=1)
    sampled, _, _ = stim.DetectorErrorModel(str(decoder.dem)).compile_sampler(seed=3).sample(4000)
    assert abs(events.mean() - sampled.mean()) < 0.003


def test_its_samples_feed_the_daemon(tmp_path: Path, runtime_dir: Path, run_loop: RunLoop) -> None:
    """`[source] kind = "cudaq"`: every correction is checked, none differs from whole-shot matching by accident."""
    write_decoder_file(tmp_path / "memory.yml", [load_program("program", PROGRAM).decoder])
    path = tmp_path / "lab.toml"
    path.write_text(f"""
        plan = {{ cudaq = "memory.yml", distance = 5 }}
        window = {{ commit_rounds = 5, buffer_rounds = 5 }}
        feed = {{ endpoint = "ipc://{runtime_dir}/rounds", round_period_us = 100.0 }}
        publish = {{ endpoint = "ipc://{runtime_dir}/corrections" }}
        source = {{ kind = "cudaq", program = "{PROGRAM}", shots = 300 }}
    """)
    report = run_loop(str(path))
    assert report["shots"] == 300
    assert report["disagreements"] <= 2
    assert report["logical_errors"] < 30  # Without correction a third would be wrong.


def test_a_program_gets_pymatchings_corrections(tmp_path: Path, runtime_dir: Path) -> None:
    """Sent over UDP, round by round, to a daemon of its decoder file: what PyMatching says of each whole shot."""
    experiment = load_program("program", PROGRAM)
    decoder = experiment.decoder
    write_decoder_file(tmp_path / "memory.yml", [decoder])
    measurements, _ = experiment.sample(500, seed=1)
    events = np.stack([measurements[:, list(row)].sum(axis=1) % 2 for row in decoder.measurements_of], axis=1)
    expected = pymatching.Matching.from_detector_error_model(decoder.dem).decode_batch(events.astype(np.uint8))
    daemon = Daemon(runtime_dir, tmp_path / "memory.yml", *AT_LEISURE)
    try:
        program = daemon.program(0)
        stops = np.cumsum(decoder.block_widths)[:-1]
        found = [program.decode(np.split(shot, stops), 1) for shot in measurements]
        daemon.end()
    finally:
        daemon.close()
    assert np.array_equal(found, expected)


def test_the_example_runs() -> None:
    """From an empty file to corrections, on a machine without a GPU."""
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "500 shots" in done.stdout


def test_a_program_without_an_experiment_is_refused(tmp_path: Path) -> None:
    """The message says what it must define."""
    path = tmp_path / "empty.py"
    path.write_text("")
    with pytest.raises(ConfigError, match="defines no EXPERIMENT"):
        load_program("[source] program", path)
