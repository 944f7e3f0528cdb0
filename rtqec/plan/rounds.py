"""Which round a detector and a measurement belong to.

The measurement record is cut into consecutive blocks, one per round, as the hardware sends them; the data readout is
the last block. The round of a detector is a coordinate that the configuration names. Neither is guessed from the
other; they are only checked against each other: a detector of round t uses blocks up to t.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import stim
from numpy.typing import NDArray

from rtqec.config import PlanTable
from rtqec.errors import PlanError
from rtqec.layout import LayerLayout

MEASURING = {"M", "MZ", "MX", "MY", "MR", "MRZ", "MRX", "MRY", "MPP", "MXX", "MYY", "MZZ"}


@dataclass(frozen=True)
class RoundMap:
    """Rounds of a shot.

    Attributes:
        detector_round: Round of each detector, int64, shape (num_detectors,).
        detector_slot: Place of each detector in its layer (order of detector number), int64, same shape.
        detectors_per_layer: int64, shape (num_rounds,).
        block_starts: First measurement of each round, and their number at the end, int64, shape (num_rounds + 1,);
            all zero where only a DEM is known.
        layout: The stride of layers.
    """

    detector_round: NDArray[np.int64]
    detector_slot: NDArray[np.int64]
    detectors_per_layer: NDArray[np.int64]
    block_starts: NDArray[np.int64]
    layout: LayerLayout

    @property
    def num_rounds(self) -> int:
        """Rounds of the shot, the data readout included."""
        return len(self.detectors_per_layer)

    @property
    def block_widths(self) -> NDArray[np.int64]:
        """Measurements of each round, int64, shape (num_rounds,)."""
        return np.diff(self.block_starts)

    @cached_property
    def detector_bit(self) -> NDArray[np.int64]:
        """Bit of each detector in a shot of concatenated layers, int64, shape (num_detectors,)."""
        return self.detector_round * self.layout.layer_bits + self.detector_slot

    def layers_b8(self, detection_events: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Lay shots of detection events out as this plan's layers.

        Args:
            detection_events: bool, shape (num_shots, num_detectors), in the circuit's order.

        Returns:
            uint8, shape (num_shots, num_rounds * layer_bytes), LSB first.
        """
        bits = np.zeros((len(detection_events), self.num_rounds * self.layout.layer_bits), np.bool_)
        bits[:, self.detector_bit] = detection_events
        return np.packbits(bits, axis=1, bitorder="little")


def round_map(table: PlanTable, circuit: stim.Circuit | None, dem: stim.DetectorErrorModel) -> RoundMap:
    """Find the round of every detector and measurement, or say why that cannot be done.

    Raises:
        PlanError: The time coordinate is missing or not one, or measurement blocks and detectors contradict.
    """
    times = _time_coordinates(table.time_coordinate, dem)
    num_rounds = int(times.max() - times.min()) + 1
    starts = np.zeros(num_rounds + 1, np.int64)
    if circuit is not None:
        starts = _block_starts(table, circuit, num_rounds)
    # Rounds are aligned at the end: the last detectors are those of the data readout, the last block.
    detector_round = times - times.max() + len(starts) - 2
    num_rounds = len(starts) - 1
    per_layer = np.bincount(detector_round, minlength=num_rounds)
    _check_consecutive(table.time_coordinate, per_layer)
    order = np.argsort(detector_round, kind="stable")
    slot = np.empty_like(order)
    layer_starts = np.concatenate([[0], np.cumsum(per_layer)[:-1]])
    slot[order] = np.arange(len(order)) - layer_starts[detector_round[order]]
    widths = np.diff(starts)
    layout = LayerLayout(int(per_layer.max()), int(widths.max()))
    return RoundMap(detector_round, slot, per_layer, starts, layout)


