"""`rtqec audit`: read the audit log of a deployment, and check that it is as it was written."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from rtqec.config import load_config
from rtqec.errors import ConfigError, ExitCode
from rtqec.service.audit_chain import Chain, audit_files, audit_path, read_audit

audit_app = typer.Typer(no_args_is_help=True, help="What the daemon was made to do, and by whom.")

ConfigArgument = Annotated[Path, typer.Argument(help="The daemon's configuration.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override one key: table.key=value. Repeatable.")]


@audit_app.command()
def verify(config: ConfigArgument, set_: SetOption = None) -> None:
    """Check the chain of records. Exit 1 where one was changed, removed or damaged."""
    paths = _paths(config, set_)
    chain = Chain()
    for path in paths:
        chain.read(path)
    problems = chain.finish()
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"{len(paths)} file(s), last record {chain.head[0]}, its hash {chain.head[1]}")
    if problems:
        raise typer.Exit(ExitCode.FAILED)


@audit_app.command()
def show(
    config: ConfigArgument,
    skip: Annotated[int, typer.Option(min=0, help="Leave out so many of the oldest records.")] = 0,
    set_: SetOption = None,
) -> None:
    """Print the records, oldest first, one JSON object per line."""
    for record in islice(read_audit(_paths(config, set_)), skip, None):
        typer.echo(json.dumps(record))


def _paths(config: Path, set_: list[str] | None) -> list[Path]:
    path = audit_path(load_config(config, set_ or []))
    paths = audit_files(path)
    if not paths:
        raise ConfigError(
            "[service] state_dir", f"makes the audit log {str(path)!r}, which does not exist.",
            "A daemon that runs with this configuration writes it.",
            "Run this as the daemon's user, with its environment (STATE_DIRECTORY), or name the folder: "
            "--set service.state_dir=/var/lib/rtqec",
        )  # fmt: skip
    return paths
