"""The command line of the daemon. Each command imports what it needs: `status` shall not wait for compilers."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from rtqec import __version__, log
from rtqec.config import load_config
from rtqec.curve import load_client_keys
from rtqec.engine_commands import engine_app
from rtqec.errors import ConfigError, ExitCode, RtqecError
from rtqec.service.ask import ask as ask_daemon
from rtqec.service.audit_commands import audit_app
from rtqec.service.keys import keys_app
from rtqec.wire import parse_correction

if TYPE_CHECKING:
    from rtqec.verify import Verdict

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Real-time quantum error correction: syndrome rounds in, Pauli-frame corrections out.",
)
app.add_typer(keys_app, name="keys")
app.add_typer(audit_app, name="audit")
app.add_typer(engine_app, name="engine")

ConfigArgument = Annotated[Path, typer.Argument(help="A configuration, for example configs/d5_memory_z.toml.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override one key: table.key=value. Repeatable.")]

KeyOption = Annotated[Path | None, typer.Option("--key", help="Your NAME.key_secret, for a daemon on tcp.")]
ServerKeyOption = Annotated[Path | None, typer.Option("--server-key", help="The daemon's NAME.key; with --key.")]
VERBS = "hello, status, frame, resend, reset, budget, ladder, swap-plan, drain or log-level; see docs/control.md."
ANSWER_TIMEOUT_S = 2.0
SWAP_TIMEOUT_S = 900.0
"""The new plan is compiled first."""


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
    from rtqec.service.supervisor import Supervisor

    loaded = load_config(config, set_ or [])
    log.configure(loaded.log.level, loaded.log.format)
    code = asyncio.run(Supervisor(loaded, config, set_ or []).run())
    if code is not ExitCode.OK:
        raise typer.Exit(code)


@app.command(hidden=True)
def lane(channel: Annotated[int, typer.Argument(help="A file descriptor.")]) -> None:
    """Be a lane of the daemon that started this process."""
    from rtqec.lane_process import main as serve_lane

    serve_lane(channel)


@app.command()
def status(
    config: ConfigArgument,
    json_: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    set_: SetOption = None,
) -> None:
    """What a running daemon does, on one screen. Exit 1 where there is none, or where a lane is down."""
    from rtqec.service.status import print_status

    raise typer.Exit(print_status(Console(), load_config(config, set_ or []), json_))


@app.command()
def top(
    config: ConfigArgument,
    interval_s: Annotated[float, typer.Option("--interval", min=0.1, max=60, help="Seconds between looks.")] = 1.0,
    set_: SetOption = None,
) -> None:
    """What a running daemon does, live. q quits."""
    from rtqec.service.top import run_top

    raise typer.Exit(run_top(load_config(config, set_ or []), interval_s))


@app.command()
def ask(
    config: ConfigArgument,
    verb: Annotated[str, typer.Argument(help=VERBS)],
    arguments: Annotated[list[str] | None, typer.Argument(help="key=value, for example patch=0 round=12.")] = None,
    set_: SetOption = None,
    key: KeyOption = None,
    server_key: ServerKeyOption = None,
) -> None:
    """Ask a running daemon, and print its answer as JSON. Exit 1 where it refuses or does not answer."""
    request: dict[str, object] = {"verb": verb}
    if verb == "swap-plan":
        request["sets"] = arguments or []
    else:
        request |= dict(_argument(argument) for argument in arguments or [])
    timeout_s = SWAP_TIMEOUT_S if verb == "swap-plan" else ANSWER_TIMEOUT_S
    if (key is None) != (server_key is None):
        raise typer.BadParameter("--key and --server-key go together: one's own secret, and whose daemon it must be")
    keys = load_client_keys(key, server_key) if key and server_key else None
    answer = ask_daemon(load_config(config, set_ or []), request, timeout_s, keys)
    typer.echo(json.dumps(answer, indent=2, default=_printable))
    if not answer["ok"]:
        raise typer.Exit(ExitCode.FAILED)


def _argument(text: str) -> tuple[str, object]:
    """One key=value of a request: a number where it is one, a list where there are commas."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"{text!r} is not key=value, for example patch=0")
    if key == "steps":
        return key, value.split(",")
    try:
        return key, int(value)
    except ValueError:
        with suppress(ValueError):
            return key, float(value)
    return key, value


def _printable(octets: bytes) -> dict[str, object]:
    """A correction of an answer, by field."""
    correction = parse_correction(octets)
    names = correction.dtype.names or ()
    return {name: correction[name].item() for name in names if name != "confidence"}


@app.command()
def check(config: ConfigArgument, set_: SetOption = None) -> None:
    """Validate, compile the plans, print what they are and cost here. Exit 2: cannot work; 1: does not keep up."""
    from rtqec.check import print_plans
    from rtqec.plan import compile_plans

    loaded = load_config(config, set_ or [])
    if not print_plans(Console(soft_wrap=not sys.stdout.isatty()), loaded, compile_plans(loaded)):
        raise typer.Exit(ExitCode.FAILED)


