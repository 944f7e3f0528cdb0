"""The published pre-decoders' weights, loaded as they are: safetensors with their names, metadata and precision; or the
convolutions of an exported ONNX.

That ONNX goes from detectors to a residual in one piece, so nobody could check that the decoding problem stayed the
same: its network is taken out, and run between our own kernels like any other.

Source: NVIDIA/Ising-Decoding (Apache-2.0), read in July 2026. The weights themselves are under NVIDIA's Open Model
License and are not part of this project.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors import SafetensorError, safe_open

from rtqec.errors import ConfigError
from rtqec.neural.network import INPUTS, PUBLISHED, NetworkSpec

MODEL_VERSION = "predecoder_memory_v1"
"""Of the convolutional models for surface codes; the other one is for colour codes."""

_TYPES = {"fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32)}

_PREFIX = "module."
"""Before each name where a model was saved from within a wrapper for several GPUs."""

_REGISTRY = f"The architectures by id: {', '.join(map(str, PUBLISHED))}; 1 is Fast, 4 is Accurate."


def load_published(path: Path) -> tuple[NetworkSpec, dict[str, NDArray[np.floating[Any]]]]:
    """Load a published model.

    Args:
        path: A safetensors file.

    Returns:
        Its shape; its weights by the names of `training.module.Published`, in the file's precision.

    Raises:
        ConfigError: It is no such file, or its tensors are not those of the architecture that its metadata names.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name.removeprefix(_PREFIX): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            str(path),
            f"cannot be read as safetensors: {error}.",
            "Published weights come in that format.",
            "Download the file again; the .pt files beside it are not read.",
        ) from error
    spec = _spec_of(path, metadata)
    _check_shapes(path, spec, metadata["model_id"], tensors)
    wanted = _TYPES.get(quantisation := metadata.get("quant_format", ""))
    for name, values in tensors.items():
        if values.dtype != wanted:
            raise ConfigError(
                f"{path} {name}",
                f'is {values.dtype}, but the metadata quant_format is "{quantisation}".',
                'Either "fp16" with float16 or "fp32" with float32 is known.',
                "Download the file again.",
            )
    return spec, tensors


def load_published_onnx(path: Path) -> tuple[NetworkSpec, dict[str, NDArray[np.floating[Any]]]]:
    """Take the network out of a published ONNX from detectors (`dets`) to a residual (`L_and_residual_dets`).

    Args:
        path: The file, in float32 or float16. Distance, rounds and basis that it was made for are not used.

    Returns:
        As `load_published`. The architecture is found by its convolutions, which no two share.

    Raises:
        ConfigError: It is no such file, or quantised, or its convolutions are those of no published architecture.
    """
    try:
        graph = onnx.load_model_from_string(path.read_bytes()).graph
    except Exception as error:  # protobuf's own class, which onnx does not name
        raise ConfigError(
            str(path), f"cannot be read as ONNX: {error}.", "Published models are exported to that format.",
            "Export it again, or name the safetensors.",
        ) from error  # fmt: skip
    inputs = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    if inputs != {"dets"}:
        raise ConfigError(
            str(path), f'has the inputs {sorted(inputs)}, and "dets" alone is wanted.',
            "A published ONNX reads detectors.", "Name one, or a model that `rtqec train` wrote.",
        )  # fmt: skip
    constants = {tensor.name: tensor for tensor in graph.initializer}
    # The exporter may leave weights as nodes, and precision as a cast behind them.
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
        elif node.op_type in ("Cast", "Identity") and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    tensors: dict[str, NDArray[Any]] = {}
    for at, node in enumerate(node for node in graph.node if node.op_type == "Conv"):
        for part, name in zip(("weight", "bias"), node.input[1:], strict=False):
            if name not in constants:
                raise ConfigError(
                    f"{path} {name}",
                    "is computed in the graph, as in a quantised model.",
                    "Weights are taken as they are stored, and these are stored as something else.",
                    "Export the model in float32 or float16, or name the safetensors.",
                )
            tensors[f"net.{3 * at}.{part}"] = numpy_helper.to_array(constants[name])
    found = {name: values.shape for name, values in tensors.items()}
    for spec in PUBLISHED.values():
        if published_shapes(spec) == found:
            return spec, tensors
    raise ConfigError(
        str(path),
        f"has convolutions of the shapes {[shape for name, shape in found.items() if name.endswith('weight')]}, "
        "which no published architecture has.",
        _REGISTRY,
        "Name a published model, or train one with `rtqec train`.",
    )


def published_shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published architecture's tensors."""
    widths = [INPUTS, *spec.filters]
    shapes: dict[str, tuple[int, ...]] = {}
    for i, kernel in enumerate(spec.space_kernels):
        shapes[f"net.{3 * i}.weight"] = (widths[i + 1], widths[i], kernel, kernel, kernel)
        shapes[f"net.{3 * i}.bias"] = (widths[i + 1],)
    return shapes


def _spec_of(path: Path, metadata: dict[str, str]) -> NetworkSpec:
    """The architecture that the metadata names."""
    version, model_id = metadata.get("model_version", MODEL_VERSION), metadata.get("model_id", "")
    if version != MODEL_VERSION:
        raise ConfigError(
            f"{path} model_version",
            f'is "{version}", and "{MODEL_VERSION}" is known.',
            "Models for colour codes have another architecture and another layout.",
            "Name a model for surface codes.",
        )
    if not model_id.isdecimal() or int(model_id) not in PUBLISHED:
        raise ConfigError(
            f"{path} model_id",
            f'is "{model_id}", which is no architecture that is known.',
            _REGISTRY,
            "Name a published model, or train one with `rtqec train`.",
        )
    spec = PUBLISHED[int(model_id)]
    stated = {
        "num_filters": list(spec.filters),
        "kernel_size": list(spec.space_kernels),
        "receptive_field": 1 + 2 * spec.halo,
    }
    for key, wanted in stated.items():
        if key in metadata and _parse(metadata[key]) != wanted:
            raise ConfigError(
                f"{path} {key}",
                f"is {metadata[key]}, but the architecture {model_id} has {wanted}.",
                _REGISTRY,
                "Name a published model, or train one with `rtqec train`.",
            )
    return spec


def _check_shapes(path: Path, spec: NetworkSpec, model_id: str, tensors: dict[str, NDArray[Any]]) -> None:
    """Refuse tensors that are not those of an architecture."""
    shapes = published_shapes(spec)
    for name in sorted(shapes.keys() | tensors.keys()):
        found = tensors[name].shape if name in tensors else None
        wanted = shapes.get(name)
        if found != wanted:
            raise ConfigError(
                f"{path} {name}",
                f"has the shape {found or 'of none: it is missing'}, and {wanted or 'no such tensor'} is wanted.",
                f"The metadata says model_id {model_id}, whose convolutions have {list(spec.filters)} filters and "
                f"kernels {list(spec.space_kernels)}.",
                "Download the file again, or correct its metadata if you made it yourself.",
            )


def _parse(text: str) -> Any:
    """A metadata value; all are strings."""
    try:
        return json.loads(text)
    except ValueError:
        return text
