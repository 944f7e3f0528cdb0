"""Networks as ONNX, written operator by operator, so that a model is the same bytes wherever it is exported.

The graph is what `module` computes: convolutions, gelu in its tanh form as one operator (opset 20), skips, and the
marks of layers beyond the ends of a shot. Chunks, layers, rows and columns are dynamic; engines fix them. Weights keep
their names, so that the network can be read back.

Precision is in the graph, as strongly typed TensorRT wants it: in "float16" everything between the casts at both ends
is float16. Inputs and outputs are float32 in both, as `device.engine` declares them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from rtqec.neural.network import INPUTS, NetworkSpec

METADATA_KEY = "rtqec.network"
"""Of the model's metadata: the network's spec, as JSON."""

OPSET = 20
"""The first with gelu as one operator."""

IR_VERSION = 10
"""That of opset 20's release; a newer one would shut out older runtimes for nothing."""

Precision = Literal["float32", "float16"]
State = dict[str, NDArray[np.floating[Any]]]
"""Weights and biases by name, as PyTorch names them."""


class ModelFileError(ValueError):
    """A file that holds no network of ours."""


class _Graph:
    """A graph under construction: names its values, keeps its nodes in order."""

    def __init__(self, spec: NetworkSpec, state: Mapping[str, NDArray[Any]], precision: Precision) -> None:
        self.spec, self.state, self.precision = spec, state, precision
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node; returns the name of its value."""
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def convolve(self, value: str, name: str) -> str:
        """A convolution that keeps the shape, with the weights `name`.weight and `name`.bias."""
        for part in (f"{name}.weight", f"{name}.bias"):
            values = np.ascontiguousarray(self.state[part], dtype=np.dtype(self.precision))
            self.weights.append(numpy_helper.from_array(values, part))
        kernel = list(self.state[f"{name}.weight"].shape[2:])
        half = [k // 2 for k in kernel]
        return self.add("Conv", value, f"{name}.weight", f"{name}.bias", kernel_shape=kernel, pads=half + half)

    def gelu(self, value: str) -> str:
        """Gelu in its tanh form."""
        return self.add("Gelu", value, approximate="tanh")


def _residual(graph: _Graph, volume: str, inside: str) -> str:
    """See `training.module.Residual.forward`."""
    x = graph.add("Mul", graph.convolve(volume, "convolutions.0"), inside)
    for i in range(1, len(graph.spec.filters)):
        step = graph.convolve(graph.gelu(x), f"convolutions.{i}")
        x = graph.add("Add", x, graph.add("Mul", step, inside))
    return graph.convolve(graph.gelu(x), "head")


def _published(graph: _Graph, volume: str, inside: str) -> str:
    """See `training.module.Published.forward`."""
    x = volume
    for i in range(len(graph.spec.filters)):
        # Convolution, dropout and activation are numbered in one sequence.
        x = graph.add("Mul", graph.convolve(graph.gelu(x) if i else x, f"net.{3 * i}"), inside)
    return x


def export_onnx(spec: NetworkSpec, state: Mapping[str, NDArray[Any]], precision: Precision = "float32") -> bytes:
    """A network as an ONNX model.

    Args:
        spec: Its shape.
        state: Its weights, by the names of `training.module`.
        precision: In which it computes; inputs and outputs are float32 in any case.

    Returns:
        The model: inputs `volume`, float32, (chunks, 4, layers, distance, distance), and `inside`, float32, (chunks, 1,
        layers, 1, 1); output `logits`, float32, (chunks, outputs, layers, distance, distance).
    """
    graph = _Graph(spec, state, precision)
    volume, inside = "volume", "inside"
    if precision == "float16":
        volume, inside = (graph.add("Cast", name, to=TensorProto.FLOAT16) for name in (volume, inside))
    answered = (_residual if spec.family == "residual" else _published)(graph, volume, inside)
    graph.add("Cast" if precision == "float16" else "Identity", answered, output="logits",
              **({"to": TensorProto.FLOAT} if precision == "float16" else {}))  # fmt: skip
    cells = ["layers", "distance", "distance"]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "rtqec",
            [
                helper.make_tensor_value_info("volume", TensorProto.FLOAT, ["chunks", INPUTS, *cells]),
                helper.make_tensor_value_info("inside", TensorProto.FLOAT, ["chunks", 1, "layers", 1, 1]),
            ],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["chunks", spec.outputs, *cells])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="rtqec",
    )
    helper.set_model_props(model, {METADATA_KEY: json.dumps(asdict(spec), sort_keys=True)})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def state_of(module: nn.Module) -> State:
    """The weights of a PyTorch module, float32."""
    return {name: values.detach().cpu().float().numpy() for name, values in module.state_dict().items()}


def write_onnx(path: Path, spec: NetworkSpec, module: nn.Module, precision: Precision = "float32") -> None:
    """Export a module to a file; see `export_onnx`."""
    path.write_bytes(export_onnx(spec, state_of(module), precision))


def spec_from_json(text: str) -> NetworkSpec:
    """The spec that was written into a model's metadata.

    Raises:
        ModelFileError: It is none.
    """
    try:
        values: dict[str, Any] = json.loads(text)
        found: dict[str, Any] = {field.name: _tuples(values[field.name]) for field in fields(NetworkSpec)}
        return NetworkSpec(**found)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelFileError(f"the metadata {METADATA_KEY} is no network's shape ({error!r}): {text[:200]}") from error


def _tuples(value: Any) -> Any:
    """Lists of JSON as the tuples they were."""
    return tuple(value) if isinstance(value, list) else value


def read_onnx(path: Path) -> tuple[NetworkSpec, State]:
    """Read back what `export_onnx` wrote.

    Returns:
        The spec; the weights by name, float32.

    Raises:
        ModelFileError: It is not such a model.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:  # protobuf's own class, which onnx does not name
        raise ModelFileError(f"{path} is no ONNX model ({error})") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in metadata:
        raise ModelFileError(f"{path} has no metadata {METADATA_KEY}: it was not exported by rtqec")
    state = {tensor.name: numpy_helper.to_array(tensor).astype(np.float32) for tensor in model.graph.initializer}
    return spec_from_json(metadata[METADATA_KEY]), state
