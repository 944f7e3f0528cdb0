"""TensorRT on an NVIDIA GPU: upload, network and download on one stream, captured once as a graph.

`TensorRTNetwork` runs on memory of the GPU, for whoever has more to do there, as `gpu_chunks` has; `TensorRTEngine`
adds pinned host memory and is an engine like the others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtqec.device.cache import EngineCache
from rtqec.device.engine import ChunkShape, EngineError
from rtqec.device.gpu import Calls, CapturedWork, Gpu, cupy, find_gpu, pinned
from rtqec.device.options import EngineOptions
from rtqec.device.refusal import refusal
from rtqec.device.tensorrt_build import Library, built, library


class TensorRTNetwork:
    """A network with its memory on the GPU.

    Args:
        engine: Serialised.
        shape: Of the calls.
        gpu: On which.
        kernels: What `tensorrt_rtx` compiled on this GPU in an earlier start; None for none.
        keep: Is given what it compiled in this one.

    Attributes:
        name: Library, version and GPU.
        volume, inside, logits: CuPy arrays, float32, of the shape's sizes.

    Raises:
        EngineError: The engine does not run on this GPU.
    """

    def __init__(
        self, engine: bytes, shape: ChunkShape, gpu: Gpu, kernels: bytes | None = None,
        keep: Callable[[bytes], object] | None = None,
    ) -> None:  # fmt: skip
        trt = library()
        self.name = f"{trt.name} {trt.version} {gpu.name} (compute capability {gpu.compute_capability})"
        self._keep = keep if kernels is None else None
        module = cupy()
        module.cuda.Device(gpu.index).use()
        self._library = trt
        self._runtime = trt.module.Runtime(trt.logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(engine) if self._runtime else None
        if self._engine is None:
            raise _not_here(trt, gpu, self._runtime, engine)
        self._kernels: Any = None
        self._context = self._make_context(module, kernels)
        if self._context is None:
            raise _not_here(trt, gpu, self._runtime, engine)
        self.volume = module.zeros(shape.volume, module.float32)
        self.inside = module.zeros(shape.inside, module.float32)
        self.logits = module.zeros(shape.logits, module.float32)
        for name, array in (("volume", self.volume), ("inside", self.inside), ("logits", self.logits)):
            self._context.set_tensor_address(name, array.data.ptr)
        # What was zeroed on the default stream is complete before any other stream reads it.
        module.cuda.Device(gpu.index).synchronize()

    def enqueue(self, stream: int) -> None:
        """Enqueue one call on a stream, given its handle.

        Raises:
            EngineError: TensorRT refused.
        """
        if not self._context.execute_async_v3(stream):
            raise EngineError(f"TensorRT did not take the call: {self._library.complaints()}")

    def capture(self, enqueue: Callable[[int], None], gpu: Gpu) -> CapturedWork:
        """Work that holds a call of this network, as a graph where it may be one; see `CapturedWork`."""
        probe = cupy().cuda.Stream(non_blocking=True)
        work = CapturedWork(enqueue, gpu, capture=self.check_capturable(probe.ptr))
        if self._keep is not None and (compiled := self.compiled_kernels()) is not None:
            self._keep(compiled)
        return work

    def check_capturable(self, stream: int) -> bool:
        """Whether `enqueue` may be captured on a stream; before TensorRT-RTX one could only try."""
        asked = getattr(self._context, "is_stream_capturable", None)
        return bool(asked(stream)) if asked else True

    def compiled_kernels(self) -> bytes | None:
        """What was compiled on this GPU, to be given to the next start; None where nothing was."""
        return bytes(self._kernels.serialize()) if self._kernels is not None else None

    def _make_context(self, module: Any, kernels: bytes | None) -> Any:
        """The execution context, with memory of our own where the engine was built for that."""
        if not self._library.is_portable:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        strategies = self._library.module.ExecutionContextAllocationStrategy
        config.set_execution_context_allocation_strategy(strategies.USER_MANAGED)
        self._kernels = config.create_runtime_cache()
        if kernels is not None:
            # A refused one (another driver, say) is compiled anew and kept in its place.
            self._kernels.deserialize(kernels)
        config.set_runtime_cache(self._kernels)
        context = self._engine.create_execution_context(config)
        num_bytes = int(self._engine.device_memory_size_v2)
        if context is not None and num_bytes:
            self._scratch = module.cuda.alloc(num_bytes)
            context.set_device_memory(self._scratch.ptr, num_bytes)
        return context


def open_network(model: Path, shape: ChunkShape, options: EngineOptions) -> tuple[TensorRTNetwork, Gpu]:
    """A network on the GPU of the options, from the cache where it was built before.

    Raises:
        EngineError: There is no GPU or no TensorRT, or they do not take the model.
    """
    # The cheap question first: importing CuPy to look for a GPU takes seconds.
    library()
    gpu = find_gpu(options.gpu_index)
    engine, fields = built(model, shape, options, gpu)
    if options.cache_folder is None:
        return TensorRTNetwork(engine, shape, gpu), gpu
    cache = EngineCache(options.cache_folder)
    fields = {**fields, "part": "kernels", "gpu": gpu.name, "compute_capability": gpu.compute_capability}
    return TensorRTNetwork(engine, shape, gpu, cache.load(fields), lambda made: cache.store(fields, made)), gpu


class TensorRTEngine(Calls):
    """A network on the GPU.

    Args:
        model: The ONNX file.
        shape: Of the calls.
        options: `precision` must be "auto" or what the ONNX carries.

    Attributes:
        network: On the GPU.

    Raises:
        EngineError: There is no GPU or no TensorRT, or they do not take the model.
    """

    def __init__(self, model: Path, shape: ChunkShape, options: EngineOptions | None = None) -> None:
        self.network, gpu = open_network(model, shape, options or EngineOptions())
        self.volume, self.inside, self.logits = pinned(shape.volume), pinned(shape.inside), pinned(shape.logits)
        super().__init__(shape, self.network.capture(self._enqueue, gpu))
        self.name = self.network.name + ("" if self._work.is_captured else ", no graph")

    def _enqueue(self, stream: int) -> None:
        """Upload, run, download."""
        runtime = cupy().cuda.runtime
        for host, there in ((self.volume, self.network.volume), (self.inside, self.network.inside)):
            runtime.memcpyAsync(there.data.ptr, host.ctypes.data, host.nbytes, runtime.memcpyHostToDevice, stream)
        self.network.enqueue(stream)
        logits = self.network.logits
        runtime.memcpyAsync(
            self.logits.ctypes.data, logits.data.ptr, self.logits.nbytes, runtime.memcpyDeviceToHost, stream
        )


def _not_here(trt: Library, gpu: Gpu, runtime: Any, engine: bytes) -> EngineError:
    """The refusal of an engine that does not run on this GPU, with what TensorRT says of it."""
    why = trt.complaints()
    diagnose = getattr(runtime, "get_engine_validity", None)
    if diagnose is not None:
        causes = trt.module.EngineInvalidityDiagnostics.__members__
        flags = int(diagnose(engine)[1])
        why += "".join(f"; {name}" for name, flag in causes.items() if flags & int(flag))
    return refusal(
        "[predecode] engine",
        f'is "tensorrt", but {trt.name} {trt.version} does not run on {gpu.name} '
        f"(compute capability {gpu.compute_capability}).",
        why,
        'Set engine = "torch" for this GPU, or "openvino" for the CPU.',
    )
