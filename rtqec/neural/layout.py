"""Where the detectors of a memory experiment lie on the network's grid: channel, time, row, column.

Positions come from the detectors' coordinates. Of the eight symmetries of a square those are kept that carry the
checks onto the canonical code; among them one is chosen:

- *own frame*: the experiment's own kind of checks, the one that its first layer has, becomes channel 0. A network then
  serves both memory bases, since a quarter turn with the kinds exchanged leaves the code as it is.
- *published frame*: what carries the published orientations (XV, XH, ZV, ZH) into XV: nothing, or the mirror at the
  antidiagonal. The memory's own kind may then be either channel, as those models were trained on both.

A volume has a layer per round, the data readout last. The first and the last have detectors of the own kind only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import stim
from numpy.typing import NDArray

from rtqec.errors import PlanError
from rtqec.neural.code import Corner, SurfaceCode, Symmetry, surface_code, turned
from rtqec.plan.rounds import RoundMap

Frame = Literal["own", "published"]
_SYMMETRIES: tuple[Symmetry, ...] = tuple(product((False, True), range(4)))
_PUBLISHED: tuple[Symmetry, ...] = ((False, 0), (True, 1))
"""The identity, and the mirror at the antidiagonal: (i, j) to (distance - j, distance - i)."""


@dataclass(frozen=True)
class GridLayout:
    """Detectors of one experiment on the grid.

    Attributes:
        code: The canonical code.
        own: The channel of the kind of checks that the first and the last layer have.
        symmetry: What carries the experiment's frame into the canonical one.
        edge_places: Of each detector of the first and of the last layer, by its slot: `channel * num_cells + cell`.
        bulk_places: The same for every layer between.
    """

    code: SurfaceCode
    own: int
    symmetry: Symmetry
    edge_places: tuple[int, ...]
    bulk_places: tuple[int, ...]

    def places(self, t: int, num_layers: int) -> tuple[int, ...]:
        """Of each detector of layer `t` of `num_layers`: `channel * num_cells + cell`."""
        return self.edge_places if t in (0, num_layers - 1) else self.bulk_places

    def has(self, channel: int, t: int, num_layers: int) -> bool:
        """Whether layer `t` has detectors of a channel."""
        return channel == self.own or 0 < t < num_layers - 1

    def presence(self, num_layers: int) -> NDArray[np.float32]:
        """The two constant channels of a whole volume, float32, shape (2, num_layers, distance, distance)."""
        present = np.repeat(self.code.presence[:, np.newaxis], num_layers, axis=1)
        present[1 - self.own, [0, -1]] = 0
        return present

    def volume(self, detection_events: NDArray[np.bool_], rounds: RoundMap) -> NDArray[np.uint8]:
        """Whole shots on the grid, the slow way that others are compared with.

        Args:
            detection_events: bool, shape (num_shots, num_detectors), in the circuit's order.
            rounds: Those of the experiment.

        Returns:
            uint8, shape (num_shots, 2, num_layers, distance, distance).
        """
        n, size = self.code.num_cells, self.code.distance
        volume = np.zeros((len(detection_events), 2, rounds.num_rounds, n), np.uint8)
        for detector, (t, slot) in enumerate(zip(rounds.detector_round, rounds.detector_slot, strict=True)):
            place = self.places(int(t), rounds.num_rounds)[int(slot)]
            volume[:, place // n, t, place % n] = detection_events[:, detector]
        return volume.reshape(len(volume), 2, rounds.num_rounds, size, size)


def grid_layout(
    dem: stim.DetectorErrorModel, rounds: RoundMap, time_coordinate: int = -1, frame: Frame = "own"
) -> GridLayout:
    """Lay an experiment's detectors on the grid.

    Args:
        dem: Its error model; only the detectors' coordinates are read.
        rounds: Its rounds.
        time_coordinate: Index of time among a detector's coordinates.
        frame: Whose conventions the network has.

    Raises:
        PlanError: The circuit is no memory experiment of a rotated surface code.
    """
    distance = _distance(rounds)
    corners = _corners_by_layer(dem, rounds, time_coordinate, distance)
    if len(corners) < 3 or any(layer != corners[1] for layer in corners[1:-1]):
        raise _refusal(f"{len(corners)} rounds, and those between the first and the last differ or are missing")
    code = surface_code(distance)
    for own, symmetry in product((0,), _SYMMETRIES) if frame == "own" else product((0, 1), _PUBLISHED):
        first, bulk, last = (_places(layer, code, symmetry) for layer in (corners[0], corners[1], corners[-1]))
        if not first or not bulk or first != last or len(set(bulk)) != code.num_cells - 1:
            continue
        if {place // code.num_cells for place in first} == {own} and len(set(first)) == len(code.cells[own]):
            return GridLayout(code, own, symmetry, first, bulk)
    raise _refusal("detectors that are not those of the checks of one kind, or of all, once each")


def _distance(rounds: RoundMap) -> int:
    """The distance that the number of checks tells: distance squared less one are measured in a round.

    Even distances are refused: no symmetry carries the second kind of checks onto the first there.
    """
    detectors = int(rounds.detectors_per_layer.max())
    distance = math.isqrt(detectors + 1)
    if distance < 3 or distance % 2 == 0 or distance * distance != detectors + 1:
        raise _refusal(f"{detectors} detectors in a round; the bound is the square of an odd distance, less one")
    return distance


def _places(corners: list[Corner], code: SurfaceCode, symmetry: Symmetry) -> tuple[int, ...]:
    """Channel and cell of each detector under a symmetry; nothing where one lies on no check."""
    found = [code.check_at.get(turned(corner, code.distance, symmetry)) for corner in corners]
    places = [kind * code.num_cells + cell for kind, cell in filter(None, found)]
    return tuple(places) if len(places) == len(corners) else ()


def _corners_by_layer(
    dem: stim.DetectorErrorModel, rounds: RoundMap, time_coordinate: int, distance: int
) -> list[list[Corner]]:
    """The corner of the code's square at which each detector lies, by layer and slot."""
    coordinates = dem.get_detector_coordinates()
    num_detectors = len(rounds.detector_round)
    at = np.array([_point(coordinates.get(d, []), time_coordinate) for d in range(num_detectors)])
    for points in (at, np.stack([at[:, 0] + at[:, 1], at[:, 0] - at[:, 1]], axis=1)):
        corners = _on_square(points, distance)
        if corners is None:
            continue
        layers: list[list[Corner]] = [[] for _ in range(rounds.num_rounds)]
        for detector in np.lexsort((rounds.detector_slot, rounds.detector_round)).tolist():
            x, y = corners[detector].tolist()
            layers[int(rounds.detector_round[detector])].append((y, x))
        return layers
    raise _refusal(f"detectors that do not lie on the corners of a square of {distance} x {distance}")


def _on_square(points: NDArray[np.float64], distance: int) -> NDArray[np.int64] | None:
    """Points scaled to whole numbers from 0 to `distance`, or None where they do not fit."""
    low, high = points.min(axis=0), points.max(axis=0)
    if (high <= low).any():
        return None
    scaled = (points - low) / (high - low) * distance
    whole = np.rint(scaled).astype(np.int64)
    return whole if np.allclose(scaled, whole) else None


def _point(position: list[float], time_coordinate: int) -> list[float]:
    """A detector's place, without its time."""
    if len(position) != 3:
        raise _refusal(f"a detector with coordinates {position}")
    place = list(position)
    del place[time_coordinate]
    return place


def _refusal(found: str) -> PlanError:
    return PlanError(
        "[predecode]", f"is given, but the circuit of [plan] has {found}.",
        "The network reads a memory experiment of one rotated surface code: detectors at (x, y, t), those of one kind "
        "of checks in the first and the last round, those of both between.",
        "Remove [predecode], or give such a circuit.",
    )  # fmt: skip
