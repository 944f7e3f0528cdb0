"""The GPU as engines need it: which one it is, pinned host memory, one stream, one captured graph. The door to CuPy.

CuPy is imported when a GPU is asked for, never before: the import takes seconds, and a daemon without a GPU has none.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtqec.device.engine import ChunkShape, EngineError
from rtqec.device.refusal import refusal


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        index: Of CUDA.
        name: As the driver calls it.
        compute_capability: As "9.0".
    """

    index: int
    name: str
    compute_capability: str


def cupy() -> Any:
    """CuPy.

    Raises:
        EngineError: It is not installed.
    """
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise refusal(
            "[predecode] engine",
            f"needs a GPU, but CuPy cannot be imported: {error}.",
            "Memory, streams and graphs of the GPU are CuPy's.",
            "pip install 'rtqec[gpu]'",
        ) from error


def find_gpu(index: int) -> Gpu:
    """The GPU of an index.

    Raises:
        EngineError: There is none, or no driver.
    """
    runtime = cupy().cuda.runtime
    try:
        count = runtime.getDeviceCount()
        if not 0 <= index < count:
            raise _no_gpu(index, f"the driver counts {count}")
        properties = runtime.getDeviceProperties(index)
    except RuntimeError as error:
        raise _no_gpu(index, str(error)) from error
    name = properties["name"].decode()
    return Gpu(index, name, f"{properties['major']}.{properties['minor']}")


def _no_gpu(index: int, why: str) -> EngineError:
    """The refusal where there is no GPU."""
    return refusal(
        "[predecode] gpu_index",
        f"is {index}, but there is no such GPU: {why}.",
        "This engine runs on an NVIDIA GPU and nowhere else.",
        'Install the driver, or set engine = "openvino".',
    )


def pinned(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Host memory that the GPU reads and writes by itself: float32, zeros."""
    memory = cupy().cuda.alloc_pinned_memory(4 * prod(shape))
    # The array keeps the memory alive; a buffer of CuPy may be longer than was asked for.
    array = np.frombuffer(memory, np.float32, prod(shape)).reshape(shape)
    array[...] = 0
    return array


class CapturedWork:
    """Work on a stream of its own, captured once, launched again and again.

    Args:
        enqueue: Enqueues the work on a stream, given its handle. Called a few times here and never again.
        gpu: On which.
        capture: Capture it as a graph; else `enqueue` is called each time.

    Raises:
        EngineError: It cannot be enqueued or captured.
    """

    WARM_CALLS = 3
    """Before the capture: libraries compile and allocate in their first calls, and neither may be captured."""

    def __init__(self, enqueue: Callable[[int], None], gpu: Gpu, *, capture: bool = True) -> None:
        self._enqueue, self._gpu = enqueue, gpu
        module = cupy()
        try:
            module.cuda.Device(gpu.index).use()
            self.stream = module.cuda.Stream(non_blocking=True)
            self._done = module.cuda.Event(disable_timing=True)
            for _ in range(self.WARM_CALLS):
                enqueue(self.stream.ptr)
            self.stream.synchronize()
            self._graph: Any = self._capture() if capture else None
        except RuntimeError as error:
            raise EngineError(f"the work cannot be put on {gpu.name}: {error}") from error

    @property
    def is_captured(self) -> bool:
        """Whether it is launched as a graph."""
        return self._graph is not None

    def launch(self) -> None:
        """Begin.

        Raises:
            EngineError: The GPU refused.
        """
        try:
            if self._graph is None:
                self._enqueue(self.stream.ptr)
            else:
                self._graph.launch(self.stream)
            self._done.record(self.stream)
        except RuntimeError as error:
            raise EngineError(f"{self._gpu.name} did not take the call: {error}") from error

    def wait(self, timeout_ns: int) -> bool:
        """Whether it is done, after waiting at most so long; 0 only looks.

        Raises:
            EngineError: It failed.
        """
        deadline = time.monotonic_ns() + timeout_ns
        try:
            # Tens of microseconds: the driver's blocking wait costs as much as the work.
            while not self._done.done:
                if time.monotonic_ns() >= deadline:
                    return False
                os.sched_yield()
        except RuntimeError as error:
            raise EngineError(f"{self._gpu.name} failed: {error}") from error
        return True

    def _capture(self) -> Any:
        """The work as a graph: what has `launch`, given the stream."""
        self.stream.begin_capture()
        try:
            self._enqueue(self.stream.ptr)
        finally:
            # Also after a failure, or the stream stays unusable.
            graph = self.stream.end_capture()
        return graph


class Calls:
    """What is captured, as calls: of an `Engine`, or of a `ChunkDevice`. At most one is under way.

    Args:
        shape: Of the calls.
        work: What a call is.
    """

    def __init__(self, shape: ChunkShape, work: CapturedWork) -> None:
        self.shape, self._work = shape, work
        self._is_under_way = False
        self._failure: EngineError | None = None

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
        self._work.launch()
        self._is_under_way = True

    def wait(self, timeout_ns: int) -> bool:
        """Whether the call is done."""
        if self._failure is None:
            try:
                return self._work.wait(timeout_ns)
            except EngineError as error:
                self._failure = error
        return True

    def take(self) -> None:
        """Make what the call computed the caller's to read."""
        failure, self._failure = self._failure, None
        self._is_under_way = False
        if failure is not None:
            raise failure
