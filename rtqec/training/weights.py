"""Weights as files: safetensors with the network's shape in the metadata, and ONNX beside it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from rtqec.errors import ConfigError
from rtqec.neural.card import FileRecord, file_digest
from rtqec.neural.network import NetworkSpec
from rtqec.training.export import METADATA_KEY, ModelFileError, spec_from_json, write_onnx
from rtqec.training.module import make_module


def save_model(
    folder: Path, name: str, spec: NetworkSpec, module: nn.Module
) -> tuple[FileRecord, tuple[FileRecord, ...]]:
    """Write `name`.safetensors, and as ONNX `name`.onnx (float32) and `name`.fp16.onnx, for engines that compute in the
    precision that the file carries; returns their digests.
    """
    state = {key: tensor.detach().float().cpu().contiguous() for key, tensor in module.state_dict().items()}
    weights = folder / f"{name}.safetensors"
    single, half = folder / f"{name}.onnx", folder / f"{name}.fp16.onnx"
    # Not `save_file`: what it writes only its owner may read, and a daemon is somebody else.
    weights.write_bytes(save(state, {METADATA_KEY: json.dumps(asdict(spec), sort_keys=True)}))
    write_onnx(single, spec, module)
    write_onnx(half, spec, module, "float16")
    return _record(weights), (_record(single), _record(half))


def _record(path: Path) -> FileRecord:
    return FileRecord(name=path.name, sha256=file_digest(path))


def load_weights(path: Path) -> tuple[NetworkSpec, dict[str, torch.Tensor]]:
    """Read what `save_model` wrote.

    Raises:
        ConfigError: It is no such file, or its tensors are not those of its network.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            shape = (opened.metadata() or {}).get(METADATA_KEY, "")
            state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no mapping)
        spec = spec_from_json(shape)
    except (OSError, SafetensorError, ModelFileError) as error:
        raise _refusal(path, f"holds no network of rtqec: {error}") from error
    check_state(path, spec, state)
    return spec, state


def check_state(path: Path, spec: NetworkSpec, state: dict[str, torch.Tensor]) -> None:
    """Refuse weights that are not those of a network.

    Raises:
        ConfigError: A tensor is missing, too many, or of another shape.
    """
    wanted = {key: tuple(tensor.shape) for key, tensor in make_module(spec).state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise _refusal(path, f"has tensor {key} of shape {found.get(key)}; the network asks for {wanted.get(key)}")


def _refusal(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"weights {path}", f"{found}.", "Other weights would answer at random.",
        "Name a NAME.safetensors that rtqec train wrote, or the [network] that belongs to it.",
    )  # fmt: skip
