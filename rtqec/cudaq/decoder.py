"""One decoder as CUDA-Q describes it, whatever it was read from."""

from __future__ import annotations

from dataclasses import dataclass

import stim


@dataclass(frozen=True)
class CudaqDecoder:
    """What is decoded, and how measurements become detectors.

    Attributes:
        dem: Detector error model, no loops, errors decomposed at `^` into parts of at most two detectors.
        measurements_of: For each detector, ascending, the measurements whose XOR it is.
        num_observables: Bits of a correction.
        rounds: Round of each detector; None where it is not known.
        block_widths: Measurements of each round, as they are sent; with `rounds`.
    """

    dem: stim.DetectorErrorModel
    measurements_of: tuple[tuple[int, ...], ...]
    num_observables: int
    rounds: tuple[int, ...] | None = None
    block_widths: tuple[int, ...] | None = None

    @property
    def num_measurements(self) -> int:
        """Measurements of one shot: a decoding needs so many (the highest in D, and one)."""
        if self.block_widths is not None:
            return sum(self.block_widths)
        return 1 + max(row[-1] for row in self.measurements_of)

    @property
    def span(self) -> int:
        """Most rounds between the detectors of one part of an error; 0 where rounds are not known."""
        if self.rounds is None:
            return 0
        spans = [0]
        for instruction in self.dem:
            if instruction.type == "error":
                for group in instruction.target_groups():
                    rounds = [self.rounds[target.val] for target in group if target.is_relative_detector_id()]
                    spans.append(max(rounds, default=0) - min(rounds, default=0))
        return max(spans)

    @property
    def distance(self) -> int | None:
        """The fewest errors that flip an observable unseen; None where any are seen."""
        try:
            return len(self.dem.shortest_graphlike_error())
        except ValueError:
            return None

    @property
    def in_rounds(self) -> CudaqDecoder:
        """The same with rounds: where they are not known, one of everything."""
        if self.rounds is not None:
            return self
        return self.with_rounds((0,) * len(self.measurements_of), (self.num_measurements,))

    def with_rounds(self, rounds: tuple[int, ...], block_widths: tuple[int, ...]) -> CudaqDecoder:
        """The same with these rounds, which are then the only coordinate of its detectors."""
        model = stim.DetectorErrorModel()
        for instruction in self.dem:
            if instruction.type != "detector":
                model.append(instruction)
        for detector, t in enumerate(rounds):
            model.append("detector", [t], [stim.target_relative_detector_id(detector)])
        return CudaqDecoder(model, self.measurements_of, self.num_observables, rounds, block_widths)

    @property
    def folding_circuit(self) -> stim.Circuit:
        """A circuit without noise that has these measurements and detectors, with the coordinates of the model."""
        circuit, total = stim.Circuit(), self.num_measurements
        circuit.append("M", range(total))
        coordinates = self.dem.get_detector_coordinates()
        for detector, measurements in enumerate(self.measurements_of):
            targets = [stim.target_rec(measurement - total) for measurement in measurements]
            circuit.append("DETECTOR", targets, coordinates.get(detector, []))
        return circuit
