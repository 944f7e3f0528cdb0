"""The experiment behind a patch: its circuit, its error model, and the same experiment with other numbers of rounds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import stim

from rtqec.config import ENDLESS, Config, PlanTable
from rtqec.cudaq.decoder_file import load_decoder_file
from rtqec.cudaq.decoder_model import make_decoder
from rtqec.errors import PlanError
from rtqec.plan.frames import with_other_frame
from rtqec.plan.rounds import round_map

BASIS_SIBLINGS = {"memory_z": "memory_x", "memory_x": "memory_z"}


@dataclass(frozen=True)
class Experiment:
    """One memory experiment of a known number of rounds.

    Attributes:
        circuit: The circuit, or None where only a DEM is known.
        own_dem: Its detector error model, errors decomposed at `^`, loops flattened.
        dem: `own_dem`, with the other frame's observables where the configuration asks for both.
    """

    circuit: stim.Circuit | None
    own_dem: stim.DetectorErrorModel
    dem: stim.DetectorErrorModel


class ExperimentSource:
    """Makes the experiment of a `[plan]` table, as written or with another number of rounds.

    Attributes:
        table: The table; of a decoder file of CUDA-Q, with what that says of rounds.
    """

    def __init__(self, config: Config, table: PlanTable) -> None:
        self.table = table
        self.endless = table.rounds == ENDLESS
        self._dem = _read_dem(config, table.dem) if table.dem else None
        self._circuit = _read_circuit(config, "[plan] circuit", table.circuit) if table.circuit else None
        if table.cudaq:
            self._read_decoder(config, table, table.cudaq)
        self._other = None
        if table.frames == "both" and table.circuit:
            self._other = _other_basis_file(config, table)
        if self._dem is not None and table.frames == "both":
            raise PlanError(
                "[plan] frames", 'is "both", but [plan] dem is given.',
                "The other observable's edges are computed from the circuit; a given DEM does not have them.",
                "Remove dem, so that the circuit's own noise is used.",
            )  # fmt: skip

    def _read_decoder(self, config: Config, table: PlanTable, written: str) -> None:
        """Take model, folding and rounds from a decoder file of CUDA-Q."""
        entry = load_decoder_file(config.path("[plan] cudaq", written)).entry(table.cudaq_decoder)
        asked = table.measurements_per_round
        decoder = make_decoder(entry, table.time_coordinate, None if asked == "auto" else asked).in_rounds
        assert decoder.block_widths is not None
        self._dem, self._circuit = decoder.dem, decoder.folding_circuit
        only_time = all(len(place) == 1 for place in decoder.dem.get_detector_coordinates().values())
        self.table = table.model_copy(
            update={
                "measurements_per_round": list(decoder.block_widths),
                "time_coordinate": 0 if only_time else table.time_coordinate,
            }
        )

    @property
    def stretchable(self) -> bool:
        """Whether the same experiment can be made with another number of rounds."""
        if self.table.generated:
            return True
        return self._dem is None and self._circuit is not None and _repeat_index(self._circuit) is not None

    def as_written(self) -> Experiment:
        """The experiment of the configuration; for an endless one, of the file."""
        if self.table.generated:
            assert isinstance(self.table.rounds, int)
            return self.of_rounds(self.table.rounds + 1)
        return self._assemble(self._circuit, self._other, self._dem)

    def of_rounds(self, num_rounds: int) -> Experiment:
        """The experiment with exactly `num_rounds` rounds, the data readout included."""
        if self.table.generated:
            circuit = _generate(self.table, self.table.generated, num_rounds)
            sibling = None
            if self.table.frames == "both":
                sibling = _generate(self.table, _sibling(self.table.generated), num_rounds)
            return self._assemble(circuit, sibling, None)
        assert self._circuit is not None
        more = num_rounds - self._rounds_written
        other = _stretched(self._other, more) if self._other is not None else None
        return self._assemble(_stretched(self._circuit, more), other, None)

    @cached_property
    def _rounds_written(self) -> int:
        """Rounds of the circuit as the file has it."""
        written = self.as_written()
        return round_map(self.table, written.circuit, written.dem).num_rounds

    def _assemble(
        self, circuit: stim.Circuit | None, other: stim.Circuit | None, dem: stim.DetectorErrorModel | None
    ) -> Experiment:
        if dem is None:
            assert circuit is not None
            dem = _error_model(circuit)
        own = dem.flattened()
        if other is None:
            return Experiment(circuit, own, own)
        return Experiment(circuit, own, with_other_frame(own, _error_model(other).flattened()))


def _error_model(circuit: stim.Circuit) -> stim.DetectorErrorModel:
    try:
        # Loops flattened: folded ones leave equal errors unmerged in every second round, and the bulk would not repeat.
        return circuit.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True, flatten_loops=True)
    except ValueError as error:
        raise PlanError(
            "[plan] circuit", f"has no graphlike error model: {str(error).splitlines()[0]}",
            "Matching pairs detection events, so that each error must split into parts that flip at most two.",
            "Use a matchable code (surface, repetition), or a detector error model whose errors are decomposed with ^.",
        ) from error  # fmt: skip


def _read_circuit(config: Config, key: str, value: str) -> stim.Circuit:
    path = config.path(key, value)
    try:
        return stim.Circuit.from_file(path)
    except ValueError as error:
        raise PlanError(
            key, f"names {path}, which Stim cannot read: {str(error).splitlines()[0]}",
            "Rounds and windows are derived from it.", "Correct the file; `stim diagram` shows where it breaks.",
        ) from error  # fmt: skip


def _read_dem(config: Config, value: str) -> stim.DetectorErrorModel:
    path = config.path("[plan] dem", value)
    try:
        return stim.DetectorErrorModel.from_file(path)
    except ValueError as error:
        raise PlanError(
            "[plan] dem", f"names {path}, which Stim cannot read: {str(error).splitlines()[0]}",
            "The matchers are built from it.", "Correct the file, or name another.",
        ) from error  # fmt: skip


def _other_basis_file(config: Config, table: PlanTable) -> stim.Circuit:
    if table.other_basis_circuit is None:
        raise PlanError(
            "[plan] frames", 'is "both", but [plan] other_basis_circuit is missing.',
            "The circuit's own observable gives one frame; the other is read from the sibling experiment.",
            "Name the circuit of the memory experiment in the other basis.",
        )  # fmt: skip
    return _read_circuit(config, "[plan] other_basis_circuit", table.other_basis_circuit)


def _generate(table: PlanTable, task: str, num_rounds: int) -> stim.Circuit:
    """A circuit of Stim's generator with uniform circuit noise; its `rounds` does not count the data readout."""
    assert table.distance is not None
    assert table.noise is not None
    try:
        return stim.Circuit.generated(
            task,
            distance=table.distance,
            rounds=num_rounds - 1,
            after_clifford_depolarization=table.noise,
            after_reset_flip_probability=table.noise,
            before_measure_flip_probability=table.noise,
            before_round_data_depolarization=table.noise,
        )
    except ValueError as error:
        raise PlanError(
            "[plan] generated", f"is {task!r} with distance {table.distance} and rounds {num_rounds - 1}, "
            f"but Stim says: {str(error).splitlines()[0]}",
            "The circuit cannot be generated.", 'Use for example "surface_code:rotated_memory_z" with distance 5.',
        ) from error  # fmt: skip


