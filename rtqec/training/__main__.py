"""`python -m rtqec.training CONFIG`, the same as `rtqec train CONFIG`: what `torchrun -m` takes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rtqec.errors import RtqecError
from rtqec.training.config import load_train_config
from rtqec.training.run import train


def main(
    config: Annotated[Path, typer.Argument(help="A training, for example configs/train_d7_cpu.toml.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the output folder.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="table.key=value. Repeatable.")] = None,
) -> None:
    """Train a predecoder, measure it, and write its files and its card."""
    train(load_train_config(config, set_ or []), resume, Console(soft_wrap=not sys.stdout.isatty()))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # All is written, and the group has ended. A rank that takes its libraries down may still abort there, with
        # "terminate called without an active exception" (PyTorch 2.13, gloo, one run of three on a busy machine).
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    try:
        typer.run(main)
    except RtqecError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)
