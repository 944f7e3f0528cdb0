"""Checkpoints: what a training needs to go on as if it had never stopped, written so that one is always whole."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from rtqec.errors import ConfigError
from rtqec.training.config import TrainConfig

NAME = "checkpoint.pt"
_FREE = {"shots", "hours", "threads", "workers", "checkpoint_minutes", "device"}
"""Keys of `[training]` that may differ when a run is resumed: how long, where, and with how many threads."""


def identity(config: TrainConfig) -> dict[str, Any]:
    """What must not change between a checkpoint and its continuation, by table."""
    tables = config.model_dump(mode="json", include={"network", "volume", "training"})
    tables["training"] = {key: value for key, value in tables["training"].items() if key not in _FREE}
    return tables


def save_checkpoint(folder: Path, config: TrainConfig, state: dict[str, Any]) -> None:
    """Write a checkpoint; a crash or a full disk leaves the one before."""
    path, fresh = folder / NAME, folder / f"{NAME}.new"
    with fresh.open("wb") as opened:
        torch.save(state | {"identity": identity(config)}, opened)
        opened.flush()
        os.fsync(opened.fileno())
    fresh.replace(path)


def load_checkpoint(folder: Path, config: TrainConfig) -> dict[str, Any]:
    """Read the checkpoint of a folder.

    Raises:
        ConfigError: There is none, it cannot be read, or it belongs to another configuration.
    """
    path = folder / NAME
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        before = state["identity"]
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(
            "--resume", f"finds no checkpoint in {path}: {str(error).splitlines()[0]}",
            "There is nothing to go on from.", "Leave --resume out, or correct [output] folder.",
        ) from error  # fmt: skip
    now = identity(config)
    for table in now:
        if before.get(table) != now[table]:
            raise ConfigError(
                "--resume", f"finds another [{table}] in {path}: {_difference(before.get(table), now[table])}.",
                "Half of a run with other data or another network is no run that a model card could describe.",
                f"Restore [{table}], or begin a run of its own, with [training] start if it shall build on this one.",
            )  # fmt: skip
    return state


def _difference(before: Any, now: Any) -> str:
    """The first key that differs, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        key = next(key for key in before | now if before.get(key) != now.get(key))
        return f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
    return f"it was {before!r} and is {now!r}"
