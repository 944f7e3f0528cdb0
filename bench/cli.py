"""The command line of the bench."""

from __future__ import annotations

import sys

import typer

from rtqec.errors import ExitCode, RtqecError

_INTERRUPTED = 130
_EXTRA = ("hdrh", "jinja2", "matplotlib", "sinter")
"""What the extra `bench` brings, by the names under which it is imported."""


def commands() -> typer.Typer:
    """All verbs. Imported here and not above, so that a missing extra is said in words."""
    from bench.accuracy import accuracy
    from bench.compare import compare
    from bench.latency import latency
    from bench.rate import rate
    from bench.report import report
    from bench.stages import stages

    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Measure rtqec on this machine: rate, latency, stages, accuracy, and beside other decoders.",
    )
    for verb in (rate, latency, stages, accuracy, compare, report):
        app.command()(verb)
    return app


def main() -> None:
    """Entry point: exit codes are `rtqec.errors.ExitCode`; 130 where Ctrl-C stopped it."""
    try:
        commands()()
    except RtqecError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        typer.echo(f"{error.name} is not installed: the bench needs it. Run: pip install 'rtqec[bench]'", err=True)
        sys.exit(ExitCode.CONFIG)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            typer.echo("Stopped. Every row written so far is complete.", err=True)
        raise


if __name__ == "__main__":
    main()
