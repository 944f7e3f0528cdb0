"""Experiments to train on and to judge by: a circuit or an error model on the grid, with all that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import stim

from rtqec.config import PlanTable
from rtqec.neural.effects import Effects, Mechanism, logical_cells, mechanisms
from rtqec.neural.layout import Frame, GridLayout, grid_layout
from rtqec.neural.sampling import LabelledShots
from rtqec.plan.rounds import RoundMap, round_map


@dataclass(frozen=True)
class GridExperiment:
    """One memory experiment on the grid.

    Attributes:
        circuit: The circuit, or None where only an error model is known.
        dem: Its error model, errors not decomposed.
        rounds: Its rounds.
        layout: Its grid.
    """

    circuit: stim.Circuit | None
    dem: stim.DetectorErrorModel
    rounds: RoundMap
    layout: GridLayout

    @classmethod
    def of_circuit(cls, circuit: stim.Circuit, frame: Frame = "own", time_coordinate: int = -1) -> GridExperiment:
        """Put a circuit on the grid.

        Raises:
            PlanError: It does not fit; see `grid_layout`.
        """
        dem = circuit.detector_error_model(approximate_disjoint_errors=True, flatten_loops=True)
        return cls._of(circuit, dem, frame, time_coordinate)

    @classmethod
    def of_dem(cls, dem: stim.DetectorErrorModel, frame: Frame = "own", time_coordinate: int = -1) -> GridExperiment:
        """Put an error model on the grid, as a device's calibration gives it.

        Raises:
            PlanError: It does not fit; see `grid_layout`.
        """
        return cls._of(None, dem.flattened(), frame, time_coordinate)

    @classmethod
    def generated(cls, task: str, distance: int, rounds: int, noise: float, frame: Frame = "own") -> GridExperiment:
        """A circuit of Stim's generator with all four kinds of its noise alike."""
        circuit = stim.Circuit.generated(
            task,
            distance=distance,
            rounds=rounds,
            after_clifford_depolarization=noise,
            after_reset_flip_probability=noise,
            before_measure_flip_probability=noise,
            before_round_data_depolarization=noise,
        )
        return cls.of_circuit(circuit, frame)

    @classmethod
    def _of(
        cls, circuit: stim.Circuit | None, dem: stim.DetectorErrorModel, frame: Frame, time_coordinate: int
    ) -> GridExperiment:
        table = PlanTable(dem="given", time_coordinate=time_coordinate)
        rounds = round_map(table, None, dem)
        return cls(circuit, dem, rounds, grid_layout(dem, rounds, time_coordinate, frame))

    @cached_property
    def mechanisms(self) -> list[Mechanism]:
        """Its errors."""
        return mechanisms(self.dem, self.rounds, self.layout)

    @cached_property
    def effects(self) -> Effects:
        """What answers do in it."""
        num_layers = self.rounds.num_rounds
        return Effects(self.layout, num_layers, logical_cells(self.mechanisms, self.layout, num_layers))

    def labelled_shots(self, both_channels: bool = False, edges: bool = False) -> LabelledShots:
        """A sampler of shots with labels of the own channel, or of both; with those of edges, or without.

        Raises:
            PlanError: With edges: an error is none.
        """
        channels = (0, 1) if both_channels else (self.layout.own,)
        return LabelledShots(self.mechanisms, self.effects, channels, edges)
