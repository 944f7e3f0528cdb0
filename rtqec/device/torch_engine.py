"""PyTorch: the reference that other engines are compared with, and the engine for GPUs that TensorRT does not know.

On the CPU a call runs on a thread of its own. On a GPU upload, network and download are captured once as a graph.
PyTorch comes with the extra `train`; nothing imports it before this engine is asked for.
"""

from __future__ import annotations

import importlib
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rtqec.device.cache import read_model
from rtqec.device.engine import ChunkShape, Engine, EngineError
from rtqec.device.options import EngineOptions
from rtqec.device.refusal import refusal

Place = Literal["auto", "cpu", "gpu"]


def torch_engine(model: Path, shape: ChunkShape, options: EngineOptions | None = None, place: Place = "auto") -> Engine:
    """PyTorch on the GPU where there is one, else on the CPU.

    Args:
        model: An ONNX file of `training.export`.
        shape: Of the calls.
        options: `precision`: "auto" is float32 on the CPU and float16 on a GPU.
        place: Where to run.

    Raises:
        EngineError: PyTorch or the GPU is not there, or the model cannot be read.
    """
    torch = torch_module("torch")
    options = options or EngineOptions()
    if place == "auto":
        place = "gpu" if has_gpu() else "cpu"
    if place == "gpu" and not torch.cuda.is_available():
        raise refusal(
            "[predecode] engine",
            f'is "torch" on a GPU, but PyTorch {torch.__version__} finds none.',
            "The GPU needs NVIDIA's driver and a PyTorch that was built for CUDA.",
            'Install both, or set engine = "openvino".',
        )
    return TorchGpuEngine(model, shape, options) if place == "gpu" else TorchCpuEngine(model, shape, options)


def has_gpu() -> bool:
    """Whether PyTorch runs on a GPU here.

    Raises:
        EngineError: It is not installed.
    """
    return bool(torch_module("torch").cuda.is_available())


class TorchCpuEngine:
    """A network on the CPU; see `torch_engine`."""

    def __init__(self, model: Path, shape: ChunkShape, options: EngineOptions) -> None:
        self._torch = torch_module("torch")
        self.shape = shape
        self.volume = np.zeros(shape.volume, np.float32)
        self.inside = np.zeros(shape.inside, np.float32)
        self.logits = np.zeros(shape.logits, np.float32)
        precision = choose_precision(options.precision, "float32", ("float32", "bfloat16"), "the CPU")
        self._module = load_module(model, shape).to(getattr(self._torch, precision))
        self._type = getattr(self._torch, precision)
        self.name = f"torch {self._torch.__version__} {precision} cpu"
        threads = options.num_threads or self._torch.get_num_threads()
        self._worker = ThreadPoolExecutor(1, "torch", self._torch.set_num_threads, (threads,))
        self._call: Future[None] | None = None

    def warm(self) -> None:
        """Run all chunks once."""
        self.enqueue(self.shape.chunks)
        self.take()

    def enqueue(self, count: int) -> None:
        """Begin a call on the first `count` chunks."""
        if self._call is not None:
            raise EngineError("a call was enqueued while another is under way")
        self._call = self._worker.submit(self._run, count)

    def wait(self, timeout_ns: int) -> bool:
        """Whether the call is done."""
        if self._call is None:
            return True
        try:
            self._call.exception(timeout_ns / 1e9)
        except FutureTimeoutError:
            return False
        return True

    def take(self) -> None:
        """Make `logits` those of the call that is done."""
        call, self._call = self._call, None
        if call is not None and (failure := call.exception()) is not None:
            raise EngineError(f"PyTorch failed: {failure}") from failure

    def _run(self, count: int) -> None:
        """The call, on the worker's thread."""
        with self._torch.inference_mode():
            volume = self._torch.from_numpy(self.volume[:count]).to(self._type)
            inside = self._torch.from_numpy(self.inside[:count]).to(self._type)
            self.logits[:count] = self._module(volume, inside).float().numpy()


