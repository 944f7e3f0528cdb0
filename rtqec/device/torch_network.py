"""PyTorch's network on memory of the GPU, to be captured in one graph with what surrounds it; see `gpu_chunks`.

Not run yet: no GPU was at hand when it was written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtqec.device.engine import ChunkShape, EngineError
from rtqec.device.gpu import CapturedWork, Gpu, find_gpu
from rtqec.device.options import EngineOptions
from rtqec.device.torch_engine import choose_precision, load_module, torch_module


class TorchNetwork:
    """A network with its memory on the GPU; see `gpu_chunks.GpuNetwork`."""

    def __init__(self, model: Path, shape: ChunkShape, options: EngineOptions, gpu: Gpu) -> None:
        torch = self._torch = torch_module("torch")
        precision = choose_precision(options.precision, "float16", ("float32", "float16", "bfloat16"), "the GPU")
        self.name = f"torch {torch.__version__} {precision} {gpu.name}"
        self._device, self._type = torch.device("cuda", gpu.index), getattr(torch, precision)
        # Let the warm calls time the algorithms of 3D convolutions: the heuristic's choice is for large batches.
        torch.backends.cudnn.benchmark = True
        try:
            self._module = load_module(model, shape).to(
                self._device, self._type, memory_format=torch.channels_last_3d
            )  # fmt: skip
            self.volume, self.inside, self.logits = (
                torch.zeros(size, device=self._device) for size in (shape.volume, shape.inside, shape.logits)
            )
            torch.cuda.synchronize(self._device)
        except RuntimeError as error:
            raise EngineError(f"PyTorch cannot put the network on {gpu.name}: {error}") from error

    def enqueue(self, stream: int) -> None:
        """Enqueue one call on a stream, given its handle."""
        with self._torch.cuda.stream(self._on(stream)), self._torch.inference_mode():
            answers = self._module(self.volume.to(self._type), self.inside.to(self._type))
            self.logits.copy_(answers)

    def capture(self, enqueue: Callable[[int], None], gpu: Gpu) -> CapturedWork:
        """Work that holds a call of this network: captured by PyTorch, whose allocator must know of it."""
        return _TorchWork(enqueue, gpu, self._torch, self._on)

    def _on(self, stream: int) -> Any:
        """A stream of CuPy's as PyTorch's."""
        return self._torch.cuda.ExternalStream(stream, device=self._device)


class _TorchWork(CapturedWork):
    """Work whose graph is PyTorch's."""

    def __init__(self, enqueue: Callable[[int], None], gpu: Gpu, torch: Any, on: Callable[[int], Any]) -> None:
        self._torch, self._on = torch, on
        super().__init__(enqueue, gpu)

    def _capture(self) -> Any:
        """The work as PyTorch's graph."""
        graph = self._torch.cuda.CUDAGraph()
        stream = self._on(self.stream.ptr)
        with self._torch.cuda.graph(graph, stream=stream):
            self._enqueue(self.stream.ptr)
        return _TorchGraph(self._torch, graph, stream)


class _TorchGraph:
    """A graph of PyTorch with the call of CuPy's."""

    def __init__(self, torch: Any, graph: Any, stream: Any) -> None:
        self._torch, self._graph, self._stream = torch, graph, stream

    def launch(self, _: Any) -> None:
        """Begin, on the stream on which it was captured."""
        with self._torch.cuda.stream(self._stream):
            self._graph.replay()


def open_torch_network(model: Path, shape: ChunkShape, options: EngineOptions) -> tuple[TorchNetwork, Gpu]:
    """A network on the GPU of the options.

    Raises:
        EngineError: PyTorch or the GPU is not there, or the model cannot be read.
    """
    gpu = find_gpu(options.gpu_index)
    return TorchNetwork(model, shape, options, gpu), gpu
