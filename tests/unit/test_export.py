"""Exported networks compute what PyTorch computes; published weights load as they are, or are refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtqec.errors import ConfigError
from rtqec.neural.network import PUBLISHED, NetworkSpec, residual_network
from tests.networks import answer, make_input, make_trained

torch = pytest.importorskip("torch", reason="needs the extra train")
onnx = pytest.importorskip("onnx", reason="needs the extra train")
safetensors_numpy = pytest.importorskip("safetensors.numpy", reason="needs the extra train")

from rtqec.training import export, published  # noqa: E402 - behind what they need
from rtqec.training.module import make_module  # noqa: E402

FLOAT32_BOUND = 1e-4
"""|ONNX - PyTorch| <= this x (1 + |logit|), logits of trained size. Found: at most 2.2e-5, 128 channels, d=7."""

FLOAT16_BOUND = 2e-2
"""The same for float16. Found: at most 6.6e-3."""

SMALL_PUBLISHED = replace(PUBLISHED[1], filters=(8, 8, 8, 4))
SPECS = {
    "residual": residual_network(8, (3, 1, 3)),
    "wide in time": residual_network(8, (5, 3)),
    "published": SMALL_PUBLISHED,
}
SIZES = [(4, 3), (9, 5), (13, 7)]

Runtime = Callable[[bytes, dict[str, NDArray[np.float32]]], NDArray[np.float32]]


@pytest.fixture(params=["onnxruntime", "openvino"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Runtimes that others wrote."""
    if request.param == "onnxruntime":
        onnxruntime = pytest.importorskip("onnxruntime")
        return lambda model, inputs: onnxruntime.InferenceSession(model).run(None, inputs)[0]  # type: ignore[no-any-return]
    pytest.importorskip("openvino", reason="needs the extra cpu")
    from rtqec.device.openvino_engine import _openvino
    from rtqec.device.signal_stack import kept_signal_stack

    with kept_signal_stack():
        core = _openvino().Core()

    def run(model: bytes, inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        with kept_signal_stack():
            compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            return compiled(inputs)["logits"]  # type: ignore[no-any-return]

    return run


def relative(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """The largest difference, against 1 + |logit|."""
    return float(np.max(np.abs(found - wanted) / (1 + np.abs(wanted))))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("layers", "distance"), SIZES)
def test_computes_what_pytorch_computes(name: str, layers: int, distance: int, runtime: Runtime) -> None:
    """Any length and distance from one file; layers beyond the ends included."""
    module = make_trained(SPECS[name])
    volume, inside = make_input(3, layers, distance)
    wanted = answer(module, volume, inside)
    assert np.abs(wanted).max() > 3
    found = {
        precision: runtime(
            export.export_onnx(SPECS[name], export.state_of(module), precision), {"volume": volume, "inside": inside}
        )
        for precision in ("float32", "float16")
    }
    assert relative(found["float32"], wanted) <= FLOAT32_BOUND
    assert relative(found["float16"], wanted) <= FLOAT16_BOUND


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_declares_its_inputs_and_outputs(precision: export.Precision) -> None:
    """float32 at both ends whatever is between, chunks, layers and distance dynamic; precision lies in the weights."""
    spec = SPECS["residual"]
    model = onnx.load_model_from_string(export.export_onnx(spec, export.state_of(make_trained(spec)), precision))
    declared = {
        value.name: (
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in [*model.graph.input, *model.graph.output]
    }
    cells = ["layers", "distance", "distance"]
    assert declared == {
        "volume": (onnx.TensorProto.FLOAT, ["chunks", 4, *cells]),
        "inside": (onnx.TensorProto.FLOAT, ["chunks", 1, "layers", 1, 1]),
        "logits": (onnx.TensorProto.FLOAT, ["chunks", 2, *cells]),
    }
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert types == {getattr(onnx.TensorProto, {"float32": "FLOAT", "float16": "FLOAT16"}[precision])}
    assert model.opset_import[0].version >= 18


def test_is_the_same_bytes_again_and_reads_back(tmp_path: Path) -> None:
    """A digest of a model means the model; spec and weights survive the way through the file."""
    for spec in SPECS.values():
        module = make_trained(spec)
        path = tmp_path / "model.onnx"
        export.write_onnx(path, spec, module)
        assert path.read_bytes() == export.export_onnx(spec, export.state_of(module))
        found_spec, found = export.read_onnx(path)
        assert found_spec == spec
        again = make_module(spec)
        again.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in found.items()})
        volume, inside = make_input(1, 5, 3)
        assert np.array_equal(answer(again, volume, inside), answer(module, volume, inside))


