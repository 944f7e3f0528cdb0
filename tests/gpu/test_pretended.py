"""The TensorRT engine makes the right calls, in the right order; shown on a pretended GPU, with the real builder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtqec.device import choose, gpu, gpu_chunks, tensorrt_build, tensorrt_engine
from rtqec.device.cache import EngineCache
from rtqec.device.engine import ChunkShape, EngineError
from rtqec.device.options import EngineOptions
from rtqec.neural.network import residual_network
from tests.gpu import pretend
from tests.gpu.chunk_cases import make_tables
from tests.networks import make_input, make_trained

SHAPE = ChunkShape(chunks=2, layers=5, distance=3, outputs=2)
SPEC = residual_network(4, (3,))


def script(volume: NDArray[np.float32], inside: NDArray[np.float32]) -> NDArray[np.float32]:
    """Any function of the input."""
    return volume[:, :2] * 2 - inside


class Pretended:
    """A machine with a pretended GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: Path, folder: Path) -> None:
        self.model, self.options = model, EngineOptions(cache_folder=folder)
        self.accepts = True
        self.runtime = pretend.Runtime(
            {name: getattr(SHAPE, name) for name in ("volume", "inside", "logits")}, script, lambda _: self.accepts
        )
        real = tensorrt_build.library()
        module = _Overlaid(real.module, Runtime=lambda _: self.runtime)
        cupy = pretend.make_cupy()
        for module_ in (gpu, gpu_chunks):
            monkeypatch.setattr(module_, "cupy", lambda: cupy)
        monkeypatch.setattr(tensorrt_engine, "cupy", lambda: cupy)
        monkeypatch.setattr(tensorrt_engine, "library", lambda: dataclasses.replace(real, module=module))

    def engine(self) -> tensorrt_engine.TensorRTEngine:
        """Start."""
        return tensorrt_engine.TensorRTEngine(self.model, SHAPE, self.options)


class _Overlaid:
    """A module with some names of it replaced."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network as ONNX, in float16."""
    for name in ("torch", "onnx", "tensorrt_rtx"):
        pytest.importorskip(name, reason="needs the extras train and gpu")
    from rtqec.training.export import write_onnx

    path = tmp_path_factory.mktemp("model") / "model.onnx"
    write_onnx(path, SPEC, make_trained(SPEC), "float16")
    return path


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> Pretended:
    """With an empty cache."""
    return Pretended(monkeypatch, model, tmp_path / "cache")


def test_uploads_runs_and_downloads_as_one_graph(machine: Pretended) -> None:
    """Captured once; a call is one launch, reads the arrays as they are then, and enqueues nothing by itself."""
    engine = machine.engine()
    engine.warm()
    context = machine.runtime.contexts[0]
    calls, launches = context.calls, pretend.Graph.launches
    volume, inside = make_input(2, 5, 3)
    for scale in (1, 3):
        engine.volume[...], engine.inside[...] = volume * scale, inside
        engine.enqueue(2)
        assert engine.wait(0)
        engine.take()
        assert np.array_equal(engine.logits, script(volume * scale, inside))
    assert (context.calls, pretend.Graph.launches) == (calls, launches + 2)
    assert engine.name.startswith("tensorrt_rtx")
    assert engine.name.endswith("Pretended GPU (compute capability 12.0)")
    assert context.scratch == 1024


def test_says_whether_it_is_late(machine: Pretended) -> None:
    """A look waits for nothing and leaves the call under way; until it is taken the next one is refused."""
    engine = machine.engine()
    pretend.Event.looks_until_done = 1
    engine.enqueue(1)
    assert not engine.wait(0)
    with pytest.raises(EngineError, match="another is under way"):
        engine.enqueue(1)
    assert engine.wait(1_000_000_000)
    engine.take()


def test_a_failing_gpu_is_an_engine_error(machine: Pretended) -> None:
    """Where the launch fails, and where it fails later: then the call is done, and `take` says why."""
    engine = machine.engine()
    stream = engine._work.stream
    stream.failure = "no device"
    with pytest.raises(EngineError, match=r"Pretended GPU did not take the call: no device"):
        engine.enqueue(1)
    stream.failure = None
    engine.enqueue(1)
    pretend.Event.looks_until_done = 10**7
    assert engine.wait(10)
    with pytest.raises(EngineError, match=r"Pretended GPU failed: an illegal memory access"):
        engine.take()


