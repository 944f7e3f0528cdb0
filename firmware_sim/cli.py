"""The command line of the simulated controller."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from firmware_sim.chaos import episode_line, print_chaos, run_chaos
from firmware_sim.connection import client_keys
from firmware_sim.controller import Controller
from firmware_sim.cudaq_replay import replay_syndromes
from firmware_sim.deaths import DeathPlan, Signal
from firmware_sim.faults import fault_from_text
from firmware_sim.journal import journal_of_blocks, journal_over_control
from firmware_sim.lanes import lanes_of
from firmware_sim.loop import run_loop
from firmware_sim.report import DaemonCounts, build_report, problems_of
from firmware_sim.summary import print_report
from rtqec.client import CudaqClient
from rtqec.config import Config, load_config, with_faults
from rtqec.cudaq.syndromes import read_syndromes
from rtqec.errors import ConfigError, ExitCode, FaultError, RtqecError
from rtqec.plan import compile_plans
from rtqec.telemetry import TelemetryBlock, telemetry_path

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A simulated FPGA controller: sends syndrome rounds by the clock, checks every correction.",
)

INTERRUPTED = 130
"""What a shell reports of a command that SIGINT ended."""

ConfigArgument = Annotated[Path, typer.Argument(help="A configuration, for example configs/d5_memory_z.toml.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override one key: table.key=value. Repeatable.")]
ShotsOption = Annotated[int | None, typer.Option(min=1, help="Shots of each patch; overrides source.shots.")]
RoundsOption = Annotated[int | None, typer.Option(min=1, help="Rounds of an endless stream; overrides source.rounds.")]
PeriodOption = Annotated[float | None, typer.Option(help="Round period; overrides pace.period_us.")]
FaultOption = Annotated[
    list[str] | None,
    typer.Option("--fault", help="Add a [[fault]]: NAME:key=value,key=value; drop:probability=0.001. Repeatable."),
]
JournalOption = Annotated[
    bool,
    typer.Option("--journal", help="Lanes may die: look up corrections that do not come in the daemon's journal."),
]
ReportOption = Annotated[Path | None, typer.Option(help="Write the report as JSON to this file.")]


@app.command()
def loop(
    config: ConfigArgument,
    report: ReportOption = None,
    shots: ShotsOption = None,
    rounds: RoundsOption = None,
    period_us: PeriodOption = None,
    set_: SetOption = None,
    fault: FaultOption = None,
    kill_lane: Annotated[str | None, typer.Option(help="Kill a lane while rounds are sent: lane0.")] = None,
    kills: Annotated[int, typer.Option(min=1, help="How often, after equal parts of the rounds.")] = 10,
    kill_signal: Annotated[Signal, typer.Option(help="KILL: it dies at once. STOP: it hangs.")] = Signal.KILL,
) -> None:
    """Start a daemon, feed it, check every correction, report. Exit 1 where a check does not hold."""
    overrides = _overrides(shots, rounds, period_us, set_)
    loaded = _load(config, overrides, fault)
    deaths = DeathPlan(kill_lane, kills, kill_signal) if kill_lane is not None else None
    with _live_progress() as on_progress:
        result = run_loop(loaded, str(config), overrides, _command(), on_progress, deaths)
    _finish(result, report)


@app.command()
def run(
    config: ConfigArgument,
    report: ReportOption = None,
    shots: ShotsOption = None,
    rounds: RoundsOption = None,
    period_us: PeriodOption = None,
    set_: SetOption = None,
    fault: FaultOption = None,
    journal: JournalOption = False,
) -> None:
    """Feed a daemon that runs somewhere, and check every correction. Exit 1 where a check does not hold."""
    loaded = _load(config, _overrides(shots, rounds, period_us, set_), fault)
    controller = Controller(loaded, compile_plans(loaded))
    blocks = _blocks_beside(loaded)
    if journal:
        beside = len(blocks) == loaded.lane.count
        kept = journal_of_blocks(blocks) if beside else journal_over_control(loaded, client_keys(loaded))
        controller.use_journal(kept)
    # The daemon may have served others before: only what it counts from now on is ours.
    before = DaemonCounts.read(*blocks) if blocks else None
    with _live_progress() as on_progress:
        controller.run(lambda: on_progress(controller))
    counts = DaemonCounts.read(*blocks) - before if before else None
    _finish(build_report(controller, counts, None, _command()), report)


def _blocks_beside(config: Config) -> list[TelemetryBlock]:
    """The telemetry blocks of the daemon's lanes, where it runs on this machine. What another version has left there is
    passed over: without the daemon's counts the report says less.
    """
    blocks = []
    for lane in lanes_of(config):
        with suppress(FileNotFoundError, FaultError):
            blocks.append(TelemetryBlock.attach(telemetry_path(lane)))
    return blocks


@app.command()
def chaos(
    config: ConfigArgument,
    minutes: Annotated[float, typer.Option(min=0.01, help="How long streams last, all together.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that goes wrong.")] = 1,
    report: ReportOption = None,
    set_: SetOption = None,
) -> None:
    """Let everything go wrong around a daemon, and check every correction to the bit. Exit 1 where one is not right."""
    # A lane that is paused here must not be taken for one that hangs.
    overrides = ["log.level=warning", "service.lane_timeout_ms=10000", *(set_ or [])]
    loaded = _load(config, overrides)
    console = Console(stderr=True, soft_wrap=True)

    def say(episode: dict[str, Any]) -> None:
        if sys.stderr.isatty():
            console.print(episode_line(episode), highlight=False)

    try:
        result = run_chaos(loaded, str(config), overrides, minutes, seed, _command(), say)
    except KeyboardInterrupt:
        raise _stopped_by_the_user() from None
    if report is not None:
        report.write_text(json.dumps(result, indent=2) + "\n")
    print_chaos(Console(soft_wrap=not sys.stdout.isatty()), result)
    if result["violations"]:
        raise typer.Exit(ExitCode.FAILED)


@app.command(name="replay-cudaq")
def replay_cudaq(
    syndromes: Annotated[Path, typer.Argument(help="A syndrome file of CUDA-Q.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="UDP port of the decoder.")],
    host: Annotated[str, typer.Option(help="Where its server listens.")] = "127.0.0.1",
    decoder: Annotated[int, typer.Option(min=0, help="Number of the decoder.")] = 0,
    slot_bytes: Annotated[int, typer.Option(min=57, help="Longest request that the server takes.")] = 256,
) -> None:
    """Play shots to a decoding server over UDP, and compare its corrections. Exit 1 where one differs."""
    found = read_syndromes(syndromes)
    with CudaqClient((host, port), decoder, found.num_observables, slot_bytes=slot_bytes) as client:
        replayed = replay_syndromes(found, client)
    typer.echo(str(replayed))
    if replayed.wrong:
        raise typer.Exit(ExitCode.FAILED)


def _load(path: Path, overrides: list[str], faults: list[str] | None = None) -> Config:
    """The configuration with the faults of the command line.

    Raises:
        ConfigError: Something is wrong in it, or its daemon takes no rounds.
    """
    config = with_faults(load_config(path, overrides), [fault_from_text(text) for text in faults or []])
    if config.listen.cudaq is not None:
        raise ConfigError(
            "[listen.cudaq]", "is what the daemon of this configuration listens to; firmware-sim sends over ZeroMQ.",
            "Over CUDA-Q's wire a program asks for the corrections of shots; those of windows are not sent.",
            "Play shots with firmware-sim replay-cudaq, or give [feed] and [publish] an endpoint each instead. A "
            "decoder file listens so by itself: name it in a configuration, [plan] cudaq.",
        )  # fmt: skip
    return config


def _overrides(shots: int | None, rounds: int | None, period_us: float | None, set_: list[str] | None) -> list[str]:
    """The short options as `--set` pairs."""
    pairs = {"source.shots": shots, "source.rounds": rounds, "pace.period_us": period_us}
    return [*(set_ or []), *(f"{key}={value}" for key, value in pairs.items() if value is not None)]


def _stopped_by_the_user() -> typer.Exit:
    """Say that a run has no result; the exit to raise."""
    typer.echo("stopped by the user; the run is not complete, and no report was written.", err=True)
    return typer.Exit(INTERRUPTED)


def _command() -> str:
    """This very command line, quoted for a shell."""
    return shlex.join(["firmware-sim", *sys.argv[1:]])


def _finish(result: dict[str, Any], path: Path | None) -> None:
    """Write and print the report; exit 1 where something is wrong with the run."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")
    console = Console(soft_wrap=not sys.stdout.isatty())
    print_report(console, result)
    problems = problems_of(result)
    for problem in problems:
        console.print(f"[red]FAILED[/red] {problem}", highlight=False)
    if problems:
        raise typer.Exit(ExitCode.FAILED)


class _live_progress:  # noqa: N801 (reads as the statement it is used in)
    """A bar on a terminal, nothing in a pipe."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} rounds"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[extra]}"),
            console=Console(stderr=True),
            refresh_per_second=5,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("starting", total=0, extra="")

    def __enter__(self) -> Callable[[Controller], None]:
        self._progress.start()
        return self._update

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._progress.stop()
        if kind is KeyboardInterrupt:
            raise _stopped_by_the_user()

    def _update(self, controller: Controller) -> None:
        self._progress.update(
            self._task,
            description="decoding",
            total=controller.sender.rounds_total,
            completed=controller.sender.rounds_sent,
            extra=f"{controller.sink.received:,} corrections",
        )


def main() -> None:
    """Entry point: exit codes are `rtqec.errors.ExitCode`."""
    try:
        app()
    except RtqecError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
