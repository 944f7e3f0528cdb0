"""Engines on the machine at hand: do they answer as PyTorch does, how long does a call take, what does the stage around
it add, and what is a round of the path with it?

    python -m bench.studies.gpu                                   # TensorRT and PyTorch on a GPU, all sizes
    python -m bench.studies.gpu --engines openvino --threads 1    # the CPU
    python -m bench.studies.gpu --parts path --card CARD.json     # with a trained network, so that failures count

Parts: *engine*, here; *stage* and *path*, in `bench.studies.gpu_stage`.

A call is enqueue, wait, take: from pinned memory of the host to pinned memory of the host. For each network (the
published Fast architecture and our own), distance, number of chunks and engine one row: p50, p99 and p99.9 of the call,
and the largest difference from PyTorch in float32 on the CPU, against 1 + |logit|. Weights are random, and as large as
trained ones. An engine that cannot be had is a row too, with its reason. Whatever is not TensorRT says so.

Layers of a chunk: the distance (a whole shot of as many rounds has one more, the readout), and 104 at d=13 for the
published point. Goal: none; the network's share of the published 2.33 us per round at d=13, 104 rounds, is what it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.studies.gpu_calls import call, quantiles
from bench.studies.gpu_stage import path_rows, stage_row
from rtqec.device.choose import EngineKind, make_engine
from rtqec.device.engine import ChunkShape, Engine, EngineError
from rtqec.device.options import EngineOptions, EnginePrecision
from rtqec.neural.card import read_card
from rtqec.neural.network import PUBLISHED, NetworkSpec, residual_network

NETWORKS = {
    "fast": PUBLISHED[1],
    "accurate": PUBLISHED[4],
    "own 32 x 10": residual_network(32, (3, 1) * 5),
    "own 64 x 10": residual_network(64, (3, 1) * 5),
}
SIZES = [(5, 5), (9, 9), (13, 13), (21, 21), (13, 104)]
"""Distance and layers."""

CHUNKS = (1, 8)
PRECISIONS: dict[EngineKind, tuple[EnginePrecision, ...]] = {
    "tensorrt": ("float16", "float32"),
    "torch": ("float16", "float32"),
    "openvino": ("bfloat16", "float32"),
}
SECONDS = 2.0
LEAST_CALLS = 50
SEED = 20261121
TRAINED = 60.0
"""Fresh weights answer 0.2, trained ones 12."""


def fill(engine: Engine) -> None:
    """Events at the density of p=.006, presence of a bulk patch, all layers of the shot."""
    rng = np.random.default_rng(SEED)
    engine.volume[:, :2] = rng.random(engine.volume[:, :2].shape) < 0.1
    engine.volume[:, 2:] = 1
    engine.inside[...] = 1


def latency(engine: Engine, chunks: int, seconds: float) -> dict[str, Any]:
    """Quantiles of the call, us."""
    for _ in range(5):
        call(engine, chunks)
    took: list[int] = []
    stop = time.monotonic() + seconds
    while time.monotonic() < stop or len(took) < LEAST_CALLS:
        took.append(call(engine, chunks))
    return {"calls": len(took), **quantiles(took)}


def difference(engine: Engine, module: Any) -> dict[str, float]:
    """From PyTorch in float32 on the CPU: of logits, and how many signs differ."""
    import torch

    with torch.inference_mode():
        wanted = module(torch.from_numpy(engine.volume[:1].copy()), torch.from_numpy(engine.inside[:1].copy())).numpy()
    found = engine.logits[:1]
    return {
        "difference": float(np.max(np.abs(found - wanted) / (1 + np.abs(wanted)))),
        "signs_apart": float(np.mean((found > 0) != (wanted > 0))),
    }


Row = dict[str, Any]
Measure = Callable[[EngineKind, EnginePrecision, Path, Any], Iterator[Row]]
"""Rows of one engine, given its kind, precision, model and the module of PyTorch."""


def each_engine(arguments: argparse.Namespace, spec: NetworkSpec, rows_of: Measure) -> Iterator[Row]:
    """Rows of every engine and precision, for a network with weights as large as trained ones."""
    import torch

    from rtqec.training.export import write_onnx
    from rtqec.training.module import make_module

    torch.manual_seed(SEED)
    module = make_module(spec).eval()
    with torch.no_grad():
        for values in list(module.parameters())[-2:]:
            values.mul_(TRAINED)
    with TemporaryDirectory() as folder:
        for kind in arguments.engines:
            for precision in arguments.precisions or PRECISIONS[kind]:
                if precision not in PRECISIONS[kind]:
                    continue
                path = Path(folder) / f"{kind}-{precision}.onnx"
                write_onnx(path, spec, module, "float16" if (kind, precision) == ("tensorrt", "float16") else "float32")
                about: Row = {"engine": kind, "precision": precision}
                about |= {} if kind == "tensorrt" else {"note": "not TensorRT"}
                try:
                    for row in rows_of(kind, precision, path, module):
                        yield about | row
                except EngineError as refused:
                    yield about | {"refused": str(refused)}


def options_of(arguments: argparse.Namespace, kind: EngineKind, precision: EnginePrecision) -> EngineOptions:
    """TensorRT computes in what the ONNX carries."""
    return EngineOptions("auto" if kind == "tensorrt" else precision, num_threads=arguments.threads)


def engine_part(arguments: argparse.Namespace, spec: NetworkSpec, shape: ChunkShape) -> Iterator[Row]:
    """The bare engine."""

    def rows(kind: EngineKind, precision: EnginePrecision, path: Path, module: Any) -> Iterator[Row]:
        began = time.monotonic()
        engine = make_engine(kind, path, shape, options_of(arguments, kind, precision))
        engine.warm()
        row: Row = {"name": engine.name, "start_s": round(time.monotonic() - began, 2)}
        fill(engine)
        row |= latency(engine, shape.chunks, arguments.seconds) | difference(engine, module)
        yield row | {"us_per_layer": round(row["p50_us"] / shape.layers / shape.chunks, 3)}

    return each_engine(arguments, spec, rows)


def stage_part(arguments: argparse.Namespace, spec: NetworkSpec, shape: ChunkShape) -> Iterator[Row]:
    """The chunk device against the engine."""

    def rows(kind: EngineKind, precision: EnginePrecision, path: Path, _: Any) -> Iterator[Row]:
        options = options_of(arguments, kind, precision)
        yield stage_row(kind, path, shape, options, spec.halo, arguments.seconds, fill)

    return each_engine(arguments, spec, rows)


def path_part(arguments: argparse.Namespace, spec: NetworkSpec, distance: int, rounds: int) -> Iterator[Row]:
    """The path, with and without the network."""

    def rows(kind: EngineKind, precision: EnginePrecision, path: Path, _: Any) -> Iterator[Row]:
        yield from path_rows(arguments, kind, precision, path, spec, distance, rounds)

    return each_engine(arguments, spec, rows)


def all_rows(arguments: argparse.Namespace) -> Iterator[Row]:
    """Rows of every part that is asked for."""
    networks = {name: NETWORKS[name] for name in arguments.networks}
    for part, measure in (("engine", engine_part), ("stage", stage_part)):
        for name, spec in networks.items() if part in arguments.parts else ():
            for distance, layers in SIZES:
                for chunks in arguments.chunks:
                    if distance in arguments.distances and not (layers == 104 and chunks > 1):
                        about = {"part": part, "network": name, "distance": distance, "layers": layers}
                        for row in measure(arguments, spec, ChunkShape(chunks, layers, distance, spec.outputs)):
                            yield about | {"chunks": chunks} | row
    if arguments.card is not None:
        networks = {arguments.card.stem: read_card(arguments.card).network.spec}
    for name, spec in networks.items() if "path" in arguments.parts else ():
        for distance in arguments.distances:
            # The published networks answer for both kinds of checks, which a card's layout says; without one, ours.
            if arguments.card is None and spec.frame != "own":
                continue
            for rounds in sorted({distance, *arguments.rounds}):
                for row in path_part(arguments, spec, distance, rounds):
                    yield {"part": "path", "network": name, "distance": distance} | row


def main() -> None:
    """Measure what is asked for; one JSON line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=list(PRECISIONS), default=["tensorrt", "torch"])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=["fast", "own 32 x 10"])
    parser.add_argument("--distances", nargs="+", type=int, default=[5, 9, 13, 21])
    parser.add_argument("--chunks", nargs="+", type=int, default=list(CHUNKS))
    parser.add_argument("--threads", type=int, default=0, help="of CPU engines")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="per row")
    parser.add_argument("--out", type=Path, help="JSON lines are appended")
    parser.add_argument("--parts", nargs="+", choices=["engine", "stage", "path"], default=["engine", "stage", "path"])
    parser.add_argument("--precisions", nargs="+", default=None, help="of the engines; all that each can")
    parser.add_argument("--card", type=Path, help="a trained network, for the path")
    parser.add_argument("--rounds", nargs="+", type=int, default=[104], help="of shots in the path, besides T = d")
    parser.add_argument("--noise", type=float, default=0.003, help="in the path")
    parser.add_argument("--shots", type=int, default=2000, help="in the path")
    arguments = parser.parse_args()

    from bench.provenance import provenance

    about = {"benchmark": "gpu", "command": " ".join(["python -m bench.studies.gpu", *sys.argv[1:]]), **provenance()}
    for row in all_rows(arguments):
        print(json.dumps(row), flush=True)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(json.dumps(row | about) + "\n")


if __name__ == "__main__":
    main()