def test_keeps_the_engine_and_its_kernels(machine: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start builds and stores nothing; a spoilt engine is refused."""
    machine.engine()
    cache = EngineCache(machine.options.cache_folder or Path())
    assert sorted(entry.fields.get("part", "engine") for entry in cache.list()) == ["engine", "kernels"]
    with monkeypatch.context() as patched:
        patched.setattr(EngineCache, "store", lambda *_: pytest.fail("stored again"))
        patched.setattr(tensorrt_build, "build", lambda *_: pytest.fail("built again"))
        machine.engine()
    for entry in cache.list():
        path = cache.folder / f"{entry.key}.engine"
        path.write_bytes(path.read_bytes() + b"spoilt")
    with pytest.raises(EngineError, match="has the digest"):
        machine.engine()


def test_an_engine_for_other_gpus_is_refused(machine: Pretended) -> None:
    """With GPU, compute capability, TensorRT's own reason and what to set instead."""
    machine.accepts = False
    with pytest.raises(EngineError) as refused:
        machine.engine()
    text = str(refused.value)
    assert 'is "tensorrt", but tensorrt_rtx' in text
    assert "does not run on Pretended GPU (compute capability 12.0)" in text
    assert "UNSUPPORTED_CC" in text
    assert 'Set engine = "torch" for this GPU' in text


class Kernels:
    """In place of `device.gpu_kernels`: notes what is launched. What the real ones compute: `test_chunks`."""

    unpack_chunks, answer_chunks = "unpack_chunks", "answer_chunks"

    def __init__(self) -> None:
        self.ran: list[str] = []

    def use(self, gpu_index: int) -> None:
        assert gpu_index == 0

    def shared(self, array: pretend.DeviceArray) -> NDArray[Any]:
        return array.values

    def launch(self, kernel: str, shape: ChunkShape, stream: int, *_: Any) -> None:
        assert shape == SHAPE
        pretend.Stream.by_handle[stream].put(lambda: self.ran.append(kernel))


def make_gpu_chunks(machine: Pretended, kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> gpu_chunks.GpuChunks:
    """Whole chunks around the pretended TensorRT."""
    monkeypatch.setattr(gpu_chunks, "_kernels", lambda: kernels)
    tables = make_tables(np.random.default_rng(1), SHAPE.distance)
    device = choose.make_chunks("tensorrt", machine.model, SHAPE, tables, machine.options)
    assert isinstance(device, gpu_chunks.GpuChunks)
    return device


def test_a_whole_chunk_is_one_graph(machine: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is one launch of the graph that was captured: kernels before and after TensorRT's, enqueued by nobody."""
    kernels = Kernels()
    device = make_gpu_chunks(machine, kernels, monkeypatch)
    context = machine.runtime.contexts[0]
    calls, launches = context.calls, pretend.Graph.launches
    kernels.ran.clear()
    device.warm()
    assert (context.calls, pretend.Graph.launches) == (calls, launches + 1)
    assert kernels.ran == ["unpack_chunks", "answer_chunks"]
    assert device.name.endswith("(compute capability 12.0), whole chunk on the GPU")
    assert np.array_equal(
        device.answers().reshape(SHAPE.logits), script(np.zeros(SHAPE.volume), np.zeros(SHAPE.inside))
    )
    cache = EngineCache(machine.options.cache_folder or Path())
    assert sorted(entry.fields.get("part", "engine") for entry in cache.list()) == ["engine", "kernels"]


def test_a_whole_chunk_may_be_late_or_fail(machine: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an engine's calls: late ones stay under way, failed ones say so when they are taken."""
    device = make_gpu_chunks(machine, Kernels(), monkeypatch)
    pretend.Event.looks_until_done = 1
    device.enqueue(1)
    assert not device.wait(0)
    with pytest.raises(EngineError, match="another is under way"):
        device.enqueue(1)
    assert device.wait(1_000_000_000)
    device.take()
    device._work.stream.failure = "no device"
    with pytest.raises(EngineError, match=r"Pretended GPU did not take the call: no device"):
        device.enqueue(1)
    device._work.stream.failure = None
    device.enqueue(1)
    pretend.Event.looks_until_done = 10**7
    assert device.wait(10)
    with pytest.raises(EngineError, match=r"Pretended GPU failed: an illegal memory access"):
        device.take()


def test_kernels_that_do_not_compile_are_an_engine_error(machine: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever numba raises of a driver or a toolkit: the lane goes on without the network, and says why."""
    kernels = Kernels()
    monkeypatch.setattr(kernels, "launch", lambda *_: (_ for _ in ()).throw(ValueError("no NVVM")))
    with pytest.raises(EngineError, match=r"the chunk's kernels cannot be put on Pretended GPU: no NVVM"):
        make_gpu_chunks(machine, kernels, monkeypatch)
