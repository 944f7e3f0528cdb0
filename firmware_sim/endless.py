"""The tables of endless streams: a plan's error model, by rounds, as `kernels.endless` walks over it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.kernels.records import ERROR_GROUP
from rtqec.errors import ConfigError
from rtqec.plan import Plan
from rtqec.plan.model import EDGE_ROUNDS, ErrorTable, Node, RoundErrors

Place = tuple[float, float]


class EndlessErrors:
    """Errors of all endless patches, flat. `put` returns where one patch's groups lie."""

    def __init__(self) -> None:
        self._groups: list[tuple[int, int, float, float]] = []
        self._accept: list[float] = []
        self._observables: list[int] = []
        self._flip_start: list[int] = [0]
        self._flips: list[tuple[int, int]] = []
        self._places: list[tuple[float, float]] = []

    def put(self, plan: Plan, num_rounds: int) -> dict[str, int]:
        """Append one patch.

        Args:
            plan: An endless plan.
            num_rounds: Rounds that will be sent; at least two edges' worth, so that there is a bulk.

        Returns:
            The group fields and the `pending_mask` of `SEND_PATCH`.

        Raises:
            ConfigError: Too few rounds.
        """
        if num_rounds < 2 * EDGE_ROUNDS:
            raise ConfigError(
                "[source] rounds", f"is {num_rounds}, but an endless source sends at least {2 * EDGE_ROUNDS}.",
                "Its beginning and its end must not touch.", "Send more rounds, or finite shots ([plan] rounds = N).",
            )  # fmt: skip
        # Detectors that flip no observable as well: a real feed has them.
        table = plan.all_errors
        length = table.num_rounds
        where = detector_places(plan)
        head = self._put_groups(table, range(EDGE_ROUNDS), where)
        tail = self._put_groups(table, range(length - 1, length - 1 - EDGE_ROUNDS, -1), where)
        bulk = self._put_groups(table, range(length // 2, length // 2 + 1), where)
        return {
            "head_groups": head, "num_head_groups": EDGE_ROUNDS,
            "tail_groups": tail, "num_tail_groups": EDGE_ROUNDS,
            "bulk_group": bulk,
            "pending_mask": (1 << (table.extent + 1).bit_length()) - 1,
        }  # fmt: skip

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Groups, accept, observables, flip_start, flips; see `kernels.endless.sample_errors`."""
        return (
            np.array(self._groups or [(0, 0, -1.0, 0.0)], ERROR_GROUP),
            np.array(self._accept or [0.0]),
            np.array(self._observables or [0], np.uint64),
            np.array(self._flip_start, np.int64),
            np.array(self._flips or [(0, 0)], np.int64),
        )

    def places(self) -> NDArray[np.float64]:
        """Where errors are, float64, shape (num_errors, 2): the means of their detectors' x and y, or NaN."""
        return np.array(self._places or [(np.nan, np.nan)])

    def _put_groups(self, table: ErrorTable, rounds: range, where: dict[Node, Place]) -> int:
        first = len(self._groups)
        for t in rounds:
            self._put_group(table.by_round.get(t), t, where)
        return first

    def _put_group(self, errors: RoundErrors | None, anchor: int, where: dict[Node, Place]) -> None:
        start = len(self._accept)
        largest = max((p for p, _ in errors.errors), default=0.0) if errors else 0.0
        for probability, parts in errors.errors if errors else ():
            flips: set[tuple[int, int]] = set()
            observables = 0
            for part in parts:
                flips ^= set(part.detectors)
                for observable in part.observables:
                    observables ^= 1 << observable
            self._accept.append(probability / largest)
            self._observables.append(observables)
            self._flips.extend(sorted(flips))
            self._flip_start.append(len(self._flips))
            near = [where.get((anchor + t, slot), (np.nan, np.nan)) for part in parts for t, slot in part.detectors]
            self._places.append((float(np.mean([x for x, _ in near])), float(np.mean([y for _, y in near]))))
        self._groups.append((start, len(self._accept), math.log1p(-largest) if largest else -1.0, largest))


def detector_places(plan: Plan) -> dict[Node, Place]:
    """x and y of the detectors that have them: the first two coordinates besides the round."""
    rounds, slots = plan.rounds.detector_round.tolist(), plan.rounds.detector_slot.tolist()
    places = {}
    for detector, coordinates in plan.experiment.own_dem.get_detector_coordinates().items():
        time = plan.table.time_coordinate % len(coordinates) if coordinates else 0
        x_y = [value for i, value in enumerate(coordinates) if i != time][:2]
        if len(x_y) == 2:
            places[rounds[detector], slots[detector]] = (x_y[0], x_y[1])
    return places
