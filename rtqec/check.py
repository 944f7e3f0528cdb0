"""What a configuration means: its plans as a table, and what they cost on this machine, measured on the spot."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import zmq
from rich.console import Console
from rich.table import Table

from rtqec.batch import Streams
from rtqec.commit import Commit
from rtqec.config import Config, LadderTable
from rtqec.cudaq.sessions import check_plan
from rtqec.kernels.records import HEAD, SLOT_LAST, TAIL
from rtqec.log import get_logger
from rtqec.match import Match
from rtqec.pipeline import Pipeline
from rtqec.plan import Plan
from rtqec.predecoder import find_model, hand_over_of, make_predecode, open_engine, patch_filters
from rtqec.publish import Publish
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock
from rtqec.units import NS_PER_US
from rtqec.window import Window

_MEASURE_NS = 1_500_000_000
_SHOTS = 64
_SEED = 20261120
_JOURNAL = 1024
_NEVER_LATE_US = 1e12
_INGEST = "ingest has a thread of its own", "the same thread receives, and answers CUDA-Q programs"
_RING_SHOTS = 8
"""Shots are laid in whole; more room than that is what a backlog would need."""


def path_cost_us(plan: Plan, config: Config | None = None) -> float:
    """Time that the path needs per round of one patch, us: gather, match, commit, publish; all stages as they run.

    With the predecoder of a configuration, if one is given and has one. An engine that cannot be had costs nothing.

    Rounds are sampled from the plan's own error model and laid into the ring as ingest would; windows are decoded
    one by one, as they close in a stream that keeps up.
    """
    events, _, _ = plan.experiment.own_dem.compile_sampler(seed=_SEED).sample(_SHOTS)
    layers_b8 = plan.rounds.layers_b8(events)
    num_rounds = plan.rounds.num_rounds
    ring = Ring([plan], _RING_SHOTS * num_rounds)
    context = zmq.Context()
    with TemporaryDirectory() as folder, context.socket(zmq.PUSH) as socket:
        telemetry = TelemetryBlock.create(Path(folder) / "check.telemetry", [0], _JOURNAL)
        hand_over = hand_over_of(config) if config is not None else None
        streams = Streams(
            [plan], [0], [_NEVER_LATE_US], LadderTable(fallbacks=[]), ring, telemetry, hand_over=hand_over
        )
        predecode = make_predecode(config, [plan], streams, ring, telemetry) if config is not None else None
        pipeline = Pipeline(
            streams,
            ring,
            Window(streams, ring, np.zeros(2, np.int64)),
            Match(streams.models, 1, predecode.grids if predecode is not None else None),
            Commit(streams, telemetry),
            Publish(socket, streams, telemetry),
            1,
            predecode,
        )
        pipeline.warm()
        if config is not None and predecode is not None:
            open_engine(config, predecode, get_logger())
        rounds = took_ns = 0
        while took_ns < _MEASURE_NS:
            _lay_shot(ring, plan, layers_b8[rounds // num_rounds % _SHOTS], rounds // num_rounds)
            started = time.perf_counter_ns()
            while ring.cursors[TAIL] < ring.cursors[HEAD]:
                pipeline.step()
            took_ns += time.perf_counter_ns() - started
            rounds += num_rounds
    context.term()
    return took_ns / rounds / NS_PER_US


def _lay_shot(ring: Ring, plan: Plan, shot_b8: np.ndarray, shot_id: int) -> None:
    """Put a whole shot into the ring, as ingest would."""
    place = ring.places[0]
    rows = ring.events_b8.reshape(-1, plan.layout.layer_bytes)
    head = int(ring.cursors[HEAD])
    where = (head + np.arange(plan.rounds.num_rounds)) & int(place["mask"])
    rows[where] = shot_b8.reshape(-1, plan.layout.layer_bytes)
    ring.slots["shot_id"][where] = shot_id
    ring.slots["flags"][where] = 0
    ring.slots["flags"][where[-1]] = SLOT_LAST
    ring.cursors[HEAD] = head + plan.rounds.num_rounds


def print_plans(console: Console, config: Config, plans: list[Plan]) -> bool:
    """Print each plan and whether the lane keeps up.

    Returns:
        Whether the measured cost of all patches fits one core at the configured round period.

    Raises:
        ConfigError: A plan cannot be served as `[listen]` says.
    """
    if config.listen.cudaq is not None:
        for patch, plan in zip(config.patch, plans, strict=True):
            check_plan(patch.id, plan)
    costs: dict[str, float] = {}
    total = 0.0
    if config.predecode.model is not None:
        console.print(_predecoder_line(config, plans), highlight=False)
    for patch, plan in zip(config.patch, plans, strict=True):
        if plan.digest not in costs:
            costs[plan.digest] = path_cost_us(plan, config)
        total += costs[plan.digest]
        console.print(_plan_table(patch.id, plan, costs[plan.digest]))
    period = config.feed.round_period_us
    keeps_up = total < period
    word = "[green]keeps up[/green]" if keeps_up else "[red]does not keep up[/red]"
    console.print(
        f"{word}: {len(plans)} patch(es) need {total:.3g} us per round of {period:g} us on the path's core "
        f"({100 * total / period:.0f} %); {_INGEST[config.listen.cudaq is not None]}.",
        highlight=False,
    )
    if not keeps_up:
        console.print("Use a larger \\[window] commit_rounds (fewer decoded rounds per committed round), "
                      "fewer patches per lane, or a smaller distance.")  # fmt: skip
    return keeps_up


def _predecoder_line(config: Config, plans: list[Plan]) -> str:
    """What goes before matching.

    Raises:
        ConfigError: The network does not fit a patch.
    """
    assert config.predecode.model is not None
    _, card = find_model(config, config.predecode.model)
    filters = patch_filters(config.predecode, card, plans)
    thresholds = sorted({one.threshold_data for one in filters if not one.soft})
    decides = f"threshold {', '.join(f'{threshold:g}' for threshold in thresholds)}" if thresholds else "weighs edges"
    spec = card.network.spec
    return f"predecoder {card.name}: {spec.num_parameters:,} parameters, looks {spec.halo} rounds ahead, {decides}"


def _plan_table(patch_id: int, plan: Plan, cost_us: float) -> Table:
    table = Table(title=f"patch {patch_id}", title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    rounds = "endless" if plan.endless else f"{plan.num_rounds} (the last is the data readout)"
    table.add_row("digest", f"{plan.digest[:16]} (plan tag {plan.tag:08x})")
    table.add_row("rounds", rounds)
    table.add_row("distance", str(plan.distance))
    table.add_row("measurements per round", _layers(plan, "num_measurements"))
    table.add_row("detectors per layer", _layers(plan, "num_detectors"))
    table.add_row("sweep bits, look-back", f"{plan.num_sweep_bits}, {plan.look_back} rounds")
    table.add_row("observables", f"{plan.num_observables} ({plan.table.frames} frame)")
    window = plan.window
    table.add_row(
        "windows",
        f"{window.rounds} rounds: {window.commit_rounds} committed, {window.buffer_rounds} looked at; "
        f"{(window.rounds / window.commit_rounds):.3g} rounds decoded per round committed",
    )
    if plan.num_rounds is not None:
        table.add_row("windows per shot", str(len(plan.window_indices(plan.num_rounds))))
    phases: dict[str, int] = {}
    for model in plan.models:
        phases[model.phase] = phases.get(model.phase, 0) + 1
    kinds = ", ".join(f"{count} {phase}" for phase, count in phases.items())
    table.add_row("matchers", f"{len(plan.models)} ({kinds}); {plan.table.matching} matching")
    table.add_row("seam", f"at most {max(len(model.seam) for model in plan.models)} detectors")
    dropped = len(plan.errors.dropped)
    table.add_row("dropped", f"{dropped} of {len(plan.rounds.detector_round)} detectors, in components without an "
                             f"observable; {plan.errors.num_silent} errors that flip no detector")  # fmt: skip
    table.add_row("path cost", f"{cost_us:.3g} us per round, measured here")
    return table


def _layers(plan: Plan, what: str) -> str:
    """Widths of the layers of a shot, neighbours of equal width together."""
    widths = [int(getattr(layer, what)) for layer in plan.first_layers]
    words = [f"{width} x {len(list(run))}" for width, run in itertools.groupby(widths)]
    if plan.bulk_layer is not None:
        words.append(f"{getattr(plan.bulk_layer, what)} for ever")
    return ", ".join([*words, f"{getattr(plan.last_layer, what)} at the end"])
