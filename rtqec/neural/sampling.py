"""Shots with their labels, sampled in compiled code from the errors of a model.

Each error happens by itself with its probability, as in Stim's sampler of error models. Errors of equal probability
are one class; within it the sampler leaps from one error that happens to the next, so that a shot costs what happens
in it and not what could.

Source of the leaps: Devroye, Non-Uniform Random Variate Generation (1986), chapter X.2, the geometric distribution.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from rtqec.neural.edges import EdgeMap
from rtqec.neural.effects import DATA, Effects, Mechanism
from rtqec.neural.labels import Labeller
from rtqec.neural.network import EDGE_OUTPUTS


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _strew(rng: Any, classes: Any, members: Any, targets_at: Any, targets: Any, shots: Any, flat: Any) -> None:
    """XOR the targets of the errors that happen into each shot.

    Args:
        classes: float64, shape (num_classes, 3): probability, first and last (excluded) place in `members`.
        members: int64: errors, by class.
        targets_at: int64: of each error, where its targets begin; and where the last one's end.
        targets: int64: places in a shot.
        shots: Number of shots.
        flat: uint8, shape (shots, size); zeros, filled.
    """
    for k in range(len(classes)):
        probability, start, stop = classes[k, 0], int(classes[k, 1]), int(classes[k, 2])
        width = stop - start
        scale = 1.0 / np.log1p(-probability) if probability < 1.0 else 0.0
        place = -1
        while True:
            place += 1 + int(np.log(1.0 - rng.random()) * scale)
            if place >= width * shots:
                break
            shot, error = place // width, members[start + place % width]
            for i in range(targets_at[error], targets_at[error + 1]):
                flat[shot, targets[i]] ^= 1


class LabelledShots:
    """A sampler of whole shots on the grid.

    Args:
        found: The errors of the model.
        effects: What answers do.
        channels: Channels of which answers are asked: the own one, or both.
        edges: Whether edges are labelled too.

    Attributes:
        num_layers, distance: Shape of a volume.
    """

    def __init__(
        self, found: list[Mechanism], effects: Effects, channels: tuple[int, ...], edges: bool = False
    ) -> None:
        layout = effects.layout
        self.num_layers, self.distance = effects.num_layers, layout.code.distance
        self.channels = channels
        volume = effects.num_layers * layout.code.num_cells
        edge_map, first_edge = EdgeMap(layout) if edges else None, 2 + 2 * len(channels)
        planes = first_edge + (EDGE_OUTPUTS if edges else 0)
        self._shape = (planes, self.num_layers, self.distance, self.distance)
        self._size = self._shape[0] * volume + 1
        labeller = Labeller(effects)
        n = layout.code.num_cells
        targets: list[int] = []
        targets_at = [0]
        by_probability: dict[float, list[int]] = defaultdict(list)
        for number, mechanism in enumerate(found):
            targets += [channel * volume + t * n + cell for channel, t, cell in mechanism.spots]
            for t, kind, channel, cell in labeller.label(mechanism):
                if channel in channels:
                    plane = 2 + (0 if kind == DATA else len(channels)) + channels.index(channel)
                    targets.append(plane * volume + t * n + cell)
            if edge_map is not None and (place := edge_map.of_mechanism(mechanism)) is not None:
                edge_class, t, cell = place
                targets.append((first_edge + edge_class) * volume + t * n + cell)
            if mechanism.observables & 1:
                targets.append(self._size - 1)
            targets_at.append(len(targets))
            by_probability[float(np.float32(mechanism.probability))].append(number)
        members = [number for numbers in by_probability.values() for number in numbers]
        stops = np.cumsum([len(numbers) for numbers in by_probability.values()])
        starts = stops - [len(numbers) for numbers in by_probability.values()]
        self._tables = (
            np.array([list(by_probability), starts, stops], np.float64).T.copy(),
            np.array(members, np.int64), np.array(targets_at, np.int64), np.array(targets, np.int64),
        )  # fmt: skip

    def sample(
        self, num_shots: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """Sample shots.

        Returns:
            Detection events, uint8, shape (num_shots, 2, num_layers, distance, distance); labels, uint8, shape
            (num_shots, 2 * len(channels), num_layers, distance, distance), data errors before wrong outcomes, and
            `EDGE_OUTPUTS` more planes with edges; flips of observable 0, uint8, shape (num_shots,).
        """
        flat = np.zeros((num_shots, self._size), np.uint8)
        _strew(rng, *self._tables, num_shots, flat)
        grid = flat[:, :-1].reshape(num_shots, *self._shape)
        return grid[:, :2], grid[:, 2:], flat[:, -1]