def test_refuses_files_that_are_not_its_own(tmp_path: Path) -> None:
    """The message names the file and what is missing."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(export.ModelFileError, match=r"model\.onnx is no ONNX model"):
        export.read_onnx(path)
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph([], "other", [], [])).SerializeToString())
    with pytest.raises(export.ModelFileError, match=r"has no metadata rtqec\.network"):
        export.read_onnx(path)
    with pytest.raises(export.ModelFileError, match="no network's shape"):
        export.spec_from_json('{"family": "residual"}')


def save(
    path: Path, spec: NetworkSpec, number: int, quantisation: str = "fp16", prefix: str = "", **others: Any
) -> None:
    """Synthetic weights, named and described as the published ones are."""
    kind = {"fp16": np.float16, "fp32": np.float32}[quantisation]
    rng = np.random.default_rng(0)
    tensors = {
        prefix + name: (rng.standard_normal(shape, np.float32) * 0.05).astype(kind)
        for name, shape in published.published_shapes(spec).items()
    }
    metadata = {
        "model_id": str(number), "quant_format": quantisation, "model_version": "predecoder_memory_v1",
        "receptive_field": str(1 + 2 * spec.halo), "num_filters": json.dumps(spec.filters),
        "kernel_size": json.dumps(spec.space_kernels),
    }  # fmt: skip
    tensors |= {key: value for key, value in others.items() if isinstance(value, np.ndarray)}
    metadata |= {key: value for key, value in others.items() if isinstance(value, str)}
    safetensors_numpy.save_file(tensors, path, metadata)


@pytest.mark.parametrize("model_id", PUBLISHED)
def test_loads_published_architectures_as_they_are(model_id: int, tmp_path: Path) -> None:
    """Names, metadata and precision of every published id; the count of parameters is the published one."""
    counts = {1: 912_772, 2: 3_595_012, 3: 4_224_388, 4: 1_797_764, 5: 7_134_468}
    path = tmp_path / "published.safetensors"
    save(path, PUBLISHED[model_id], model_id, prefix="module." if model_id == 4 else "")
    spec, state = published.load_published(path)
    assert spec == PUBLISHED[model_id]
    assert sum(values.size for values in state.values()) == counts[model_id] == spec.num_parameters
    assert {values.dtype for values in state.values()} == {np.dtype(np.float16)}
    make_module(spec).load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})


def test_runs_published_weights_as_onnx(tmp_path: Path, runtime: Runtime) -> None:
    """From safetensors to logits of the Fast architecture, in both precisions of the file."""
    volume, inside = make_input(1, 5, 5)
    for quantisation in ("fp16", "fp32"):
        path = tmp_path / f"{quantisation}.safetensors"
        save(path, PUBLISHED[1], 1, quantisation)
        spec, state = published.load_published(path)
        module = make_module(spec).eval()
        module.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
        found = runtime(export.export_onnx(spec, state), {"volume": volume, "inside": inside})
        assert relative(found, answer(module, volume, inside)) <= FLOAT32_BOUND


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            {"net.3.weight": np.zeros((64, 128, 3, 3, 3), np.float16)},
            r"net\.3\.weight has the shape \(64, 128, 3, 3, 3\), and \(128, 128, 3, 3, 3\) is wanted",
        ),
        ({"net.12.bias": np.zeros(4, np.float16)}, r"net\.12\.bias has the shape \(4,\), and no such tensor is wanted"),
        ({"net.0.bias": np.zeros(128, np.float32)}, r"net\.0\.bias is float32, .* quant_format is \"fp16\""),
        ({"model_id": "4"}, r"num_filters is \[128, 128, 128, 4\], but the architecture 4 has"),
        ({"model_id": "0"}, r'model_id is "0", which is no architecture'),
        ({"model_version": "predecoder_memory_cascade"}, r'model_version is "predecoder_memory_cascade"'),
        ({"kernel_size": "[5, 5, 5, 5]"}, r"kernel_size is \[5, 5, 5, 5\]"),
    ],
)
def test_refuses_weights_that_do_not_fit(others: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The refusal names the tensor or the key, what was found and what is wanted."""
    path = tmp_path / "published.safetensors"
    save(path, PUBLISHED[1], 1, **others)
    with pytest.raises(ConfigError, match=message):
        published.load_published(path)


