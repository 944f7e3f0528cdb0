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

from rtqec.batch import Streams, WindowBatch
from rtqec.device.engine import ChunkShape, Engine, EngineError, NullEngine
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
    """

    layout: GridLayout
    logical: NDArray[np.uint64]
    halo: int
    threshold_data: float
    threshold_check: float


class Predecode:
    """The stage.

    Attributes:
        check_every: One call in so many is checked: what is left is what came, less what the answers flip.

    Args:
        streams: The lane's patches.
        ring: Where rounds are.
        telemetry: Its `span_counts` are written here.
        filters: Of each patch, or None where it has none; all of one distance and halo.
        shape: Of the engine's calls.
        timeout_ns: Longest wait for the engine. There is none until `open`: every window goes on without it.
    """

    def __init__(
        self, streams: Streams, ring: Ring, telemetry: TelemetryBlock, filters: Sequence[PatchFilter | None],
        shape: ChunkShape, timeout_ns: int,
    ) -> None:  # fmt: skip
        self._streams, self._timeout_ns = streams, timeout_ns
        self._engine: Engine | None = None
        self._busy = False
        self.check_every = CHECK_EVERY
        self.shape = shape
        self._records = np.zeros(shape.chunks, CHUNK)
        self._read(NullEngine(shape))
        self._maps = _lay_out(filters)
        self._pasts = np.zeros(len(filters), FILTER_PAST)
        self._pasts["shot"] = -1
        size = 0
        for past, place in zip(self._pasts, ring.places, strict=True):
            kept = 1 << (shape.layers - 1).bit_length()
            past["byte_offset"], past["mask"] = size, kept - 1
            size += kept * int(place["layer_bytes"])
        self._raw_b8 = np.zeros(size, np.uint8)
        self._before_b8 = np.zeros(shape.layers * int(ring.places["layer_bytes"].max()), np.uint8)
        self._span_counts = telemetry.span_counts
        self._calls = 0
        self._prepare: Callable[..., int] = prepare_chunks
        self._finish: Callable[..., None] = finish_chunks

    def warm(self, batch: WindowBatch) -> None:
        """Compile, on an empty batch."""
        batch.count = 0
        self._prepare = entry_of(prepare_chunks, *self._prepare_args(batch))
        self._finish = entry_of(finish_chunks, *self._finish_args(batch, 0, ANSWERED, 0, False))

    def open(self, engine: Engine) -> None:
        """Go on with an engine. It may have threads, so that a process is forked before."""
        self._engine = engine
        self._read(engine)

    def _read(self, engine: Engine) -> None:
        """Take an engine's memory as that of the chunks."""
        shape = self.shape
        n = shape.distance * shape.distance
        self._chunks = (
            engine.volume.reshape(shape.chunks, 4, shape.layers, n), engine.inside.reshape(shape.chunks, shape.layers),
            engine.logits.reshape(shape.chunks, shape.outputs, shape.layers, n), self._records,
        )  # fmt: skip

    def __call__(self, batch: WindowBatch) -> None:
        """Predecode the windows of a batch whose step says so; copy the raw rounds of all of them aside.

        Raises:
            FaultError: One call in `check_every` is checked, and this one was not right.
        """
        num_chunks = self._prepare(*self._prepare_args(batch))
        if not num_chunks:
            return
        started = time.perf_counter_ns()
        outcome = self._ask(num_chunks)
        took_ns = time.perf_counter_ns() - started
        self._calls += 1
        check = self._calls % self.check_every == 0
        if not self._finish(*self._finish_args(batch, num_chunks, outcome, took_ns, check)):
            raise FaultError("the predecoder left something else than what came, less what its answers flip.")

    def _ask(self, num_chunks: int) -> int:
        """What became of the call: `ANSWERED`, or the counter of the cause."""
        engine = self._engine
        if engine is None:
            return PathCounter.BYPASSED_MISSING
        try:
            if self._busy:
                # The call before was given up; its answers are nobody's.
                if not engine.wait(0):
                    return PathCounter.BYPASSED_LATE
                self._busy = False
                engine.take()
            engine.enqueue(num_chunks)
            if not engine.wait(self._timeout_ns):
                self._busy = True
                return PathCounter.BYPASSED_LATE
            engine.take()
        except EngineError:
            return PathCounter.BYPASSED_FAILED
        return ANSWERED

    def _prepare_args(self, batch: WindowBatch) -> tuple[Any, ...]:
        return (
            self._streams.streams, self._maps, self._chunks, self._pasts, self._raw_b8, batch.windows, batch.count,
        )  # fmt: skip

    def _finish_args(
        self, batch: WindowBatch, num_chunks: int, outcome: int, took_ns: int, check: bool
    ) -> tuple[Any, ...]:
        return (
            self._streams.streams, self._streams.shelf, self._maps, self._chunks, batch.windows, num_chunks,
            batch.rows_b8, self._before_b8, self._span_counts, int(outcome), took_ns, int(check),
        )  # fmt: skip


def _lay_out(filters: Sequence[PatchFilter | None]) -> tuple[Any, ...]:
    """The filters as compiled code reads them; see `kernels.filter`."""
    records = np.zeros(len(filters), FILTER)
    places: list[int] = []
    qubits_of: list[int] = []
    slot_of: list[int] = []
    checks_of: list[int] = []
    logical: list[int] = []
    presence: list[float] = []
    for record, one in zip(records, filters, strict=True):
        if one is None:
            continue
        layout, code = one.layout, one.layout.code
        n = code.num_cells
        record["num_cells"], record["own"], record["halo"] = n, layout.own, one.halo
        record["threshold_data"], record["threshold_check"] = one.threshold_data, one.threshold_check
        record["edge_offset"], record["edge_count"] = len(places), len(layout.edge_places)
        places += layout.edge_places
        record["bulk_offset"], record["bulk_count"] = len(places), len(layout.bulk_places)
        places += layout.bulk_places
        record["slot_of_offset"] = len(slot_of)
        for of_layer in (layout.bulk_places, layout.edge_places):
            slots = [-1] * (2 * n)
            for slot, place in enumerate(of_layer):
                slots[place] = slot
            slot_of += slots
        record["checks_offset"] = len(checks_of)
        for channel in (0, 1):
            for checks in code.checks_of[channel]:
                checks_of += [*checks, -1][:2]
        record["qubits_offset"] = len(qubits_of)
        for channel in (0, 1):
            support_of = dict(zip(code.cells[channel], code.supports[channel], strict=True))
            for cell in range(n):
                qubits_of += [*support_of.get(cell, ()), -1, -1, -1, -1][:4]
        record["logical_offset"] = len(logical)
        logical += one.logical.ravel().tolist()
        record["presence_offset"] = len(presence)
        presence += code.presence.ravel().tolist()
    return (
        records, np.array(places, np.int64), np.array(slot_of, np.int64), np.array(checks_of, np.int64),
        np.array(logical, np.uint64), np.array(presence, np.float32), np.array(qubits_of, np.int64),
    )  # fmt: skip


def patch_filter(effects: Effects, halo: int, threshold_data: float, threshold_check: float) -> PatchFilter:
    """The filter of a patch whose answers have these effects."""
    return PatchFilter(effects.layout, effects.logical, halo, threshold_data, threshold_check)
