"""Where the detectors of a memory experiment lie on the network's grid: channel, time, row, column.

Positions come from the detectors' coordinates. Of the eight symmetries of a square those are kept that carry the
checks onto the canonical code; among them one is chosen:

- *own frame*: the experiment's own kind of checks, the one that its first layer has, becomes channel 0, and its
  *schedule* becomes the canonical one: errors in the middle of a round join a check to another one a round later, and
  the order of the gates decides which way these edges lean; here it is always towards lower columns, and among those
  lower rows. A mirror leaves the code in its odd variant. A network then serves both memory bases and any schedule
  that is a mirror image of the one that it learned: Stim's two bases are such images of each other, and a network
  that has learned one of them is worse than nothing on the other as it stands.
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
_LEAN_MIN = 1e-9
"""Below it edges lean no way: sums of probabilities that cancel."""


@dataclass(frozen=True)
class GridLayout:
    """Detectors of one experiment on the grid.

    Attributes:
        code: The canonical code, or its odd variant.
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
    if frame == "own":
        tried = product((surface_code(distance), surface_code(distance, odd=True)), (0,), _SYMMETRIES)
    else:
        tried = product((surface_code(distance),), (0, 1), _PUBLISHED)
    found = [layout for layout in (_laid_out(corners, *candidate) for candidate in tried) if layout]
    if not found:
        raise _refusal("detectors that are not those of the checks of one kind, or of all, once each")
    lean = _lean(dem, rounds, corners)
    # Of equals the first: the canonical code, as little turned as may be.
    return max(found, key=lambda layout: _lower_left(lean, layout.symmetry))


def _laid_out(corners: list[list[Corner]], code: SurfaceCode, own: int, symmetry: Symmetry) -> GridLayout | None:
    """The layout under a symmetry, or None where that does not carry the checks onto the code."""
    first, bulk, last = (_places(layer, code, symmetry) for layer in (corners[0], corners[1], corners[-1]))
    if not first or not bulk or first != last or len(set(bulk)) != code.num_cells - 1:
        return None
    if {place // code.num_cells for place in first} != {own} or len(set(first)) != len(code.cells[own]):
        return None
    return GridLayout(code, own, symmetry, first, bulk)


def _lean(dem: stim.DetectorErrorModel, rounds: RoundMap, corners: list[list[Corner]]) -> tuple[float, float]:
    """Which way the edges between checks of the own kind lean that reach from one layer into the next: the mean step,
    rows and columns of the circuit's own frame, weighed by probability.
    """
    own = set(corners[0])
    rows = columns = 0.0
    places = list(zip(rounds.detector_round.tolist(), rounds.detector_slot.tolist(), strict=True))
    for instruction in dem.flattened():
        if instruction.type != "error":
            continue
        hit = [places[target.val] for target in instruction.targets_copy() if target.is_relative_detector_id()]
        ends = sorted((t, corners[t][slot]) for t, slot in hit if corners[t][slot] in own)
        if len(ends) == 2 and ends[1][0] == ends[0][0] + 1:
            probability = instruction.args_copy()[0]
            rows += probability * (ends[1][1][0] - ends[0][1][0])
            columns += probability * (ends[1][1][1] - ends[0][1][1])
    return rows, columns


def _lower_left(lean: tuple[float, float], symmetry: Symmetry) -> tuple[bool, bool]:
    """Whether edges in time lean towards lower columns, and lower rows, once a symmetry has been applied."""
    rows, columns = lean
    if symmetry[0]:
        columns = -columns
    for _ in range(symmetry[1] % 4):
        rows, columns = columns, -rows
    return columns < -_LEAN_MIN, rows < -_LEAN_MIN


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
