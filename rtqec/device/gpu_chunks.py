"""Chunks on a GPU: upload, unpack, network, stencils, pack and download on one stream, captured once as a graph.

What crosses the bus is packed: at d=13 a chunk of 30 layers is 0.7 kB in and 0.9 kB out, where its input and answers
are 81 kB and 41 kB. One buffer each way, since a copy costs more than its bytes. Chunks of several patches are one
launch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtqec.device.chunks import INPUTS, OUTPUTS, ChunkTables, Dtype, array_shapes
from rtqec.device.engine import ChunkShape, EngineError
from rtqec.device.gpu import Calls, CapturedWork, Gpu, cupy, pinned
from rtqec.device.refusal import refusal

_ALIGNMENT = 64
"""Bytes: of each array in its buffer."""


class GpuNetwork(Protocol):
    """A network with its memory on the GPU.

    Attributes:
        name: What it is, for logs and metrics.
        volume, inside, logits: Arrays on the GPU with `__cuda_array_interface__`, float32, of the shape's sizes.
    """

    name: str
    volume: Any
    inside: Any
    logits: Any

    def enqueue(self, stream: int) -> None:
        """Enqueue one call on a stream, given its handle.

        Raises:
            EngineError: It was refused.
        """

    def capture(self, enqueue: Callable[[int], None], gpu: Gpu) -> CapturedWork:
        """Work that holds a call of this network, captured as it has to be."""


class Buffer:
    """Arrays of one buffer, twice: in pinned memory of the host and on the GPU.

    Args:
        arrays: Names and types.
        shapes: Of each.

    Attributes:
        host: The arrays of the host, by name.
        there: Those on the GPU, CuPy's, by name.
    """

    def __init__(self, arrays: Sequence[tuple[str, Dtype]], shapes: dict[str, tuple[int, ...]]) -> None:
        sizes = {name: prod(shapes[name]) * np.dtype(dtype).itemsize for name, dtype in arrays}
        starts, self.num_bytes = {}, 0
        for name, size in sizes.items():
            starts[name] = self.num_bytes
            self.num_bytes += -(-size // _ALIGNMENT) * _ALIGNMENT
        module = cupy()
        # Whole float32s, all zero.
        self._host = pinned((self.num_bytes // 4,)).view(np.uint8)
        self._there = module.zeros((self.num_bytes,), module.uint8)
        parts = {name: slice(starts[name], starts[name] + sizes[name]) for name in sizes}
        self.host: dict[str, NDArray[Any]] = {
            name: self._host[parts[name]].view(dtype).reshape(shapes[name]) for name, dtype in arrays
        }
        self.there = {name: self._there[parts[name]].view(dtype).reshape(shapes[name]) for name, dtype in arrays}

    def upload(self, stream: int) -> None:
        """Enqueue the copy to the GPU."""
        runtime = cupy().cuda.runtime
        runtime.memcpyAsync(
            self._there.data.ptr, self._host.ctypes.data, self.num_bytes, runtime.memcpyHostToDevice, stream
        )

    def download(self, stream: int) -> None:
        """Enqueue the copy from the GPU."""
        runtime = cupy().cuda.runtime
        runtime.memcpyAsync(
            self._host.ctypes.data, self._there.data.ptr, self.num_bytes, runtime.memcpyDeviceToHost, stream
        )


class GpuChunks(Calls):
    """Chunks on a GPU, around a network there; see `ChunkDevice`.

    Args:
        network: The network.
        gpu: On which.
        shape: Of the calls.
        tables: Of the patches.

    Raises:
        EngineError: The GPU does not take the work.
    """

    def __init__(self, network: GpuNetwork, gpu: Gpu, shape: ChunkShape, tables: ChunkTables) -> None:
        self.shape, self._network, self._gpu = shape, network, gpu
        self._kernels = kernels = _kernels()
        module = cupy()
        module.cuda.Device(gpu.index).use()
        shapes = array_shapes(shape, tables.layer_bytes)
        self._inputs, self._outputs = Buffer(INPUTS, shapes), Buffer(OUTPUTS, shapes)
        self.rounds_b8, self.kinds, self.spans, self.patches = (self._inputs.host[name] for name, _ in INPUTS)
        self.changes_b8, self.flips, self.bad = (self._outputs.host[name] for name, _ in OUTPUTS)
        cells = shape.distance * shape.distance
        self._logits = pinned((shape.chunks, shape.outputs, shape.layers, cells))
        try:
            kernels.use(gpu.index)
            # Kept, for the graph reads them by address.
            self._tables = [module.asarray(values) for values in tables.arrays]
            self._volume = [
                kernels.shared(network.volume.reshape(shape.chunks, 4, shape.layers, cells)),
                kernels.shared(network.inside.reshape(shape.chunks, shape.layers)),
                kernels.shared(network.logits.reshape(shape.chunks, shape.outputs, shape.layers, cells)),
            ]
            self._before, self._after = self._arguments()
            # What the default stream did is complete before any other stream reads it.
            module.cuda.Device(gpu.index).synchronize()
            super().__init__(shape, network.capture(self._enqueue, gpu))
        except EngineError:
            raise
        except Exception as error:
            # Whatever numba says of a GPU, a driver or a toolkit that it cannot compile for.
            raise EngineError(f"the chunk's kernels cannot be put on {gpu.name}: {error}") from error
        graph = "" if self._work.is_captured else ", no graph"
        self.name = f"{network.name}, whole chunk on the GPU{graph}"

    def answers(self) -> NDArray[np.float32]:
        """The logits of the call that was taken. They are downloaded when they are asked for, in one call in 61: the
        check then rests on what the network said, and not on what the kernels made of it.
        """
        runtime, stream = cupy().cuda.runtime, self._work.stream
        try:
            runtime.memcpyAsync(
                self._logits.ctypes.data, _address(self._network.logits), self._logits.nbytes,
                runtime.memcpyDeviceToHost, stream.ptr,
            )  # fmt: skip
            stream.synchronize()
        except RuntimeError as error:
            raise EngineError(f"{self._gpu.name} failed: {error}") from error
        return self._logits

    def _arguments(self) -> tuple[list[Any], list[Any]]:
        """Of the kernels before and after the network."""
        share = self._kernels.shared
        own, thresholds, spots, slot_of, logical, presence, _, qubits_of = (share(one) for one in self._tables)
        rounds_b8, kinds, spans, patches = (share(self._inputs.there[name]) for name, _ in INPUTS)
        changed = [share(self._outputs.there[name]) for name, _ in OUTPUTS]
        volume, inside, logits = self._volume
        before = [own, slot_of, presence, rounds_b8, kinds, patches, volume, inside]
        after = [own, thresholds, spots, slot_of, logical, qubits_of, kinds, spans, patches, logits, *changed]
        return before, after

    def _enqueue(self, stream: int) -> None:
        """Upload, unpack, network, stencils, download."""
        kernels = self._kernels
        self._inputs.upload(stream)
        kernels.launch(kernels.unpack_chunks, self.shape, stream, *self._before)
        self._network.enqueue(stream)
        kernels.launch(kernels.answer_chunks, self.shape, stream, *self._after)
        self._outputs.download(stream)


def _kernels() -> Any:
    """The kernels' module.

    Raises:
        EngineError: There is no `numba.cuda`.
    """
    try:
        from rtqec.device import gpu_kernels
    except ImportError as error:
        raise refusal(
            "[predecode] engine",
            f"is one on a GPU, but numba.cuda cannot be imported: {error}.",
            "What surrounds the network on the GPU is compiled by it.",
            "pip install 'rtqec[gpu]'",
        ) from error
    return gpu_kernels


def _address(array: Any) -> int:
    """Of an array on the GPU, whosever it is."""
    return int(array.__cuda_array_interface__["data"][0])
