"""Decoder files as CUDA-Q has them, made here from Stim circuits by code that rtqec does not share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stim
import yaml
from numpy.typing import NDArray

SMOKE: dict[str, Any] = {
    "id": 0, "type": "pymatching", "block_size": 3, "syndrome_size": 3,
    "H_sparse": [0, -1, 1, -1, 2, -1], "O_sparse": [0, -1, 1, -1, 2, -1], "D_sparse": [0, -1, 1, -1, 2, -1],
    "decoder_custom_args": {"merge_strategy": "smallest_weight", "error_rate_vec": [0.1, 0.1, 0.1]},
}  # fmt: skip
"""Three bits, each of which is its own detector, error and observable: the smoke test of NVIDIA's decoding server."""


def recorded_folder() -> Path:
    """The folder of NVIDIA's own files, or a skip that says so."""
    folder = Path(os.environ.get("RTQEC_DATA", Path(__file__).parents[2] / "shared" / "data")) / "cudaq_realtime"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set RTQEC_DATA to the folder that holds cudaq_realtime")
    return folder


def memory(distance: int = 3, rounds: int = 4, noise: float = 0.01) -> stim.Circuit:
    """A memory experiment; its data readout is one more round."""
    return stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=distance, rounds=rounds, after_clifford_depolarization=noise,
        before_measure_flip_probability=noise, after_reset_flip_probability=noise,
    )  # fmt: skip


def measurements_of(circuit: stim.Circuit) -> list[list[int]]:
    """The measurements of each detector, as the circuit writes them."""
    sets, count = [], 0
    for step in circuit.flattened():
        if step.name == "DETECTOR":
            sets.append(sorted(count + target.value for target in step.targets_copy()))
        elif step.name in ("M", "MR", "MX"):
            count += len(step.targets_copy())
    return sets


def flat(rows: list[list[int]]) -> list[int]:
    return [value for row in rows for value in (*row, -1)]


def table_of(circuit: stim.Circuit, decoder_id: int = 0) -> dict[str, Any]:
    """The circuit as matrices: a column for each part of each error, parallel ones side by side."""
    dem = circuit.detector_error_model(decompose_errors=True).flattened()
    checks: list[list[int]] = [[] for _ in range(dem.num_detectors)]
    observables: list[list[int]] = [[] for _ in range(dem.num_observables)]
    rates: list[float] = []
    for instruction in dem:
        if instruction.type == "error":
            for group in instruction.target_groups():
                for target in group:
                    rows = checks if target.is_relative_detector_id() else observables
                    rows[target.val].append(len(rates))
                rates.append(instruction.args_copy()[0])
    return {
        "id": decoder_id, "type": "pymatching", "block_size": len(rates), "syndrome_size": dem.num_detectors,
        "H_sparse": flat(checks), "O_sparse": flat(observables), "D_sparse": flat(measurements_of(circuit)),
        "decoder_custom_args": {"error_rate_vec": rates, "merge_strategy": "independent"},
    }  # fmt: skip


def write_file(folder: Path, *tables: dict[str, Any], name: str = "decoders.yml", **top: Any) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump({"decoders": list(tables)} | top))
    return path


def shots(circuit: stim.Circuit, count: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Measurements, and detection events by Stim's own converter."""
    measurements = circuit.compile_sampler(seed=seed).sample(count)
    events = circuit.compile_m2d_converter().convert(measurements=measurements, append_observables=False)
    return np.asarray(measurements, np.bool_), np.asarray(events, np.bool_)
