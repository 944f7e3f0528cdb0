"""Engines on a real GPU answer as PyTorch on the CPU does. Skipped where there is no GPU, saying so."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from rtqec.device.choose import make_chunks, make_engine
from rtqec.device.chunks import INPUTS, OUTPUTS, HostChunks
from rtqec.device.engine import ChunkShape, Engine, EngineError, ScriptedEngine
from rtqec.device.options import EngineOptions
from rtqec.neural.network import residual_network
from tests.gpu.chunk_cases import fill, make_tables
from tests.networks import answer, make_input, make_trained

SPEC = residual_network(32, (3, 1, 3, 1))
SHAPE = ChunkShape(chunks=2, layers=13, distance=7, outputs=2)
SECOND = 1_000_000_000

BOUNDS = {"float32": 1e-2, "float16": 3e-2}
"""|engine - PyTorch| <= this x (1 + |logit|). float32 leaves room for TF32, which GPUs may compute convolutions in."""


def _has_driver() -> bool:
    """Whether there is a driver; asked without CuPy, which takes seconds to import."""
    try:
        return ctypes.CDLL("libcuda.so.1").cuInit(0) == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not _has_driver(), reason="needs a GPU: no CUDA driver here, so no engine runs on one")


@pytest.fixture(scope="module", params=["float32", "float16"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    """Precision, module on the CPU, and the model."""
    from rtqec.training.export import write_onnx

    module = make_trained(SPEC)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    write_onnx(path, SPEC, module, request.param)
    return request.param, module, path


@pytest.fixture(params=["tensorrt", "torch"])
def engine(request: pytest.FixtureRequest, case: tuple[str, Any, Path], tmp_path: Path) -> Engine:
    """Engines that run on this GPU. TensorRT-RTX does not list all of them: then it must say so."""
    precision, _, path = case
    options = EngineOptions(precision=precision if request.param == "torch" else "auto", cache_folder=tmp_path)  # type: ignore[arg-type]
    try:
        return make_engine(request.param, path, SHAPE, options)
    except EngineError as refused:
        pytest.skip(str(refused).replace("\n", " "))


def test_answers_as_pytorch_on_the_cpu(engine: Engine, case: tuple[str, Any, Path]) -> None:
    """Within the stated bound, again and again, with layers beyond the ends."""
    precision, module, _ = case
    engine.warm()
    volume, inside = make_input(*SHAPE.inside[:1], SHAPE.layers, SHAPE.distance)
    for flip in (False, True, False):
        engine.volume[...] = np.flip(volume, axis=3) if flip else volume
        engine.inside[...] = inside
        wanted = answer(module, np.ascontiguousarray(engine.volume), inside)
        engine.enqueue(2)
        assert engine.wait(10 * SECOND)
        engine.take()
        assert np.max(np.abs(engine.logits - wanted) / (1 + np.abs(wanted))) <= BOUNDS[precision]


def test_looks_without_waiting_and_refuses_a_second_call(engine: Engine) -> None:
    """One call under way at most."""
    engine.enqueue(1)
    with pytest.raises(EngineError, match="another is under way"):
        engine.enqueue(1)
    while not engine.wait(0):
        pass
    engine.take()
    engine.enqueue(1)
    assert engine.wait(10 * SECOND)
    engine.take()


@pytest.mark.parametrize("kind", ["tensorrt", "torch"])
def test_all_of_a_chunk_on_the_gpu_is_what_the_host_makes_of_it(
    kind: Literal["tensorrt", "torch"], case: tuple[str, Any, Path], tmp_path: Path
) -> None:
    """The network's answers are PyTorch's on the host's volume, within the bound; what follows from them is equal bit
    for bit, call by call, as one graph.
    """
    precision, module, path = case
    rng = np.random.default_rng(5)
    tables = make_tables(rng, SHAPE.distance)
    options = EngineOptions(precision=precision if kind == "torch" else "auto", cache_folder=tmp_path)  # type: ignore[arg-type]
    try:
        there = make_chunks(kind, path, SHAPE, tables, options)
    except EngineError as refused:
        pytest.skip(str(refused).replace("\n", " "))
    there.warm()
    assert "whole chunk on the GPU" in there.name

    def script(volume: Any, inside: Any) -> Any:
        wanted = answer(module, np.ascontiguousarray(volume), np.ascontiguousarray(inside))
        found = there.answers().reshape(SHAPE.logits)
        assert np.max(np.abs(found - wanted) / (1 + np.abs(wanted))) <= BOUNDS[precision]
        return found

    host = HostChunks(ScriptedEngine(SHAPE, script), tables)
    for _ in range(20):
        fill(rng, SHAPE, [getattr(there, name) for name, _ in INPUTS])
        for name, _ in INPUTS:
            getattr(host, name)[...] = getattr(there, name)
        for device in (there, host):
            device.enqueue(SHAPE.chunks)
            assert device.wait(10 * SECOND)
            device.take()
        for name, _ in OUTPUTS:
            assert np.array_equal(getattr(host, name), getattr(there, name)), name
