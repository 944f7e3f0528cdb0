"""`rtqec engine`: build, list and measure what runs a configuration's network, without the daemon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from rtqec.config import Config, load_config
from rtqec.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from rtqec.device.engine import Engine

engine_app = typer.Typer(no_args_is_help=True, help="What runs the predecoder's network: [predecode].")

ConfigArgument = Annotated[Path, typer.Argument(help="The daemon's configuration.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override one key: table.key=value. Repeatable.")]
_EVENT_DENSITY = 0.05
"""Of the input while an engine is measured: that of circuit noise at p = 0.006. No engine's time depends on it."""
_PERCENTILES = (50, 99, 99.9)


@engine_app.command()
def build(config: ConfigArgument, set_: SetOption = None) -> None:
    """Build the engine of each lane, or load it from the cache, and run it once. Exit 1 where that fails."""
    from rtqec.device.engine import EngineError

    for lane, started, engine in _engines(load_config(config, set_ or [])):
        try:
            engine.warm()
        except EngineError as error:
            typer.echo(f"{lane}: {error}", err=True)
            raise typer.Exit(ExitCode.FAILED) from None
        typer.echo(f"{lane}: {engine.name}, {_shape(engine)}, ready in {time.monotonic() - started:.2f} s")


@engine_app.command(name="list")
def list_(config: ConfigArgument, set_: SetOption = None) -> None:
    """The engines in the cache. Exit 1 where one of them would be refused."""
    from rtqec.device.cache import EngineCache

    folder = load_config(config, set_ or []).cache_dir / "engines"
    entries = EngineCache(folder).list()
    table = Table("engine", "version", "precision", "device", "layers", "distance", "MiB", "", box=None)
    for entry in entries:
        said = [
            str(entry.fields.get(key, "")) for key in ("engine", "version", "precision", "device", "layers", "distance")
        ]
        table.add_row(*said, f"{entry.num_bytes / 2**20:.1f}", entry.problem or entry.key[:12])
    Console().print(
        table
        if entries
        else f"No engines in {folder}: they are kept there when a lane opens, or by rtqec engine build."
    )
    if any(entry.problem for entry in entries):
        raise typer.Exit(ExitCode.FAILED)


@engine_app.command()
def bench(
    config: ConfigArgument,
    calls: Annotated[int, typer.Option(min=10, help="Calls that are measured.")] = 1000,
    set_: SetOption = None,
) -> None:
    """Measure calls of each lane's engine, one after the other: percentiles of the time from input to answers."""
    table = Table("lane", "engine", "call", *(f"p{p} us" for p in _PERCENTILES), "us a round", box=None)
    for lane, _, engine in _engines(load_config(config, set_ or [])):
        engine.warm()
        rng = np.random.default_rng(0)
        engine.volume[:, :2] = rng.random(engine.volume[:, :2].shape) < _EVENT_DENSITY
        engine.volume[:, 2:] = 1
        engine.inside.fill(1)
        took_ns = np.array([_call(engine) for _ in track(range(calls), lane, transient=True)])
        shown = [f"{value / 1000:.1f}" for value in np.percentile(took_ns, _PERCENTILES)]
        rounds = engine.shape.chunks * engine.shape.layers
        table.add_row(lane, engine.name, _shape(engine), *shown, f"{np.median(took_ns) / 1000 / rounds:.2f}")
    Console().print(table)


def _call(engine: Engine) -> int:
    """The time of one call, ns."""
    started = time.perf_counter_ns()
    engine.enqueue(engine.shape.chunks)
    while not engine.wait(1_000_000_000):
        pass
    engine.take()
    return time.perf_counter_ns() - started


def _shape(engine: Engine) -> str:
    shape = engine.shape
    return f"{shape.chunks} x {shape.layers} x {shape.distance} x {shape.distance}"


def _engines(config: Config) -> list[tuple[str, float, Engine]]:
    """The engine of every lane, with its lane's name and when it was begun.

    Raises:
        ConfigError: The configuration names no model, or one that does not fit.
    """
    from rtqec.device.engine import EngineError
    from rtqec.plan import compile_plans
    from rtqec.predecoder import chunk_shape, find_model, load_engine, patch_filters
    from rtqec.service.shards import shard_patches

    if config.predecode.model is None:
        raise ConfigError(
            "[predecode] model", "is not given.", "There is no network to run.",
            'Name one, for example --set predecode.model=small',
        )  # fmt: skip
    folder, card = find_model(config, config.predecode.model)
    made = []
    for index, patches in enumerate(shard_patches(config)):
        lane = config.of_lane(index, patches)
        plans = compile_plans(lane)
        shape = chunk_shape(lane, plans, patch_filters(lane.predecode, card, plans), card)
        started = time.monotonic()
        try:
            made.append((lane.lane_name, started, load_engine(lane, folder, card, shape)))
        except EngineError as error:
            typer.echo(f"{lane.lane_name}: {error}", err=True)
            raise typer.Exit(ExitCode.FAILED) from None
    return made
