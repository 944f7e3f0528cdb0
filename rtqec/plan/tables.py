"""Plans as compiled code reads them when it folds: flat arrays, one row per layer. Feed and simulator share them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.kernels.records import FEED_PATCH, LAYER
from rtqec.plan.compile import Layer, Plan


class FoldTables:
    """The layers and fold programs of several patches.

    Args:
        plans: One per patch.
        patch_ids: Their ids.
        events: Whether rounds carry detection events instead of raw measurements.

    Attributes:
        patches: `FEED_PATCH`, shape (num_patches,).
        layers: `LAYER`, one per layer of each plan.
        program: Flat arrays: constants, sources, sweep sources, pivots, history, sweeps. The last two are the
            changing state of the patches: who folds owns them.
    """

    def __init__(self, plans: list[Plan], patch_ids: list[int], events: bool) -> None:
        self.patches = np.zeros(len(plans), FEED_PATCH)
        programs = _Programs()
        history_bytes = sweep_bytes = 0
        for patch, plan, patch_id in zip(self.patches, plans, patch_ids, strict=True):
            _describe(patch, plan, programs)
            patch["patch_id"], patch["events"] = patch_id, events
            patch["history_offset"], patch["sweep_offset"] = history_bytes, sweep_bytes
            history_bytes += int((patch["history_mask"] + 1) * patch["history_width"])
            sweep_bytes += int(patch["num_sweep_bits"])
        self.layers: NDArray[Any] = np.array(programs.layers, np.int64).view(LAYER).reshape(-1)
        self.program = (
            _flat(programs.constants, np.uint8, 1),
            _flat(programs.sources, np.int32, 3),
            _flat(programs.sweeps, np.int32, 2),
            _flat(programs.pivots, np.int32, 1),
            np.zeros(history_bytes + 1, np.uint8),
            np.zeros(sweep_bytes + 1, np.uint8),
        )


class _Programs:
    """The fold programs of all layers of a lane, flat, as compiled code reads them."""

    def __init__(self) -> None:
        self.layers: list[tuple[int, ...]] = []
        self.constants: list[NDArray[Any]] = []
        self.sources: list[NDArray[Any]] = []
        self.sweeps: list[NDArray[Any]] = []
        self.pivots: list[NDArray[Any]] = []
        self._sizes = [0, 0, 0]

    def put(self, layer: Layer) -> int:
        """Append one layer; its row."""
        program = layer.program
        constant, source, sweep = self._sizes
        if program is None:
            row = (layer.num_measurements, layer.num_detectors, constant, source, source, sweep, sweep)
        else:
            self.constants.append(program.constants)
            self.pivots.append(program.pivots)
            self.sources.append(program.sources)
            self.sweeps.append(program.sweeps)
            self._sizes = [
                constant + layer.num_detectors, source + len(program.sources), sweep + len(program.sweeps)
            ]  # fmt: skip
            row = (layer.num_measurements, layer.num_detectors, constant, source, self._sizes[1], sweep, self._sizes[2])
        self.layers.append(row)
        return len(self.layers) - 1


def _flat(parts: list[NDArray[Any]], dtype: Any, columns: int) -> NDArray[Any]:
    """Concatenate, never empty, so that compiled code sees one type."""
    shape = (-1, columns) if columns > 1 else (-1,)
    empty = np.zeros((1, columns) if columns > 1 else 1, dtype)
    return np.ascontiguousarray(np.concatenate([*(part.reshape(shape) for part in parts), empty]).astype(dtype))


def _describe(patch: np.void, plan: Plan, programs: _Programs) -> None:
    """Fill what ingest knows of a plan."""
    rows = [programs.put(layer) for layer in plan.first_layers]
    patch["plan_tag"] = plan.tag
    patch["num_rounds"] = -1 if plan.num_rounds is None else plan.num_rounds
    patch["first_layer"], patch["num_first_layers"] = rows[0] if rows else 0, len(rows)
    patch["bulk_layer"] = programs.put(plan.bulk_layer) if plan.bulk_layer else -1
    patch["last_layer"] = programs.put(plan.last_layer)
    patch["num_sweep_bits"] = plan.num_sweep_bits
    # One row more than the look-back: a lost round starts from the one before it.
    patch["history_mask"] = (1 << (plan.look_back + 1).bit_length()) - 1
    patch["history_width"] = max(plan.layout.measurements_max, 1)