def detector_input(
    spec: NetworkSpec, state: dict[str, NDArray[Any]], source: str = "dets", scale: bool = False
) -> bytes:
    """An ONNX as the published exporter writes it, as far as convolutions go: names lost, one weight as a node."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, value = [], [], source
    for at in range(len(spec.filters)):
        names = []
        for part in ("weight", "bias"):
            tensor = numpy_helper.from_array(state[f"net.{3 * at}.{part}"], f"onnx::Conv_{at}{part}")
            names.append(tensor.name)
            if at or part == "bias":
                weights.append(tensor)
            else:
                nodes.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
        if scale:
            nodes.append(helper.make_node("Mul", [names[0], names[0]], [f"scaled_{at}"]))
            names[0] = f"scaled_{at}"
        nodes.append(helper.make_node("Conv", [value, *names], [f"value_{at}"]))
        value = f"value_{at}"
    graph = helper.make_graph(
        nodes, "main", [helper.make_tensor_value_info(source, TensorProto.UINT8, ["batch", 336])],
        [helper.make_tensor_value_info(value, TensorProto.UINT8, ["batch", 337])], weights,
    )  # fmt: skip
    return helper.make_model(graph).SerializeToString()  # type: ignore[no-any-return]


@pytest.mark.parametrize("model_id", [1, 3, 4])
def test_takes_the_network_out_of_a_published_onnx(model_id: int, tmp_path: Path) -> None:
    """Architecture by its convolutions, weights bit for bit those of the safetensors."""
    save(tmp_path / "weights.safetensors", PUBLISHED[model_id], model_id)
    spec, state = published.load_published(tmp_path / "weights.safetensors")
    (tmp_path / "model.onnx").write_bytes(detector_input(spec, state))
    found_spec, found = published.load_published_onnx(tmp_path / "model.onnx")
    assert found_spec == PUBLISHED[model_id]
    assert found.keys() == state.keys()
    assert all(np.array_equal(found[name], state[name]) and found[name].dtype == np.float16 for name in state)


def test_refuses_other_onnx_files(tmp_path: Path) -> None:
    """Quantised weights, other inputs, other convolutions, other files: each by name."""
    path = tmp_path / "model.onnx"
    rng = np.random.default_rng(0)
    state = {n: rng.standard_normal(s, np.float32) for n, s in published.published_shapes(SMALL_PUBLISHED).items()}
    for contents, message in (
        (b"no model", "cannot be read as ONNX"),
        (detector_input(SMALL_PUBLISHED, state, "volume"), r"has the inputs \['volume'\], and \"dets\" alone"),
        (detector_input(SMALL_PUBLISHED, state, scale=True), "scaled_0 is computed in the graph, as in a quantised"),
        (
            detector_input(SMALL_PUBLISHED, state),
            r"convolutions of the shapes \[\(8, 4, 3, 3, 3\), .*, which no published",
        ),
    ):
        path.write_bytes(contents)
        with pytest.raises(ConfigError, match=message):
            published.load_published_onnx(path)


def test_refuses_a_missing_tensor_and_a_foreign_file(tmp_path: Path) -> None:
    """A wrapped model without one of its tensors; a file of another format; no file."""
    path = tmp_path / "published.safetensors"
    spec = replace(PUBLISHED[1], filters=(128, 4), space_kernels=(3, 3), time_kernels=(3, 3))
    save(path, spec, 1, num_filters="[128, 128, 128, 4]", kernel_size="[3, 3, 3, 3]", receptive_field="9")
    with pytest.raises(ConfigError, match=r"net\.\d\.\w+ has the shape"):
        published.load_published(path)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigError, match=r"cannot be read as safetensors"):
        published.load_published(path)
    with pytest.raises(ConfigError, match=r"cannot be read as safetensors"):
        published.load_published(tmp_path / "missing.safetensors")