def _sibling(task: str) -> str:
    for basis, other in BASIS_SIBLINGS.items():
        if task.endswith(basis):
            return task.removesuffix(basis) + other
    raise PlanError(
        "[plan] frames", f'is "both", but {task!r} has no sibling in the other basis.',
        "The other observable is taken from the memory experiment in the other basis.",
        'Use "surface_code:rotated_memory_z" or its like, or frames = "own".',
    )  # fmt: skip


def _repeat_index(circuit: stim.Circuit) -> int | None:
    """Where the only REPEAT block of a circuit stands."""
    places = [i for i, instruction in enumerate(circuit) if isinstance(instruction, stim.CircuitRepeatBlock)]
    return places[0] if len(places) == 1 else None


def _stretched(circuit: stim.Circuit, more_rounds: int) -> stim.Circuit:
    """The circuit with its REPEAT block turned `more_rounds` times more often (or less, if negative)."""
    index = _repeat_index(circuit)
    assert index is not None
    block = circuit[index]
    assert isinstance(block, stim.CircuitRepeatBlock)
    turns = block.repeat_count + more_rounds
    if turns < 1:
        raise PlanError(
            "[plan] circuit", f"cannot be shortened by {-more_rounds} rounds: its REPEAT block turns "
            f"{block.repeat_count} times.", "Each turn is one round.", "Such short shots are refused while running.",
        )  # fmt: skip
    return circuit[:index] + stim.Circuit(f"REPEAT {turns} {{\n{block.body_copy()}\n}}") + circuit[index + 1 :]
