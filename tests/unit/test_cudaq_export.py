"""A plan that is written as a decoder file of CUDA-Q, or as a bundle, comes back as the same decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pymatching
import pytest
from typer.testing import CliRunner

from rtqec.cli import app
from rtqec.config import load_config
from rtqec.cudaq.bundle import read_bundle, write_bundle
from rtqec.cudaq.decoder import CudaqDecoder
from rtqec.cudaq.decoder_file import load_decoder_file
from rtqec.cudaq.decoder_model import decoder_of_bundle, make_decoder
from rtqec.cudaq.decoder_writer import bundle_of_decoder, decoder_table, write_decoder_file
from rtqec.cudaq.plan_decoder import decoder_of_plan
from rtqec.errors import PlanError
from rtqec.plan import Plan, compile_plan, compile_plans
from tests.decoder_files import measurements_of, recorded_folder, shots
from tests.harness import closed_plan, make_config, write_circuit


def edges(decoder: CudaqDecoder) -> dict[tuple[int, int], tuple[set[int], float]]:
    """The matching graph, as PyMatching reads it."""
    graph = pymatching.Matching.from_detector_error_model(decoder.dem)
    return {(u, -1 if v is None else v): (how["fault_ids"], how["weight"]) for u, v, how in graph.edges()}


def check_equal(one: CudaqDecoder, other: CudaqDecoder) -> None:
    assert one.measurements_of == other.measurements_of
    assert (one.rounds, one.block_widths) == (other.rounds, other.block_widths)
    first, second = edges(one), edges(other)
    assert first.keys() == second.keys()
    for edge, (flips, weight) in first.items():
        assert second[edge][0] == flips
        assert second[edge][1] == pytest.approx(weight, abs=1e-9)


@pytest.mark.parametrize("with_models", [False, True], ids=["matrices", "models"])
def test_what_is_written_is_read_as_the_same(tmp_path: Path, plan_d3: Plan, with_models: bool) -> None:
    """Matching graph, D and rounds; with a file for the model the plan itself, to its digest."""
    decoder = decoder_of_plan(plan_d3)
    path = tmp_path / "memory.yml"
    written = write_decoder_file(path, [decoder], with_models)
    assert written == [path, *([tmp_path / "memory.0.dem"] if with_models else [])]
    check_equal(make_decoder(load_decoder_file(path).entry(0)), decoder)
    (plan,) = compile_plans(load_config(path))
    assert plan.layout == plan_d3.layout
    assert (plan.digest == plan_d3.digest) == with_models


def test_d_is_what_the_circuit_says(plan_d3: Plan) -> None:
    """The fold programs of a plan are the circuit's own detectors."""
    circuit = plan_d3.experiment.circuit
    assert circuit is not None
    decoder = decoder_of_plan(plan_d3)
    assert [list(row) for row in decoder.measurements_of] == measurements_of(circuit)
    measurements, events = shots(circuit, 20, seed=2)
    folded = decoder.folding_circuit.compile_m2d_converter().convert(
        measurements=measurements, append_observables=False
    )
    assert np.array_equal(folded, events)


def test_the_command_writes_every_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`rtqec export-cudaq`: one decoder for each patch, numbered in their order; `rtqec check` takes the file."""
    config, out = tmp_path / "two.toml", tmp_path / "two.yml"
    config.write_text("""
        plan = { generated = "surface_code:rotated_memory_z", distance = 3, rounds = 4, noise = 0.01 }
        window = { commit_rounds = 3, buffer_rounds = 3 }
        feed = { endpoint = "inproc://feed", round_period_us = 100.0 }
        publish = { endpoint = "inproc://publish" }
        patch = [{ id = 7 }, { id = 2, plan = { rounds = 6 } }]
    """)
    run = CliRunner()
    result = run.invoke(app, ["export-cudaq", str(config), str(out)])
    assert (result.exit_code, result.output) == (0, f"wrote {out}\n")
    found = [make_decoder(entry) for entry in load_decoder_file(out).decoders]
    assert [decoder.block_widths for decoder in found] == [(8,) * 4 + (9,), (8,) * 6 + (9,)]
    monkeypatch.setattr("rtqec.check._MEASURE_NS", 1_000_000)
    result = run.invoke(app, ["check", str(out), "--set", "feed.round_period_us=1000000"])
    assert result.exit_code == 0, result.output
    assert "keeps up: 2 patch(es)" in result.output


def test_what_such_a_file_cannot_say_is_refused(tmp_path: Path, plan_endless: Plan) -> None:
    """No number of rounds, no circuit, constants, sweep bits, detectors of nothing: each by name."""
    with pytest.raises(PlanError, match="endless"):
        decoder_of_plan(plan_endless)
    with pytest.raises(PlanError, match="without a circuit"):
        decoder_of_plan(closed_plan(tmp_path))
    text = "X_ERROR(0.1) 0 1\nMR 0 1\nDETECTOR(0) rec[-2]\nDETECTOR(1) rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]\n"
    for first in ("X 1\n", "CX sweep[0] 1\n"):
        path = write_circuit(tmp_path, first + text)
        table = {"circuit": path, "distance": 1, "measurements_per_round": [1, 1]}
        plan = make_plan_of(table)
        with pytest.raises(PlanError, match="linear"):
            decoder_of_plan(plan)
    with pytest.raises(PlanError, match="which no measurement makes"):
        decoder_table(CudaqDecoder(plan.experiment.dem, ((0,), ()), 1), 0)


def make_plan_of(table: dict[str, object]) -> Plan:

    config = make_config(plan=table)
    return compile_plan(config, config.patch[0])


def test_a_bundle_is_read_as_the_same(tmp_path: Path, plan_d3: Plan) -> None:
    """H, O, priors and D in NVIDIA's binary form describe the decoder that was written."""
    decoder = decoder_of_plan(plan_d3)
    write_bundle(tmp_path, bundle_of_decoder(decoder))
    check_equal(decoder_of_bundle(read_bundle(tmp_path)), decoder)
    (tmp_path / "D_sparse.txt").unlink()
    with pytest.raises(PlanError, match="no D_sparse"):
        decoder_of_bundle(read_bundle(tmp_path))


@pytest.mark.recorded
def test_the_recorded_file_is_written_as_it_was_read(tmp_path: Path) -> None:
    """NVIDIA's fixture keeps its edges, weights and D."""
    decoder = make_decoder(load_decoder_file(recorded_folder() / "config_pymatching.yml").entry(0))
    write_decoder_file(tmp_path / "again.yml", [decoder])
    check_equal(make_decoder(load_decoder_file(tmp_path / "again.yml").entry(0)), decoder)
