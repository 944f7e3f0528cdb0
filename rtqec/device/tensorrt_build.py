"""TensorRT's offline half: from ONNX to a serialised engine, and its cache. Needs no GPU with `tensorrt_rtx`.

Networks are strongly typed: precision is what the ONNX says. Shapes are fixed to the chunk's, so that nothing is
decided at run time. `tensorrt_rtx` builds for all GPUs that it knows and finishes each kernel on the one it meets;
`tensorrt` builds on and for the GPU at hand.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rtqec.device.cache import EngineCache, digest, read_model, shape_fields
from rtqec.device.engine import ChunkShape, EngineError
from rtqec.device.gpu import Gpu
from rtqec.device.options import EngineOptions
from rtqec.device.refusal import refusal

MODULES = ("tensorrt", "tensorrt_rtx")
"""In order of preference: what was tuned on the GPU at hand comes first."""

ANY_GPU = "any"
"""In place of a GPU's name, for engines that were built for all."""


@dataclass(frozen=True)
class Library:
    """TensorRT as it is installed.

    Attributes:
        name: Of the module.
        module: The module.
        logger: The one logger of the process.
    """

    name: str
    module: Any
    logger: Any

    @property
    def version(self) -> str:
        """Of the module."""
        return str(self.module.__version__)

    @property
    def is_portable(self) -> bool:
        """Whether its engines are built without a GPU and for all."""
        return self.name == "tensorrt_rtx"

    def complaints(self) -> str:
        """What it complained of since the last question, on one line."""
        lines, self.logger.lines = self.logger.lines, []
        return " | ".join(lines) or "it gave no reason"


@cache
def library() -> Library:
    """TensorRT, whichever module is installed.

    Raises:
        EngineError: None is.
    """
    reasons = []
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            reasons.append(f"{name}: {error}")
            continue
        return Library(name, module, _make_logger(module))
    raise refusal(
        "[predecode] engine",
        f'is "tensorrt", but neither of its modules can be imported: {"; ".join(reasons)}.',
        "TensorRT is not part of a plain installation.",
        "pip install 'rtqec[gpu]', or set another engine.",
    )


def _make_logger(module: Any) -> Any:
    """A logger that keeps complaints for the exception instead of writing to the terminal."""

    class Complaints(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(module.ILogger.ERROR):
                self.lines.append(message.strip())

    return Complaints()


def build(path: Path, shape: ChunkShape, options: EngineOptions) -> bytes:
    """Build an engine from an ONNX file.

    Raises:
        EngineError: TensorRT does not take it, or it is not of the wanted shape or precision.
    """
    trt = library()
    model = read_model(path)
    # Without a driver `tensorrt` gives no builder and says why to its logger. An empty network is false, so: None.
    builder = trt.module.Builder(trt.logger)
    network = builder.create_network(_network_flags(trt.module)) if builder is not None else None
    parser = trt.module.OnnxParser(network, trt.logger) if network is not None else None
    if parser is None or not parser.parse(model):
        faults = [str(parser.get_error(i).desc()) for i in range(parser.num_errors)] if parser else []
        raise _refused(path, " | ".join(faults) or trt.complaints())
    _fix_shapes(path, network, shape)
    _check_precision(path, trt.module, network, options.precision)
    config = builder.create_builder_config()
    if trt.is_portable:
        # A stream can be captured only where the runtime allocates nothing.
        config.set_flag(trt.module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise _refused(path, trt.complaints())
    return bytes(engine)


def built(path: Path, shape: ChunkShape, options: EngineOptions, gpu: Gpu | None) -> tuple[bytes, dict[str, str | int]]:
    """An engine: from the cache, or built and kept there.

    Args:
        path: The ONNX file.
        shape: Of the calls.
        options: Wishes.
        gpu: The GPU that will run it; None to build for all, which only `tensorrt_rtx` can.

    Returns:
        The engine and the fields of its key.

    Raises:
        EngineError: It cannot be built, or does not match its digest, or is not there and may not be built.
    """
    wanted = fields_of(path, shape, options, gpu)
    places = [wanted]
    if library().is_portable and gpu is not None:
        places.append(fields_of(path, shape, options, None))
    cache = EngineCache(options.cache_folder) if options.cache_folder else None
    for fields in places if cache else []:
        if cache and (kept := cache.load(fields)) is not None:
            return kept, fields
    if not options.build:
        raise refusal(
            "[predecode] build_engine",
            f"is false, and {options.cache_folder} has no engine for {path} on {wanted['gpu']}.",
            "Building takes seconds to minutes, which a lane may not have.",
            "Build it ahead with `rtqec engine build`, or set build_engine = true.",
        )
    engine = build(path, shape, options)
    if cache:
        cache.store(wanted, engine)
    return engine, wanted


def fields_of(path: Path, shape: ChunkShape, options: EngineOptions, gpu: Gpu | None) -> dict[str, str | int]:
    """What an engine is built from."""
    trt = library()
    if gpu is None and not trt.is_portable:
        raise refusal(
            "[predecode] engine",
            f'is "tensorrt" of the module {trt.name} {trt.version}, and there is no GPU to build for.',
            f"{trt.name} builds on the GPU that will run the engine.",
            "Build on that machine, or install tensorrt-rtx-cu13, which builds without one.",
        )
    return {
        "engine": trt.name, "version": trt.version, "model_sha256": digest(read_model(path)),
        "precision": options.precision, "gpu": gpu.name if gpu else ANY_GPU,
        "compute_capability": gpu.compute_capability if gpu else ANY_GPU, **shape_fields(shape),
    }  # fmt: skip


def _network_flags(module: Any) -> int:
    """Strongly typed, where that is still a choice."""
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _fix_shapes(path: Path, network: Any, shape: ChunkShape) -> None:
    """Give a parsed network the shape of the calls."""
    wanted = {"volume": shape.volume, "inside": shape.inside}
    inputs = {network.get_input(i).name: network.get_input(i) for i in range(network.num_inputs)}
    outputs = {network.get_output(i).name: network.get_output(i) for i in range(network.num_outputs)}
    if set(inputs) != set(wanted) or set(outputs) != {"logits"}:
        raise _refused(path, f"it has the inputs {sorted(inputs)} and outputs {sorted(outputs)}")
    for name, dimensions in wanted.items():
        inputs[name].shape = dimensions
    found = tuple(outputs["logits"].shape)
    if found != shape.logits:
        raise refusal(
            "[predecode] model",
            f"is {path}, which answers {found}, and {shape.logits} is asked for.",
            "Answers per cell are part of the layout that reads them.",
            "Name a model of the wanted family.",
        )


def _check_precision(path: Path, module: Any, network: Any, wanted: str) -> None:
    """Refuse a model that carries another precision than is asked for."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    types = {layer.get_output(0).dtype for layer in layers if layer.type == module.LayerType.CONVOLUTION}
    names = {module.DataType.FLOAT: "float32", module.DataType.HALF: "float16", module.DataType.BF16: "bfloat16"}
    found = sorted(names.get(kind, str(kind)) for kind in types)
    if wanted not in ("auto", *found):
        raise refusal(
            "[predecode] precision",
            f'is "{wanted}", but the convolutions of {path} are {", ".join(found)}.',
            "TensorRT computes in the precision that the model carries.",
            f'Export the model in {wanted}, or set precision = "auto".',
        )


def _refused(path: Path, why: str) -> EngineError:
    """The refusal of a model that TensorRT does not take."""
    trt = library()
    return refusal(
        "[predecode] model", f"is {path}, which {trt.name} {trt.version} does not take.", why,
        "Export it again with `rtqec train`, or set another engine.",
    )  # fmt: skip
