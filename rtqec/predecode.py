"""Predecode: let a network take the easy part out of windows before they are matched. Optional; never in the way.

Where the engine is late, fails, answers what is no number, or is missing, its windows go on as they came, marked with
`Reason.ENGINE`. The problem that is matched stays the same one, restated; see `kernels.filter`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.batch import Streams, Weighing, WindowBatch
from rtqec.device.chunks import ChunkDevice, ChunkTables, HostChunks, at_least
from rtqec.device.engine import ChunkShape, EngineError, NullEngine
from rtqec.errors import FaultError
from rtqec.kernels.filter import finish_chunks, prepare_chunks
from rtqec.kernels.native import entry_of
from rtqec.kernels.records import ANSWERED, CHUNK, FILTER, FILTER_PAST, PathCounter
from rtqec.neural.effects import Effects
from rtqec.neural.layout import GridLayout
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock

CHECK_EVERY = 61


@dataclass(frozen=True)
class PatchFilter:
    """What the predecoder of a patch is.

    Attributes:
        layout: Its grid.
        logical: uint64, shape (2, num_cells): observables that a data error flips; see `Effects`.
        halo: Rounds before and after one that its answer depends on; at least 1.
        threshold_data, threshold_check: Logits from which on an answer is yes.
        soft: Whether the answers weigh edges, and nothing is decided.
    """

    layout: GridLayout
    logical: NDArray[np.uint64]
    halo: int
    threshold_data: float
    threshold_check: float
    soft: bool = False


class Predecode:
    """The stage.

    Attributes:
        check_every: One call in so many is checked: what is left is what came, less what the answers flip.
        shape, tables: What the chunk device that it is given has to be made for.
        grids: Of each of the lane's models, the grid of its detectors, or None.

    Args:
        streams: The lane's patches.
        ring: Where rounds are.
        telemetry: Its `span_counts` are written here.
        filters: Of each patch, or None where it has none; all of one distance and halo.
        shape: Of the calls.
        timeout_ns: Longest wait for the network. There is none until `open`: every window goes on without it.
    """

    def __init__(
        self, streams: Streams, ring: Ring, telemetry: TelemetryBlock, filters: Sequence[PatchFilter | None],
        shape: ChunkShape, timeout_ns: int,
    ) -> None:  # fmt: skip
        self._streams, self._timeout_ns = streams, timeout_ns
        self._is_open = self._busy = False
        self.check_every = CHECK_EVERY
        self.shape = shape
        layer_bytes = int(ring.places["layer_bytes"].max())
        self.tables = chunk_tables(filters, layer_bytes)
        self._maps = _lay_out(filters, self.tables)
        layouts = [None if one is None else one.layout for one in filters]
        self.grids = [layouts[patch] for patch in streams.patch_of]
        self._halo = max(0 if one is None else one.halo for one in filters)
        self._soft = any(one is not None and one.soft for one in filters)
        self._chunk_of = np.full(1, -1, np.int64)
        self._records = np.zeros(shape.chunks, CHUNK)
        self._take_from(HostChunks(NullEngine(shape), self.tables))
        self._pasts = np.zeros(len(filters), FILTER_PAST)
        self._pasts["shot"] = -1
        size = 0
        for past, place in zip(self._pasts, ring.places, strict=True):
            kept = 1 << (shape.layers - 1).bit_length()
            past["byte_offset"], past["mask"] = size, kept - 1
            size += kept * int(place["layer_bytes"])
        self._raw_b8 = np.zeros(size, np.uint8)
        self._before_b8 = np.zeros(shape.layers * layer_bytes, np.uint8)
        self._span_counts = telemetry.span_counts
        self._calls = 0
        self._prepare: Callable[..., int] = prepare_chunks
        self._finish: Callable[..., bool] = finish_chunks

    def warm(self, batch: WindowBatch) -> None:
        """Compile, on an empty batch."""
        batch.count = 0
        self._chunk_of = np.full(len(batch.windows), -1, np.int64)
        self._prepare = entry_of(prepare_chunks, *self._prepare_args(batch))
        self._finish = entry_of(finish_chunks, *self._finish_args(batch, 0, ANSWERED, 0, False))

    def open(self, device: ChunkDevice) -> None:
        """Go on with a chunk device. It may have threads, so that a process is forked before."""
        self._take_from(device)
        self._is_open = True

    def _take_from(self, device: ChunkDevice) -> None:
        """Take a chunk device's memory as that of the chunks."""
        self._device = device
        self._inputs = (device.rounds_b8, device.kinds, device.spans, device.patches)
        self._outputs = (device.changes_b8, device.flips, device.bad)
        self._answers = device.answers()

    def __call__(self, batch: WindowBatch) -> None:
        """Predecode the windows of a batch whose step says so; copy the raw rounds of all of them aside.

        Raises:
            FaultError: One call in `check_every` is checked, and this one was not right.
        """
        num_chunks = self._prepare(*self._prepare_args(batch))
        batch.weighing = None
        if not num_chunks:
            return
        self._calls += 1
        check = self._calls % self.check_every == 0
        started = time.perf_counter_ns()
        outcome = self._ask(num_chunks, check)
        took_ns = time.perf_counter_ns() - started
        if not self._finish(*self._finish_args(batch, num_chunks, outcome, took_ns, check)):
            raise FaultError("the predecoder left something else than what came, less what its answers flip.")
        if self._soft:
            batch.weighing = Weighing(self._chunk_of, self._answers, self._device.spans, self._halo)

    def _ask(self, num_chunks: int, check: bool) -> int:
        """What became of the call: `ANSWERED`, or the counter of the cause."""
        if not self._is_open:
            return PathCounter.BYPASSED_MISSING
        device = self._device
        try:
            if self._busy:
                # The call before was given up; its answers are nobody's.
                if not device.wait(0):
                    return PathCounter.BYPASSED_LATE
                self._busy = False
                device.take()
            device.enqueue(num_chunks)
            if not device.wait(self._timeout_ns):
                self._busy = True
                return PathCounter.BYPASSED_LATE
            device.take()
            if check:
                self._answers = device.answers()
        except EngineError:
            return PathCounter.BYPASSED_FAILED
        return ANSWERED

    def _prepare_args(self, batch: WindowBatch) -> tuple[Any, ...]:
        return (
            self._streams.streams, self._maps, self._inputs, self._records, self._pasts, self._raw_b8, batch.windows,
            batch.count,
        )  # fmt: skip

    def _finish_args(
        self, batch: WindowBatch, num_chunks: int, outcome: int, took_ns: int, check: bool
    ) -> tuple[Any, ...]:
        return (
            self._streams.streams, self._streams.shelf, self._maps, self._inputs, self._outputs, self._records,
            batch.windows, num_chunks, batch.rows_b8, self._before_b8, self._span_counts, int(outcome), took_ns,
            int(check), self.tables.arrays, self._answers, self._chunk_of,
        )  # fmt: skip


