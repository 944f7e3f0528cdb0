"""The interface of chunk devices: packed rounds in, what the network's answers flip out. And the one of the host.

A *chunk device* does all that stands between the path's packed rounds and its packed changes: unpack, network,
threshold, stencils, pack. On the host around any engine, here; on a GPU in one graph, in `gpu_chunks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtqec.device.engine import ChunkShape, Engine, EngineError
from rtqec.kernels.native import entry_of
from rtqec.kernels.stencils import answer_chunks, unpack_chunks


@dataclass(frozen=True)
class ChunkTables:
    """What is known of the patches whose rounds the chunks hold; all of one distance. A *spot* is
    `channel * num_cells + cell`; -1 stands for none everywhere.

    Attributes:
        own: int32, shape (patches,): channel of the kind of checks that edge layers have.
        thresholds: float32, shape (patches, 2): logits from which a data error and a wrong outcome is yes; see
            `at_least`.
        spots: int32, shape (patches, 2, slots): of bulk and edge layers, the spot of each slot; slots are whole bytes.
        slot_of: int32, shape (patches, 2, 2 * num_cells): of bulk and edge layers, the slot at each spot.
        logical: uint64, shape (patches, 2, num_cells): observables that a data error flips.
        presence: float32, shape (patches, 2, num_cells).
        checks_of: int32, shape (patches, 2, num_cells, 2): cells of the checks that a data error flips.
        qubits_of: int32, shape (patches, 2, num_cells, 4): data qubits of the check of each cell.
    """

    own: NDArray[np.int32]
    thresholds: NDArray[np.float32]
    spots: NDArray[np.int32]
    slot_of: NDArray[np.int32]
    logical: NDArray[np.uint64]
    presence: NDArray[np.float32]
    checks_of: NDArray[np.int32]
    qubits_of: NDArray[np.int32]

    @property
    def layer_bytes(self) -> int:
        """Of a packed layer: of the patch that has the longest."""
        return int(self.spots.shape[2]) // 8

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All of them, in the order in which kernels take them."""
        return (
            self.own, self.thresholds, self.spots, self.slot_of, self.logical, self.presence, self.checks_of,
            self.qubits_of,
        )  # fmt: skip


def at_least(threshold: float) -> np.float32:
    """The least float32 that is not below a threshold: logits are compared with it, with the same result."""
    rounded = np.float32(threshold)
    return np.nextafter(rounded, np.float32(np.inf)) if float(rounded) < threshold else rounded


INPUTS = (("rounds_b8", np.uint8), ("kinds", np.uint8), ("spans", np.int32), ("patches", np.int32))
OUTPUTS = (("changes_b8", np.uint8), ("flips", np.uint64), ("bad", np.uint8))
"""Names and types of a chunk device's arrays."""

Dtype = type[np.uint8] | type[np.int32] | type[np.uint64]


def array_shapes(shape: ChunkShape, layer_bytes: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a chunk device's arrays."""
    layers = (shape.chunks, shape.layers)
    return {
        "rounds_b8": (*layers, layer_bytes), "kinds": layers, "spans": (shape.chunks, 2), "patches": (shape.chunks,),
        "changes_b8": (*layers, layer_bytes), "flips": layers, "bad": layers,
    }  # fmt: skip


class ChunkDevice(Protocol):
    """What turns chunks into what is flipped in them. Calls are made as those of an `Engine`.

    The first four arrays are the caller's to fill before `enqueue`; the next three are valid from `take` to the next
    `enqueue`.

    Attributes:
        name: What it is, for logs and metrics.
        shape: Of its calls.
        rounds_b8: uint8, shape (chunks, layers, layer_bytes): packed detection events, LSB first. A layer outside is
            not read.
        kinds: uint8, shape (chunks, layers): `OUTSIDE` of the shot; `BULK`; `EDGE`, the shot's first layer, or `LAST`.
        spans: int32, shape (chunks, 2): first and stop layer whose answers count.
        patches: int32, shape (chunks,): row of the tables.
        changes_b8: uint8, like `rounds_b8`: detectors that are flipped. Wrong outcomes of the last answered layer
            reach into the one after it.
        flips: uint64, shape (chunks, layers): observables that each layer's answers flip.
        bad: uint8, shape (chunks, layers): 1 where an answer of a layer that counts is no number.
    """

    name: str
    shape: ChunkShape
    rounds_b8: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    spans: NDArray[np.int32]
    patches: NDArray[np.int32]
    changes_b8: NDArray[np.uint8]
    flips: NDArray[np.uint64]
    bad: NDArray[np.uint8]

    def warm(self) -> None:
        """Run once, so that nothing is allocated or compiled later.

        Raises:
            EngineError: It does not run.
        """

    def enqueue(self, count: int) -> None:
        """Begin a call on the first `count` chunks.

        Raises:
            EngineError: It does not run, or the call before has not been taken.
        """

    def wait(self, timeout_ns: int) -> bool:
        """Whether the call is done, after waiting at most so long; 0 only looks."""

    def take(self) -> None:
        """Make the arrays those of the call that is done.

        Raises:
            EngineError: It failed.
        """

    def answers(self) -> NDArray[np.float32]:
        """The logits of the call that was taken, shape (chunks, outputs, layers, num_cells): for checks.

        Raises:
            EngineError: They cannot be had.
        """


class HostChunks:
    """Chunks on the host, around an engine.

    Args:
        engine: The network.
        tables: Of the patches.
    """

    def __init__(self, engine: Engine, tables: ChunkTables) -> None:
        shape = engine.shape
        self.name, self.shape = engine.name, shape
        self._engine, self._tables = engine, tables.arrays
        shapes = array_shapes(shape, tables.layer_bytes)
        self.rounds_b8, self.kinds, self.spans, self.patches = (np.zeros(shapes[name], t) for name, t in INPUTS)
        self.changes_b8, self.flips, self.bad = (np.zeros(shapes[name], t) for name, t in OUTPUTS)
        cells = shape.distance * shape.distance
        self._inputs = (self.rounds_b8, self.kinds, self.spans, self.patches)
        self._logits = engine.logits.reshape(shape.chunks, shape.outputs, shape.layers, cells)
        self._volume = (
            engine.volume.reshape(shape.chunks, 4, shape.layers, cells),
            engine.inside.reshape(shape.chunks, shape.layers),
            np.full((shape.chunks, shape.layers), -1, np.int32),
        )
        self._count = 0
        self._unpack = entry_of(unpack_chunks, self._tables, self._inputs, 0, *self._volume)
        self._answer = entry_of(answer_chunks, *self._answer_args(0))

    def warm(self) -> None:
        """Run the engine once. The kernels have been compiled."""
        self._engine.warm()

    def enqueue(self, count: int) -> None:
        """Unpack, and begin the engine's call."""
        if self._count:
            # The network may still read what would be overwritten.
            raise EngineError("a call was enqueued while another is under way")
        self._unpack(self._tables, self._inputs, count, *self._volume)
        self._engine.enqueue(count)
        self._count = count

    def wait(self, timeout_ns: int) -> bool:
        """Whether the engine's call is done."""
        return self._engine.wait(timeout_ns)

    def take(self) -> None:
        """Turn the engine's answers into what they flip."""
        count, self._count = self._count, 0
        self._engine.take()
        self._answer(*self._answer_args(count))

    def answers(self) -> NDArray[np.float32]:
        """The engine's."""
        return self._logits

    def _answer_args(self, count: int) -> Sequence[Any]:
        return (self._tables, self._inputs, count, self._logits, self.changes_b8, self.flips, self.bad)
