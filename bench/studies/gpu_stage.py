"""The stage around the network, and the path with it: parts of `bench.studies.gpu`.

- *stage*: a chunk device's call (packed rounds to packed changes) against the bare engine's, in turns. Goals: at most
  1.3 of the engine on a GPU, 1.15 of OpenVINO on the CPU at d=13.
- *path*: windows from the ring to their corrections, one patch, whole shots: plain and correlated matching alone, and
  both behind the network, per round; with the failures of each on the same shots. T = d and T = 104. Goal: none; the
  published point is 2.33 us per round at d=13, T=104, p=.003.

Without a card the network is untrained and answers no everywhere: its time is that of a trained one, what is left to
match is not, and neither are its failures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from bench.studies.gpu_calls import call, quantiles
from rtqec.batch import Streams
from rtqec.check import _lay_shot
from rtqec.commit import Commit
from rtqec.config import LadderTable, load_config
from rtqec.device.choose import EngineKind, make_chunks, make_engine
from rtqec.device.chunks import ChunkDevice
from rtqec.device.engine import ChunkShape, EngineError
from rtqec.device.options import EngineOptions
from rtqec.kernels.records import BULK, EDGE, HEAD, LAST, TAIL
from rtqec.match import Match
from rtqec.neural.card import read_card
from rtqec.pipeline import Pipeline
from rtqec.plan import Plan, compile_plan
from rtqec.predecode import PatchFilter, Predecode, chunk_tables, patch_filter
from rtqec.predecoder import effects_of, network_file
from rtqec.publish import Publish
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock
from rtqec.window import Window
from rtqec.wire import parse_correction

CONFIG = Path(__file__).parents[2] / "configs" / "d5_memory_z.toml"
DENSITY = 0.05
"""Of events: circuit noise at p=.006. No time depends on it but the host's kernels'."""
NEVER_LATE_US = 1e12
SEED = 20261121
JOURNAL = 64
NEVER = float("inf")


def make_plan(distance: int, rounds: int, noise: float, matching: str) -> Plan:
    """One window for a whole shot."""
    wanted = {
        "plan.distance": distance, "plan.rounds": rounds, "plan.noise": noise, "plan.matching": matching,
        "window.commit_rounds": rounds + 1, "window.buffer_rounds": distance,
    }  # fmt: skip
    config = load_config(CONFIG, [f"{key}={value}" for key, value in wanted.items()])
    return compile_plan(config, config.patch[0])


def make_filter(plan: Plan, halo: int, card: Path | None) -> PatchFilter:
    """With the card's threshold, or one that no answer reaches."""
    if card is None:
        return patch_filter(effects_of(plan, "own"), halo, NEVER, NEVER)
    read = read_card(card)
    matching = "correlated" if plan.correlated else "plain"
    threshold = read.threshold(plan.distance, plan.table.noise, matching=matching)
    return patch_filter(effects_of(plan, read.frame), halo, threshold, threshold)


def fill_chunks(device: ChunkDevice) -> None:
    """A whole shot, every answer of which counts."""
    rng = np.random.default_rng(SEED)
    bits = rng.random((*device.rounds_b8.shape, 8)) < DENSITY
    device.rounds_b8[...] = np.packbits(bits, axis=3, bitorder="little")[..., 0]
    device.kinds[...], device.kinds[:, 0], device.kinds[:, -1] = BULK, EDGE, LAST
    device.spans[...] = 0, device.shape.layers
    device.patches[...] = 0


def stage_row(kind: EngineKind, model: Path, shape: ChunkShape, options: EngineOptions, halo: int, seconds: float,
              fill: Callable[[Any], None]) -> dict[str, Any]:  # fmt: skip
    """The engine's calls and the chunk device's, in turns."""
    plan = make_plan(shape.distance, shape.distance, 0.003, "plain")
    tables = chunk_tables([make_filter(plan, halo, None)] * shape.chunks, plan.layout.layer_bytes)
    engine = make_engine(kind, model, shape, options)
    device = make_chunks(kind, model, shape, tables, options)
    engine.warm()
    device.warm()
    fill(engine)
    fill_chunks(device)
    took: tuple[list[int], list[int]] = ([], [])
    stop = time.monotonic() + seconds
    while time.monotonic() < stop or len(took[0]) < 50:
        for one, times in zip((engine, device), took, strict=True):
            times.append(call(one, shape.chunks))
    bare, whole = quantiles(took[0], "engine_"), quantiles(took[1], "stage_")
    ratios = {f"stage_over_engine_{q}": round(whole[f"stage_{q}_us"] / bare[f"engine_{q}_us"], 3)
              for q in ("p50", "p99")}  # fmt: skip
    return {"name": device.name, "calls": len(took[0]), **bare, **whole, **ratios}