@app.command(name="export-cudaq")
def export_cudaq(
    config: ConfigArgument,
    out: Annotated[Path, typer.Argument(help="The decoder file to write, .yml.")],
    dem: Annotated[bool, typer.Option("--dem", help="Models as files beside it, instead of matrices.")] = False,
    set_: SetOption = None,
) -> None:
    """Write the plans as a decoder file of CUDA-Q, one decoder for each patch, numbered in their order."""
    from rtqec.cudaq.decoder_writer import write_decoder_file
    from rtqec.cudaq.plan_decoder import decoder_of_plan
    from rtqec.plan import compile_plans

    plans = compile_plans(load_config(config, set_ or []))
    for path in write_decoder_file(out, [decoder_of_plan(plan) for plan in plans], with_models=dem):
        typer.echo(f"wrote {path}")


@app.command()
def verify(
    config: ConfigArgument,
    shots: Annotated[int | None, typer.Option(min=1, help="Shots of each patch; overrides verify.shots.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers as JSON to this file.")] = None,
    set_: SetOption = None,
) -> None:
    """Compare windows with whole-shot matching on the same simulated shots. Exit 1 where windows lose accuracy."""
    from rtqec.plan import compile_plans
    from rtqec.verify import verify_plan

    overrides = [*(set_ or []), *([f"verify.shots={shots}"] if shots else [])]
    loaded = load_config(config, overrides)
    console = Console(soft_wrap=not sys.stdout.isatty())
    results = {}
    with console.status("decoding both ways") if console.is_terminal else nullcontext():
        for patch, plan in zip(loaded.patch, compile_plans(loaded), strict=True):
            results[patch.id] = verify_plan(plan, loaded.verify)
    for patch_id, verdict in results.items():
        _print_verdict(console, patch_id, verdict)
    if json_file is not None:
        patches = [{"patch_id": key} | verdict.as_json() for key, verdict in results.items()]
        json_file.write_text(json.dumps({"patches": patches}, indent=2) + "\n")
    if any(verdict.word == "violated" for verdict in results.values()):
        raise typer.Exit(ExitCode.FAILED)


def _print_verdict(console: Console, patch_id: int, verdict: Verdict) -> None:
    """One patch's comparison, for people."""
    pairing = verdict.pairing
    _, high = pairing.difference_bounds(verdict.confidence)
    table = Table(title=f"patch {patch_id}: {verdict.word}", title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, failures in (("windows", pairing.failures), ("whole shots", pairing.failures_whole_shot)):
        low, up = pairing.wilson(failures, verdict.confidence)
        table.add_row(f"failures, {name}", f"{failures} of {pairing.shots} ({low:.3g} to {up:.3g} per shot)")
    table.add_row("disagreements", f"{pairing.disagreements} ({pairing.worse} worse, {pairing.better} better), "
                                   f"McNemar p = {pairing.mcnemar_p:.3g}")  # fmt: skip
    table.add_row("worse minus better", f"at most {high:.3g} shots ({verdict.confidence:.0%}, exact); the bound is "
                                        f"{verdict.bound_shots:.3g}")  # fmt: skip
    table.add_row("unexplained", f"{pairing.unexplained} of {pairing.explained_shots} shots checked edge by edge")
    console.print(table)
    if verdict.word == "inconclusive":
        console.print("Too few disagreements to tell: the loss may or may not exceed the bound. Use more --shots.")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A training, for example configs/train_d7_cpu.toml.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the output folder.")] = False,
    set_: SetOption = None,
) -> None:
    """Train a predecoder, measure it, and write weights, ONNX and model card. SIGTERM or Ctrl-C: a checkpoint."""
    try:
        from rtqec.training.config import load_train_config
        from rtqec.training.run import train as train_network
    except ModuleNotFoundError as error:
        raise ConfigError(
            "rtqec train", f"needs {error.name}, which is not installed.",
            "Networks are trained with PyTorch, which the daemon never needs.", "pip install 'rtqec[train]'",
        ) from error  # fmt: skip
    train_network(load_train_config(config, set_ or []), resume, Console(soft_wrap=not sys.stdout.isatty()))


@app.command(name="install-systemd")
def install_units(
    prefix: Annotated[
        Path, typer.Option(help="Root of the file system to write into, of an image for example.")
    ] = Path("/"),
    bin_folder: Annotated[
        Path | None, typer.Option("--bin", help="Where the service finds rtqec and firmware-sim; by default, here.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="Of the configuration: /etc/rtqec/NAME.toml, run by rtqec@NAME.")
    ] = "example",
    drop_in: Annotated[list[str] | None, typer.Option(help="Also: cores, realtime, gpu, network. Repeatable.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite changed files, and keep them as FILE.old.")] = False,
) -> None:
    """Write systemd units, their user and folders and a first configuration; say what was done and what comes next."""
    from rtqec.service.install import install_systemd

    for line in install_systemd(prefix, bin_folder, name=name, drop_ins=drop_in or [], force=force):
        typer.echo(line)


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
