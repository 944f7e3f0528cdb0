"""Which engine: by name, or the best that this machine has."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

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


def choose_kind(options: EngineOptions) -> EngineKind:
    """What "auto" is on this machine.

    Raises:
        EngineError: Nothing that runs a network is installed.
    """
    try:
        # The cheap question first: importing CuPy to look for a GPU takes seconds.
        library()
        find_gpu(options.gpu_index)
    except EngineError as error:
        without_gpu = str(error).splitlines()[0]
    else:
        return "tensorrt"
    if importlib.util.find_spec("openvino") is not None:
        return "openvino"
    raise refusal(
        "[predecode] engine",
        'is "auto", but neither TensorRT with a GPU nor OpenVINO is there.',
        f"OpenVINO is not installed, and TensorRT: {without_gpu}",
        "pip install 'rtqec[cpu]' for this CPU, or 'rtqec[gpu]' for an NVIDIA GPU.",
    )