class TorchGpuEngine:
    """A network on a GPU, captured as a graph; see `torch_engine`."""

    WARM_CALLS = 3
    """Before the capture: PyTorch chooses algorithms and allocates in its first calls."""

    def __init__(self, model: Path, shape: ChunkShape, options: EngineOptions) -> None:
        torch = self._torch = torch_module("torch")
        self.shape = shape
        device = torch.device("cuda", options.gpu_index)
        precision = choose_precision(options.precision, "float16", ("float32", "float16", "bfloat16"), "the GPU")
        kind = getattr(torch, precision)
        # Let the warm calls time the algorithms of 3D convolutions: the heuristic's choice is for large batches.
        torch.backends.cudnn.benchmark = True
        try:
            self._host = {
                name: torch.zeros(getattr(shape, name), pin_memory=True) for name in ("volume", "inside", "logits")
            }
            self.volume, self.inside, self.logits = (values.numpy() for values in self._host.values())
            self._module = load_module(model, shape).to(device, kind, memory_format=torch.channels_last_3d)
            self._stream, self._done = torch.cuda.Stream(device), torch.cuda.Event()
            with torch.cuda.stream(self._stream), torch.inference_mode():
                for _ in range(self.WARM_CALLS):
                    self._run(device, kind)
                self._stream.synchronize()
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph, stream=self._stream):
                    self._run(device, kind)
        except RuntimeError as error:
            raise EngineError(f"PyTorch cannot put the network on GPU {options.gpu_index}: {error}") from error
        self.name = f"torch {torch.__version__} {precision} {torch.cuda.get_device_name(device)}"
        self._is_under_way = False

    def warm(self) -> None:
        """Run once."""
        self.enqueue(self.shape.chunks)
        while not self.wait(1_000_000_000):
            pass
        self.take()

    def enqueue(self, count: int) -> None:  # noqa: ARG002 - the graph is of the whole batch
        """Begin a call. All chunks are computed, whatever the count: a graph has one shape."""
        if self._is_under_way:
            raise EngineError("a call was enqueued while another is under way")
        try:
            with self._torch.cuda.stream(self._stream):
                self._graph.replay()
                self._done.record(self._stream)
        except RuntimeError as error:
            raise EngineError(f"the GPU did not take the call: {error}") from error
        self._is_under_way = True

    def wait(self, timeout_ns: int) -> bool:
        """Whether the call is done."""
        deadline = time.monotonic_ns() + timeout_ns
        try:
            while not self._done.query():
                if time.monotonic_ns() >= deadline:
                    return False
                os.sched_yield()
        except RuntimeError:
            # `take` asks again, and says it.
            return True
        return True

    def take(self) -> None:
        """Make `logits` those of the call that is done."""
        self._is_under_way = False
        try:
            self._done.synchronize()
        except RuntimeError as error:
            raise EngineError(f"the GPU failed: {error}") from error

    def _run(self, device: Any, kind: Any) -> None:
        """Upload, run, download."""
        volume, inside = (
            self._host[name].to(device, non_blocking=True).to(kind) for name in ("volume", "inside")
        )  # fmt: skip
        self._host["logits"].copy_(self._module(volume, inside).float().contiguous(), non_blocking=True)


def torch_module(name: str) -> Any:
    """A module of the extra `train`.

    Raises:
        EngineError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise refusal(
            "[predecode] engine",
            f'is "torch", which cannot be imported: {error}.',
            "PyTorch and the networks' modules are not part of a plain installation.",
            "pip install 'rtqec[train]', or set another engine.",
        ) from error


def load_module(path: Path, shape: ChunkShape) -> Any:
    """The module of an ONNX file, with its weights."""
    export, modules = torch_module("rtqec.training.export"), torch_module("rtqec.training.module")
    read_model(path)
    try:
        spec, state = export.read_onnx(path)
    except export.ModelFileError as error:
        raise refusal(
            "[predecode] model", f"is {path}, which PyTorch cannot run.", str(error),
            "Name a model of `rtqec train`, or set another engine.",
        ) from error  # fmt: skip
    if spec.outputs != shape.outputs:
        raise refusal(
            "[predecode] model",
            f"is {path}, which gives {spec.outputs} answers per cell, and {shape.outputs} are asked for.",
            "Answers per cell are part of the layout that reads them.",
            "Name a model of the wanted family.",
        )
    module = modules.make_module(spec)
    module.load_state_dict({name: torch_module("torch").from_numpy(values.copy()) for name, values in state.items()})
    return module.eval()


def choose_precision(wanted: str, best: str, possible: tuple[str, ...], place: str) -> str:
    """The precision to compute in."""
    if wanted == "auto":
        return best
    if wanted not in possible:
        raise refusal(
            "[predecode] precision",
            f'is "{wanted}", but PyTorch on {place} is run in {" or ".join(possible)}.',
            "float16 on a CPU is slower than float32.",
            'Set precision = "auto".',
        )
    return wanted
