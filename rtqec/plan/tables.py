"""Plans as compiled code reads them when it folds: flat arrays, one row per layer. Feed and simulator share them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.kernels.records import FEED_PATCH, LAYER
from rtqec.layout import words_for_bits
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
        program: Flat arrays: constants, sources, sweep sources, fixes, history, sweeps. The last two are the
            changing state of the patches: who folds owns them.
    """

    def __init__(self, plans: list[Plan], patch_ids: list[int], events: bool) -> None:
        self.patches = np.zeros(len(plans), FEED_PATCH)
        programs = _Programs()
        history_words = sweep_words = 0
        for patch, plan, patch_id in zip(self.patches, plans, patch_ids, strict=True):
            _describe(patch, plan, programs)
            patch["patch_id"], patch["events"] = patch_id, events
            patch["history_offset"], patch["sweep_offset"] = history_words, sweep_words
            history_words += int((patch["history_mask"] + 1) * patch["history_words"])
            sweep_words += words_for_bits(plan.num_sweep_bits)
        self.layers: NDArray[Any] = np.array(programs.layers, np.int64).view(LAYER).reshape(-1)
        self.program = (
            _flat(programs.constants, np.uint64, 1),
            _flat(programs.sources, np.int32, 3),
            _flat(programs.sweeps, np.int32, 2),
            _flat(programs.fixes, np.int32, 2),
            np.zeros(history_words + 1, np.uint64),
            np.zeros(sweep_words + 1, np.uint64),
        )


class _Programs:
    """The fold programs of all layers, flat."""

    def __init__(self) -> None:
        self.layers: list[tuple[int, ...]] = []
        self.constants: list[NDArray[Any]] = []
        self.sources: list[NDArray[Any]] = []
        self.sweeps: list[NDArray[Any]] = []
        self.fixes: list[NDArray[Any]] = []

    def put(self, layer: Layer) -> int:
        """Append one layer; its row."""
        starts = self._sizes()
        if layer.program is not None:
            self.constants.append(_words(layer.program.constants))
            self.sources.append(layer.program.sources)
            self.sweeps.append(layer.program.sweeps)
            self.fixes.append(layer.program.fixes)
        ranges = [bound for pair in zip(starts[1:], self._sizes()[1:], strict=True) for bound in pair]
        back = layer.program.diagonal_back if layer.program else 0
        self.layers.append((layer.num_measurements, layer.num_detectors, back, starts[0], *ranges))
        return len(self.layers) - 1

    def _sizes(self) -> list[int]:
        parts = (self.constants, self.sources, self.sweeps, self.fixes)
        return [sum(len(array) for array in arrays) for arrays in parts]


def _words(bits: NDArray[Any]) -> NDArray[np.uint64]:
    """Bits, one byte each, as whole words, LSB first."""
    packed = np.zeros(8 * words_for_bits(len(bits)), np.uint8)
    found = np.packbits(bits, bitorder="little")
    packed[: len(found)] = found
    return packed.view(np.uint64)


def _flat(parts: list[NDArray[Any]], dtype: Any, columns: int) -> NDArray[Any]:
    """Concatenate, never empty, so that compiled code sees one type."""
    shape = (-1, columns) if columns > 1 else (-1,)
    empty = np.zeros((1, columns) if columns > 1 else 1, dtype)
    return np.ascontiguousarray(np.concatenate([*(part.reshape(shape) for part in parts), empty]).astype(dtype))


def _describe(patch: np.void, plan: Plan, programs: _Programs) -> None:
    """Fill what ingest knows of a plan."""
    rows = [programs.put(layer) for layer in plan.first_layers]
    patch["plan_tag"], patch["other_tag"] = plan.tag, -1
    patch["num_rounds"] = -1 if plan.num_rounds is None else plan.num_rounds
    patch["first_layer"], patch["num_first_layers"] = rows[0] if rows else 0, len(rows)
    patch["bulk_layer"] = programs.put(plan.bulk_layer) if plan.bulk_layer else -1
    patch["last_layer"] = programs.put(plan.last_layer)
    patch["num_sweep_bits"] = plan.num_sweep_bits
    patch["look_back"] = plan.look_back
    patch["full_detectors"] = plan.layout.detectors_max
    # One row more than the look-back: a lost round starts from the one before it.
    patch["history_mask"] = (1 << (plan.look_back + 1).bit_length()) - 1
    patch["history_words"] = max(words_for_bits(plan.layout.measurements_max), 1)