def chunk_tables(filters: Sequence[PatchFilter | None], layer_bytes: int) -> ChunkTables:
    """The filters as a chunk device reads them. At least one is there; a patch without one has an empty row."""
    n = next(one.layout.code.num_cells for one in filters if one is not None)
    patches = len(filters)
    own = np.zeros(patches, np.int32)
    thresholds = np.zeros((patches, 2), np.float32)
    spots = np.full((patches, 2, 8 * layer_bytes), -1, np.int32)
    slot_of = np.full((patches, 2, 2 * n), -1, np.int32)
    logical = np.zeros((patches, 2, n), np.uint64)
    presence = np.zeros((patches, 2, n), np.float32)
    checks_of = np.full((patches, 2, n, 2), -1, np.int32)
    qubits_of = np.full((patches, 2, n, 4), -1, np.int32)
    for p, one in enumerate(filters):
        if one is None:
            continue
        own[p] = one.layout.own
        thresholds[p] = at_least(one.threshold_data), at_least(one.threshold_check)
        for edge, places in enumerate((one.layout.bulk_places, one.layout.edge_places)):
            spots[p, edge, : len(places)] = places
            slot_of[p, edge, list(places)] = range(len(places))
        logical[p] = one.logical
        code = one.layout.code
        presence[p] = code.presence.reshape(2, n)
        for channel in (0, 1):
            for qubit, checks in enumerate(code.checks_of[channel]):
                checks_of[p, channel, qubit, : len(checks)] = checks
            for cell, support in zip(code.cells[channel], code.supports[channel], strict=True):
                qubits_of[p, channel, cell, : len(support)] = support
    return ChunkTables(own, thresholds, spots, slot_of, logical, presence, checks_of, qubits_of)


def _lay_out(filters: Sequence[PatchFilter | None], tables: ChunkTables) -> tuple[Any, ...]:
    """The filters as `kernels.filter` reads them."""
    records = np.zeros(len(filters), FILTER)
    records["halo"] = [0 if one is None else one.halo for one in filters]
    records["soft"] = [one is not None and one.soft for one in filters]
    num_cells = tables.presence.shape[2]
    is_own = (tables.spots >= 0) & (tables.spots // num_cells == tables.own[:, np.newaxis, np.newaxis])
    return records, np.packbits(is_own, axis=2, bitorder="little")


def patch_filter(effects: Effects, halo: int, threshold_data: float, threshold_check: float) -> PatchFilter:
    """The filter of a patch whose answers have these effects."""
    return PatchFilter(effects.layout, effects.logical, halo, threshold_data, threshold_check)


def soft_filter(effects: Effects, halo: int) -> PatchFilter:
    """The one of a patch whose answers decide nothing."""
    return PatchFilter(effects.layout, effects.logical, halo, np.inf, np.inf, soft=True)
