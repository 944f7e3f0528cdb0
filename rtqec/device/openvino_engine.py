"""OpenVINO on the CPU.

One request per chunk, each over its slice of the engine's arrays: OpenVINO reads and writes them in place. A batch of
several chunks costs as much as its chunks one by one (measured: 32 to 128 channels, d=5 to 13, one thread, within
noise), and single ones need no padding.

Nothing here calls home: see `_openvino`.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from rtqec.device.cache import EngineCache, digest, read_model, shape_fields
from rtqec.device.engine import ChunkShape, EngineError
from rtqec.device.options import EngineOptions
from rtqec.device.refusal import refusal
from rtqec.device.signal_stack import kept_signal_stack

_HINTS = {"float32": "f32", "bfloat16": "bf16"}

_NS_PER_MS = 1_000_000


def _openvino() -> Any:
    """OpenVINO, without its telemetry.

    Importing openvino sends an event to Google Analytics, unless its separate telemetry package cannot be imported:
    then it takes a stub of its own. None in `sys.modules` makes an import fail for good, whatever is installed or
    agreed to.

    Raises:
        EngineError: It is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        openvino: Any = importlib.import_module("openvino")
    except ImportError as error:
        raise refusal(
            "[predecode] engine",
            f'is "openvino", which cannot be imported: {error}.',
            "The network runs on the CPU through OpenVINO, which is not part of a plain installation.",
            "pip install 'rtqec[cpu]'",
        ) from error
    return openvino


class OpenVINOEngine:
    """A network on the CPU.

    Args:
        model: The ONNX file.
        shape: Of the calls.
        options: `precision`: "auto" is bfloat16 where the CPU computes in it, else float32.

    Raises:
        EngineError: OpenVINO is not there, or does not take the model.
    """

    def __init__(self, model: Path, shape: ChunkShape, options: EngineOptions | None = None) -> None:
        options = options or EngineOptions()
        self.shape = shape
        self.volume = np.zeros(shape.volume, np.float32)
        self.inside = np.zeros(shape.inside, np.float32)
        self.logits = np.zeros(shape.logits, np.float32)
        with kept_signal_stack():
            self._openvino = _openvino()
            self._core = self._openvino.Core()
            self.precision = self._choose_precision(options.precision)
            version = str(self._openvino.get_version())
            self.name = f"openvino {version.split('-')[0]} {self.precision} cpu"
            compiled = self._compile(model, options, version)
            self._requests = [self._bind(compiled.create_infer_request(), at) for at in range(shape.chunks)]
        self._under_way = 0
        self._failure: Exception | None = None

    def warm(self) -> None:
        """Run all chunks once, on zeros."""
        self.enqueue(self.shape.chunks)
        while not self.wait(1000 * _NS_PER_MS):
            pass
        self.take()

    def enqueue(self, count: int) -> None:
        """Begin a call on the first `count` chunks."""
        if self._under_way:
            raise EngineError("a call was enqueued while another is under way")
        try:
            for request in self._requests[:count]:
                request.start_async()
                self._under_way += 1
        except RuntimeError as error:
            raise EngineError(f"OpenVINO did not take the call: {error}") from error

    def wait(self, timeout_ns: int) -> bool:
        """Whether the call is done. OpenVINO waits in milliseconds; the rest of the time it is looked at again."""
        deadline = time.monotonic_ns() + timeout_ns
        try:
            for request in self._requests[: self._under_way]:
                left = max(0, deadline - time.monotonic_ns())
                if request.wait_for(left // _NS_PER_MS):
                    continue
                while not request.wait_for(0):
                    if time.monotonic_ns() >= deadline:
                        return False
                    os.sched_yield()
        except RuntimeError as error:
            self._failure = error
        return True

    def take(self) -> None:
        """Make `logits` those of the call that is done."""
        failure, self._failure = self._failure, None
        self._under_way = 0
        if failure is not None:
            raise EngineError(f"OpenVINO failed: {failure}") from failure

    def _choose_precision(self, wanted: str) -> str:
        """The precision to compute in."""
        has_bfloat16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if wanted == "auto":
            return "bfloat16" if has_bfloat16 else "float32"
        if wanted not in _HINTS or (wanted == "bfloat16" and not has_bfloat16):
            raise refusal(
                "[predecode] precision",
                f'is "{wanted}", but OpenVINO on this CPU computes in float32{" or bfloat16" * has_bfloat16}.',
                "bfloat16 needs avx512_bf16 or amx_bf16; float16 is for GPUs.",
                'Set precision = "auto".',
            )
        return wanted

    def _compile(self, path: Path, options: EngineOptions, version: str) -> Any:
        """The compiled model: from the cache, or compiled and kept there."""
        model = read_model(path)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # Threads run where the process may run: a lane is pinned, and its network with it.
            "ENABLE_CPU_PINNING": False,
        }
        if options.num_threads:
            settings["INFERENCE_NUM_THREADS"] = options.num_threads
        fields = {
            "engine": "openvino", "version": version, "model_sha256": digest(model), "precision": self.precision,
            "device": str(self._core.get_property("CPU", "FULL_DEVICE_NAME")), "num_threads": options.num_threads,
            **shape_fields(self.shape),
        }  # fmt: skip
        cache = EngineCache(options.cache_folder) if options.cache_folder else None
        if cache and (kept := cache.load(fields)) is not None:
            try:
                return self._core.import_model(kept, "CPU", settings)
            except RuntimeError as error:
                raise refusal(
                    str(cache.path_of(fields)), f"is not taken back by OpenVINO {version}.", str(error).strip(),
                    "Delete it; it is built again at the next start, or now with `rtqec engine build`.",
                ) from error  # fmt: skip
        try:
            compiled = self._core.compile_model(self._reshaped(model, path), "CPU", settings)
            if cache:
                stream = BytesIO()
                compiled.export_model(stream)
                cache.store(fields, stream.getvalue())
        except RuntimeError as error:
            raise refusal(
                "[predecode] model", f"is {path}, which OpenVINO {version} does not take.", str(error).strip(),
                "Export it again with `rtqec train`, or set another engine.",
            ) from error  # fmt: skip
        return compiled

    def _reshaped(self, model: bytes, path: Path) -> Any:
        """The model in the shape of one chunk."""
        read = self._core.read_model(model)
        read.reshape({"volume": [1, *self.shape.volume[1:]], "inside": [1, *self.shape.inside[1:]]})
        found = tuple(read.output("logits").shape)
        if found != (1, *self.shape.logits[1:]):
            raise refusal(
                "[predecode] model",
                f"is {path}, which answers {found} for one chunk, and {(1, *self.shape.logits[1:])} is asked for.",
                "Answers per cell are part of the layout that reads them.",
                "Name a model of the wanted family.",
            )
        return read

    def _bind(self, request: Any, at: int) -> Any:
        """Let a request read and write one chunk in place."""
        for name, array in (("volume", self.volume), ("inside", self.inside), ("logits", self.logits)):
            request.set_tensor(name, self._openvino.Tensor(array[at : at + 1], shared_memory=True))
        return request
