"""What all verbs ask for on the command line."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cases import cases_of
from bench.session import Session, open_session

ConfigArgument = Annotated[Path, typer.Argument(help="A configuration, for example configs/d5_memory_z.toml.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override one key: table.key=value. Repeatable.")]
SweepOption = Annotated[
    list[str] | None,
    typer.Option("--sweep", help="table.key=value,value,..: a case each; rounds also in distances (4d). Repeatable."),
]
RepeatsOption = Annotated[int, typer.Option(min=1, help="How often each case is measured.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of all shots drawn here.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the results; rows are appended.")]
DEFAULT_OUT = Path("bench-results")
DEFAULT_SEED = 20261121


def session_of(
    verb: str, config: Path, overrides: list[str] | None, sweeps: list[str] | None, repeats: int, seed: int, out: Path
) -> Session:
    """What a verb measures, from its command line."""
    command = shlex.join(["rtqec-bench", *sys.argv[1:]])
    return open_session(verb, cases_of(config, overrides or [], sweeps or []), repeats, seed, out, command)
