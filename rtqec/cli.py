"""The command line of the daemon."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from rtqec import __version__, log
from rtqec.config import load_config
from rtqec.errors import ExitCode, RtqecError
from rtqec.lane import Lane

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                  help="Real-time quantum error correction: syndrome rounds in, Pauli-frame corrections out.")  # fmt: skip

ConfigArgument = Annotated[Path, typer.Argument(help="A configuration, for example configs/d5_memory_z.toml.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override one key: table.key=value. Repeatable.")]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"rtqec {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Real-time quantum error correction: syndrome rounds in, Pauli-frame corrections out."""


@app.command()
def run(config: ConfigArgument, set_: SetOption = None) -> None:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C. A service manager runs the same."""
    loaded = load_config(config, set_ or [])
    log.configure(loaded.log.level, loaded.log.format)
    stop_asked = False

    def ask_stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stop_asked
        stop_asked = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_stop)
    lane = Lane(loaded)
    lane.start()
    while lane.alive and not stop_asked:
        signal.sigtimedwait([], 0.2)
    lane.stop()


def main() -> None:
    """Entry point: exit codes are `rtqec.errors.ExitCode`."""
    try:
        app()
    except RtqecError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.OK)


if __name__ == "__main__":
    main()
