"""A GPU that is this process: CuPy's and TensorRT's calls as the engines make them, on host memory.

It shows that the right calls are made in the right order, once captured and then replayed; nothing about a real GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Work = Callable[[], None]


class Stream:
    """Executes at once, or records while it is captured."""

    by_handle: ClassVar[dict[int, Stream]] = {}

    def __init__(self, non_blocking: bool) -> None:
        assert non_blocking, "the default stream would wait for this one"
        self.ptr = len(Stream.by_handle) + 1
        self.recording: list[Work] | None = None
        self.failure: str | None = None
        Stream.by_handle[self.ptr] = self

    def put(self, work: Work) -> None:
        """Enqueue."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def synchronize(self) -> None:
        """Nothing is pending."""

    def begin_capture(self) -> None:
        """Record from here."""
        assert self.recording is None
        self.recording = []

    def end_capture(self) -> Graph:
        """Record no more."""
        assert self.recording is not None
        recorded, self.recording = self.recording, None
        return Graph(recorded)


class Graph:
    """What was recorded."""

    launches = 0

    def __init__(self, recorded: list[Work]) -> None:
        self.recorded = recorded

    def launch(self, stream: Stream) -> None:
        """Play it."""
        Graph.launches += 1
        if stream.failure:
            raise RuntimeError(stream.failure)
        for work in self.recorded:
            work()


class Event:
    """Done after as many looks as a test wants."""

    looks_until_done = 0

    def __init__(self, disable_timing: bool) -> None:
        assert disable_timing
        self._looks = 0

    def record(self, _: Stream) -> None:
        """Begin anew."""
        self._looks = 0

    @property
    def done(self) -> bool:
        """Whether it is over; too many looks to come are a failure of the GPU."""
        if Event.looks_until_done > 10**6:
            raise RuntimeError("an illegal memory access was encountered")
        self._looks += 1
        return self._looks > Event.looks_until_done


class DeviceArray:
    """An array with an address; a piece of it shares its memory, as CuPy's does."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values
        self.data = SimpleNamespace(ptr=values.ctypes.data)
        self.__cuda_array_interface__ = {"data": (values.ctypes.data, False)}

    def __getitem__(self, part: slice) -> DeviceArray:
        return DeviceArray(self.values[part])

    def view(self, dtype: Any) -> DeviceArray:
        """The same bytes as another type."""
        return DeviceArray(self.values.view(dtype))

    def reshape(self, *shape: Any) -> DeviceArray:
        """The same values in another shape."""
        return DeviceArray(self.values.reshape(*shape))


def _copy(target: int, source: int, num_bytes: int, _: int, stream: int) -> None:
    Stream.by_handle[stream].put(lambda: ctypes.memmove(target, source, num_bytes) and None)


def make_cupy() -> Any:
    """CuPy, as far as the engines use it."""
    Event.looks_until_done, Graph.launches = 0, 0
    runtime = SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda _: {"name": b"Pretended GPU", "major": 12, "minor": 0},
        memcpyAsync=_copy,
        memcpyHostToDevice=1,
        memcpyDeviceToHost=2,
    )
    device = SimpleNamespace(use=lambda: None, synchronize=lambda: None)
    cuda = SimpleNamespace(
        runtime=runtime, Stream=Stream, Event=Event, Device=lambda _: device,
        alloc_pinned_memory=lambda size: bytearray(size + 64), alloc=lambda size: SimpleNamespace(ptr=4096, size=size),
    )  # fmt: skip
    return SimpleNamespace(
        cuda=cuda, float32=np.float32, uint8=np.uint8, zeros=lambda shape, dtype: DeviceArray(np.zeros(shape, dtype)),
        asarray=lambda values: DeviceArray(values.copy()),
    )  # fmt: skip


Answer = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


class Context:
    """An execution context that runs a function."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], answer: Answer, config: Any) -> None:
        self._shapes, self._answer, self.config = shapes, answer, config
        self._addresses: dict[str, int] = {}
        self.scratch = 0
        self.calls = 0
        self.refuses = False

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Bind."""
        self._addresses[name] = address
        return True

    def set_device_memory(self, _: int, num_bytes: int) -> None:
        """Memory for what is between."""
        self.scratch = num_bytes

    def is_stream_capturable(self, _: int) -> bool:
        """Yes: no memory is allocated at run time."""
        return self.scratch > 0

    def execute_async_v3(self, stream: int) -> bool:
        """Enqueue."""
        self.calls += 1
        Stream.by_handle[stream].put(self._run)
        return not self.refuses

    def _array(self, name: str) -> NDArray[np.float32]:
        shape = self._shapes[name]
        size = 4 * int(np.prod(shape))
        return np.frombuffer((ctypes.c_char * size).from_address(self._addresses[name]), np.float32).reshape(shape)

    def _run(self) -> None:
        self._array("logits")[...] = self._answer(self._array("volume"), self._array("inside"))


class Runtime:
    """TensorRT's runtime: knows one engine."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], answer: Answer, accepts: Callable[[bytes], bool]) -> None:
        self._shapes, self._answer, self._accepts = shapes, answer, accepts
        self.contexts: list[Context] = []

    def deserialize_cuda_engine(self, engine: bytes) -> Any:
        """The engine, where it is one for this GPU."""
        if not self._accepts(engine):
            return None

        def make_config() -> Any:
            kernels = SimpleNamespace(deserialize=lambda blob: blob == b"kernels", serialize=lambda: b"kernels")
            config = SimpleNamespace(kernels=kernels, strategy=None, cache=None)
            config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
            config.create_runtime_cache = lambda: kernels
            config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
            return config

        def make_context(config: Any) -> Context:
            self.contexts.append(Context(self._shapes, self._answer, config))
            return self.contexts[-1]

        return SimpleNamespace(
            create_runtime_config=make_config, create_execution_context=make_context, device_memory_size_v2=1024
        )

    def get_engine_validity(self, engine: bytes) -> tuple[int, int]:
        """Why not."""
        return (0, 0) if self._accepts(engine) else (2, 2)
