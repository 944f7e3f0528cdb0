"""Weights that another script trained, measured and written down as `rtqec train` would have done.

    python -m rtqec.training.adopt WEIGHTS.pt CONFIG --out FOLDER [--hours H] [--set table.key=value]

CONFIG must tell the truth about the data: volumes, optimiser, network. What nobody recorded stays 0 in the card.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from rtqec.errors import ConfigError, RtqecError
from rtqec.training.config import NetworkTable, load_train_config
from rtqec.training.module import make_module
from rtqec.training.progress import Progress
from rtqec.training.record import training_record, write_model
from rtqec.training.session import judge, open_points, precision_on
from rtqec.training.sources import open_source
from rtqec.training.weights import check_state

ORIGIN = "Trained by a script of its own with rtqec's data and network; measured and written by rtqec.training.adopt."


def adopt(
    weights: Annotated[Path, typer.Argument(help="A state dict, alone or under the key net or network.")],
    config: Annotated[Path, typer.Argument(help="The configuration that describes how they were trained.")],
    out: Annotated[Path, typer.Option(help="Where the model goes.")],
    hours: Annotated[float, typer.Option(help="Spent on training, for the card.")] = 0.0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="table.key=value. Repeatable.")] = None,
) -> None:
    """Measure weights, and write NAME.safetensors, NAME.onnx, NAME.json and NAME.md."""
    loaded = load_train_config(config, set_ or [])
    threads = loaded.training.threads
    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() and loaded.training.device != "cpu" else "cpu")
    spec = (loaded.network or NetworkTable()).spec
    state, counts = _read(weights)
    check_state(weights, spec, state)
    module = make_module(spec)
    module.load_state_dict(state)
    module = module.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload, unused-ignore]
    precision = precision_on(device, loaded.training.precision)
    with Progress(Console()) as progress:
        points, judged_by = judge(
            module, spec, open_points(loaded, spec.weighs_edges), precision, progress.point
        )  # fmt: skip
    sources = [
        open_source(loaded, table, f"[[volume]] number {number}")[1] for number, table in enumerate(loaded.volume, 1)
    ]
    record = training_record(
        loaded, sources, shots=counts[0], steps=counts[1], seconds=hours * 3600, precision=precision, device=device
    )
    out.mkdir(parents=True, exist_ok=True)
    write_model(out, loaded, spec, module, record, points, judged_by, ORIGIN)
    typer.echo(f"{out / loaded.output.name}.json, .md, .safetensors and .onnx are written.")


def _read(path: Path) -> tuple[dict[str, torch.Tensor], tuple[int, int]]:
    """The tensors; shots and steps, where they are told."""
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"weights {path}", f"cannot be read: {str(error).splitlines()[0]}",
            "There is nothing to measure.", "Name a file that torch.save wrote of a state dict.",
        ) from error  # fmt: skip
    state = found.get("network", found.get("net", found))
    shots = found.get("shots", found.get("seen", 0))
    return state, (int(shots), int(found.get("step", 0)))


if __name__ == "__main__":
    try:
        typer.run(adopt)
    except RtqecError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)
