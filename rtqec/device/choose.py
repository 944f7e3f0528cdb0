"""Which engine: by name, or the best that this machine has."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from rtqec.device.chunks import ChunkDevice, ChunkTables, HostChunks
from rtqec.device.engine import ChunkShape, Engine, EngineError, NullEngine
from rtqec.device.gpu import find_gpu
from rtqec.device.options import EngineOptions
from rtqec.device.refusal import refusal
from rtqec.device.tensorrt_build import library

EngineKind = Literal["auto", "openvino", "tensorrt", "torch", "null"]


def make_engine(kind: EngineKind, model: Path, shape: ChunkShape, options: EngineOptions | None = None) -> Engine:
    """Load an engine.

    Args:
        kind: Which; "auto" is TensorRT where a GPU and its module are there, else OpenVINO.
        model: The ONNX file. The null engine reads none.
        shape: Of the calls.
        options: Wishes.

    Raises:
        EngineError: It cannot be had: says why, and what to install or to set.
    """
    options = options or EngineOptions()
    if kind == "auto":
        kind = choose_kind(options)
    if kind == "null":
        return NullEngine(shape)
    if kind == "openvino":
        from rtqec.device.openvino_engine import OpenVINOEngine

        return OpenVINOEngine(model, shape, options)
    if kind == "tensorrt":
        from rtqec.device.tensorrt_engine import TensorRTEngine

        return TensorRTEngine(model, shape, options)
    from rtqec.device.torch_engine import torch_engine

    return torch_engine(model, shape, options)


def make_chunks(
    kind: EngineKind, model: Path, shape: ChunkShape, tables: ChunkTables, options: EngineOptions | None = None
) -> ChunkDevice:
    """Load an engine, with all that surrounds the network: on the GPU where it runs there, else on the host.

    Args:
        kind: As for `make_engine`.
        model: The ONNX file.
        shape: Of the calls.
        tables: Of the patches.
        options: Wishes.

    Raises:
        EngineError: It cannot be had: says why, and what to install or to set.
    """
    options = options or EngineOptions()
    if kind == "auto":
        kind = choose_kind(options)
    if kind == "tensorrt":
        from rtqec.device.gpu_chunks import GpuChunks
        from rtqec.device.tensorrt_engine import open_network

        return GpuChunks(*open_network(model, shape, options), shape, tables)
    if kind == "torch":
        from rtqec.device.torch_engine import has_gpu

        if has_gpu():
            from rtqec.device.gpu_chunks import GpuChunks
            from rtqec.device.torch_network import open_torch_network

            return GpuChunks(*open_torch_network(model, shape, options), shape, tables)
    return HostChunks(make_engine(kind, model, shape, options), tables)


def choose_kind(options: EngineOptions) -> EngineKind:
    """The first of what "auto" may be on this machine; see `possible_kinds`."""
    return possible_kinds(options)[0]


def possible_kinds(options: EngineOptions) -> list[EngineKind]:
    """What "auto" may be on this machine, best first: an engine that is there need not take the model or the GPU.

    Raises:
        EngineError: Nothing that runs a network is installed.
    """
    kinds: list[EngineKind] = []
    try:
        # The cheap question first: importing CuPy to look for a GPU takes seconds.
        library()
        find_gpu(options.gpu_index)
    except EngineError as error:
        without_gpu = str(error).splitlines()[0]
    else:
        kinds.append("tensorrt")
    if importlib.util.find_spec("openvino") is not None:
        kinds.append("openvino")
    if kinds:
        return kinds
    raise refusal(
        "[predecode] engine",
        'is "auto", but neither TensorRT with a GPU nor OpenVINO is there.',
        f"OpenVINO is not installed, and TensorRT: {without_gpu}",
        "pip install 'rtqec[cpu]' for this CPU, or 'rtqec[gpu]' for an NVIDIA GPU.",
    )