def path_rows(arguments: Any, kind: EngineKind, precision: Any, model: Path, spec: Any, distance: int,
              rounds: int) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Plain and correlated matching, without and with the network."""
    for matching in ("plain", "correlated"):
        plan = make_plan(distance, rounds, arguments.noise, matching)
        events, observables, _ = plan.experiment.own_dem.compile_sampler(seed=SEED).sample(arguments.shots)
        layers_b8 = plan.rounds.layers_b8(events)
        wanted = np.packbits(observables, axis=1, bitorder="little")[:, 0]
        about = {"matching": matching, "noise": arguments.noise, "rounds": rounds, "shots": arguments.shots}
        for with_network in (False, True):
            row = {**about, "with_network": with_network}
            if with_network:
                row["trained"] = arguments.card is not None
            try:
                stage = (
                    _stage_maker(arguments, kind, precision, model, spec, plan) if with_network else None
                )  # fmt: skip
                yield row | _carry(plan, layers_b8, wanted, stage)
            except EngineError as refused:
                yield row | {"refused": str(refused)}


def _stage_maker(arguments: Any, kind: EngineKind, precision: Any, model: Path, spec: Any,
                 plan: Plan) -> Callable[..., Predecode]:  # fmt: skip
    """Makes the stage of a path, open."""
    one = make_filter(plan, spec.halo, arguments.card)
    shape = ChunkShape(1, plan.window.rounds + spec.halo, plan.distance, spec.outputs)
    options = EngineOptions("auto" if kind == "tensorrt" else precision, num_threads=arguments.threads)
    if arguments.card is not None:
        model = network_file(arguments.card.parent, read_card(arguments.card), kind, precision)

    def make(streams: Streams, ring: Ring, telemetry: TelemetryBlock) -> Predecode:
        stage = Predecode(streams, ring, telemetry, [one], shape, 10_000_000_000)
        device = make_chunks(kind, model, shape, stage.tables, options)
        device.warm()
        stage.open(device)
        return stage

    return make


def _carry(plan: Plan, layers_b8: NDArray[np.uint8], wanted: NDArray[np.uint8],
           make_stage: Callable[..., Predecode] | None) -> dict[str, Any]:  # fmt: skip
    """Carry every shot; time per round, and failures."""
    with _path(plan, make_stage) as (pipeline, ring, corrections, stage):
        took, failures, network_ns = [], 0, 0
        if stage is not None:
            inner = pipeline._predecode

            def timed(batch: Any) -> None:
                nonlocal network_ns
                began = time.perf_counter_ns()
                inner(batch)
                network_ns += time.perf_counter_ns() - began

            pipeline._predecode = timed
        for shot_id, shot_b8 in enumerate(layers_b8):
            _lay_shot(ring, plan, shot_b8, shot_id)
            began = time.perf_counter_ns()
            while ring.cursors[TAIL] < ring.cursors[HEAD]:
                pipeline.step()
            took.append((time.perf_counter_ns() - began) // plan.rounds.num_rounds)
            flips = 0
            while corrections.poll(0):
                flips ^= int(parse_correction(corrections.recv())["flips"])
            failures += flips != int(wanted[shot_id])
        found = quantiles(took, "round_")
        if stage is not None:
            found["stage_us_per_round"] = round(network_ns / len(took) / plan.rounds.num_rounds / 1000, 3)
        return found | {"failures": failures, "failure_rate": failures / len(took)}


@contextmanager
def _path(plan: Plan, make_stage: Callable[..., Predecode] | None) -> Iterator[tuple[Any, ...]]:
    """A path without threads, with room for a shot, and where its corrections arrive."""
    ring = Ring([plan], 4 * plan.rounds.num_rounds)
    context = zmq.Context()
    with (
        TemporaryDirectory() as folder, context.socket(zmq.PUSH) as out, context.socket(zmq.PULL) as corrections,
    ):  # fmt: skip
        for socket in (out, corrections):
            socket.set_hwm(0)
            socket.setsockopt(zmq.LINGER, 0)
        out.bind("inproc://corrections")
        corrections.connect("inproc://corrections")
        telemetry = TelemetryBlock.create(Path(folder) / "path.telemetry", [0], JOURNAL)
        streams = Streams(
            [plan],
            [0],
            [NEVER_LATE_US],
            LadderTable(fallbacks=[]),
            ring,
            telemetry,
            hand_over="hard" if make_stage is not None else None,
        )
        stage = make_stage(streams, ring, telemetry) if make_stage else None
        pipeline = Pipeline(
            streams, ring, Window(streams, ring, np.zeros(2, np.int64)), Match(streams.models, 1),
            Commit(streams, telemetry), Publish(out, streams, telemetry), 1, stage,
        )  # fmt: skip
        pipeline.warm()
        yield pipeline, ring, corrections, stage
    context.term()