def _time_coordinates(index: int, dem: stim.DetectorErrorModel) -> NDArray[np.int64]:
    """The integer time coordinate of every detector, int64, shape (num_detectors,)."""
    coordinates = dem.get_detector_coordinates()
    if dem.num_detectors == 0:
        raise PlanError(
            "[plan] circuit", "has no detectors.", "There is nothing to decode.", "Give a circuit with DETECTORs.",
        )  # fmt: skip
    times = np.empty(dem.num_detectors)
    for detector in range(dem.num_detectors):
        position = coordinates.get(detector, [])
        if not -len(position) <= index < len(position):
            raise PlanError(
                "[plan] time_coordinate", f"is {index}, but detector D{detector} has coordinates {position}.",
                "Without it the round of that detector is not known, and it is not guessed.",
                "Name an index that every detector has, or add coordinates to the circuit.",
            )  # fmt: skip
        times[detector] = position[index]
    if not np.array_equal(times, np.round(times)):
        culprit = int(np.argmax(times != np.round(times)))
        raise PlanError(
            "[plan] time_coordinate", f"is {index}, but detector D{culprit} has {times[culprit]} there.",
            "Rounds are whole numbers, so that this coordinate is not time.",
            "Name the index that counts rounds; Stim and Google put it last (-1).",
        )  # fmt: skip
    return times.astype(np.int64)


def _check_consecutive(index: int, per_layer: NDArray[np.int64]) -> None:
    """Every layer after the first that has detectors must have some."""
    first = int(np.argmax(per_layer > 0))
    empty = np.flatnonzero(per_layer[first:] == 0)
    if len(empty):
        raise PlanError(
            "[plan] time_coordinate", f"is {index}, but no detector has round {first + int(empty[0])} "
            f"of {len(per_layer)} there.",
            "Rounds follow each other without holes, so that this coordinate is probably a place and not time.",
            "Name the index that counts rounds; Stim and Google put it last (-1).",
        )  # fmt: skip


def _block_starts(table: PlanTable, circuit: stim.Circuit, num_layers: int) -> NDArray[np.int64]:
    """Cut the measurement record into rounds, int64, shape (num_rounds + 1,)."""
    total = circuit.num_measurements
    asked = table.measurements_per_round
    if asked == "auto":
        width, count = _measured_period(circuit)
        widths = [width] * count + [total - width * count]
    elif isinstance(asked, int):
        widths = [asked] * (num_layers - 1) + [total - asked * (num_layers - 1)]
    else:
        widths = list(asked)
    if sum(widths) != total or min(widths) < 1 or len(widths) < num_layers:
        raise PlanError(
            "[plan] measurements_per_round", f"is {asked!r}, which cuts {total} measurements into {len(widths)} blocks "
            f"(the last has {widths[-1]}), but the detectors have {num_layers} layers.",
            "Each round, and the data readout at the end, needs its own block, and no detector may come before it.",
            "Give the number of measurements of one round, or the list of all blocks, as the hardware sends them.",
        )  # fmt: skip
    return np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)


def _measured_period(circuit: stim.Circuit) -> tuple[int, int]:
    """The repeating block of measured qubits, and how often it repeats before the data readout.

    The data readout is what is left at the end and measures none of the block's qubits.
    """
    names: dict[str, int] = {}
    measured: list[int] = []
    for step in circuit.flattened():
        if step.name in MEASURING:
            last = step.target_groups()
            for group in last:
                name = " ".join(str(target.value) for target in group)
                measured.append(names.setdefault(name, len(names)))
    record = np.array(measured)
    for width in range(1, len(record)):
        mismatch = np.flatnonzero(record[:-width] != record[width:])
        periodic = (int(mismatch[0]) if len(mismatch) else len(record) - width) + width
        count = periodic // width
        rest = record[count * width :]
        if len(rest) and not np.isin(rest, record[:width]).any():
            # What comes once has no period: then the data readout is what the last instruction measures.
            return (width, count) if count > 1 else (len(record) - len(last), 1)
    raise PlanError(
        "[plan] measurements_per_round", 'is "auto", but the measurements do not repeat up to a data readout.',
        "The record cannot be cut into rounds without knowing how the hardware sends it.",
        "Give the number of measurements of one round, or the list of all blocks.",
    )  # fmt: skip
