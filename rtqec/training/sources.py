"""The experiments that a configuration names, on the grid, with what a model card says of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import stim

from rtqec.errors import PlanError
from rtqec.neural.card import SourceRecord, file_digest
from rtqec.neural.effects import Spot
from rtqec.neural.experiment import GridExperiment
from rtqec.training.config import SourceTable, TrainConfig

Read = TypeVar("Read", stim.Circuit, stim.DetectorErrorModel)


def open_source(config: TrainConfig, table: SourceTable, where: str) -> tuple[GridExperiment, SourceRecord]:
    """Put one experiment on the grid.

    Args:
        config: The whole configuration: files are relative to its folder.
        table: A `[[volume]]` or a `[[point]]`.
        where: How to call it in messages.

    Raises:
        ConfigError: A file is missing; as `PlanError`: it cannot be read, or is no memory of a rotated surface code.
    """
    if table.generated is not None:
        assert table.distance is not None
        assert table.rounds is not None
        assert table.noise is not None
        try:
            experiment = GridExperiment.generated(table.generated, table.distance, table.rounds, table.noise)
        except ValueError as error:
            raise PlanError(
                f"{where} generated", f"is {table.generated!r} with distance {table.distance} and rounds "
                f"{table.rounds}, but Stim says: {str(error).splitlines()[0]}",
                "The circuit cannot be generated.", 'Use "surface_code:rotated_memory_z" or "..._x".',
            ) from error  # fmt: skip
        source = table.generated
    elif table.circuit is not None:
        path = config.path(f"{where} circuit", table.circuit)
        circuit = _read(f"{where} circuit", path, stim.Circuit.from_file)
        experiment = GridExperiment.of_circuit(circuit, time_coordinate=table.time_coordinate)
        source = f"circuit sha256:{file_digest(path)}"
    else:
        assert table.dem is not None
        path = config.path(f"{where} dem", table.dem)
        dem = _read(f"{where} dem", path, stim.DetectorErrorModel.from_file)
        experiment = GridExperiment.of_dem(dem, time_coordinate=table.time_coordinate)
        source = f"dem sha256:{file_digest(path)}"
    record = SourceRecord(
        source=source,
        distance=experiment.layout.code.distance,
        rounds=experiment.rounds.num_rounds - 1,
        noise=table.noise,
        event_density=event_density(experiment),
    )
    return experiment, record


def event_density(experiment: GridExperiment) -> float:
    """Share of detectors that fire, from the error model: of an odd number of independent errors each."""
    even: dict[Spot, float] = defaultdict(lambda: 1.0)
    for mechanism in experiment.mechanisms:
        for spot in mechanism.spots:
            even[spot] *= 1 - 2 * mechanism.probability
    fires = (1 - np.array(list(even.values()))) / 2
    return float(fires.sum() / len(experiment.rounds.detector_round))


def _read(key: str, path: Path, read: Callable[[Path], Read]) -> Read:
    try:
        return read(path)
    except ValueError as error:
        raise PlanError(
            key, f"names {path}, which Stim cannot read: {str(error).splitlines()[0]}",
            "Shots and labels are made from it.", "Correct the file, or name another.",
        ) from error  # fmt: skip
