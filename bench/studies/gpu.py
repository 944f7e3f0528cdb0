"""Engines on the machine at hand: do they answer as PyTorch does, and how long does a call take?

    python -m bench.studies.gpu                                   # TensorRT and PyTorch on a GPU, all sizes
    python -m bench.studies.gpu --engines openvino --threads 1    # the CPU

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
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rtqec.device.choose import EngineKind, make_engine
from rtqec.device.engine import ChunkShape, Engine, EngineError
from rtqec.device.options import EngineOptions, EnginePrecision
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


def call(engine: Engine, chunks: int) -> int:
    """One call; its time in ns."""
    began = time.monotonic_ns()
    engine.enqueue(chunks)
    while not engine.wait(1_000_000_000):
        pass
    engine.take()
    return time.monotonic_ns() - began


def latency(engine: Engine, chunks: int, seconds: float) -> dict[str, Any]:
    """Quantiles of the call, us."""
    for _ in range(5):
        call(engine, chunks)
    took: list[int] = []
    stop = time.monotonic() + seconds
    while time.monotonic() < stop or len(took) < LEAST_CALLS:
        took.append(call(engine, chunks))
    quantiles = np.quantile(took, [0, 0.5, 0.99, 0.999]) / 1000
    names = ("min_us", "p50_us", "p99_us", "p999_us")
    return {"calls": len(took), **{name: round(float(q), 1) for name, q in zip(names, quantiles, strict=True)}}


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


def measure(
    arguments: argparse.Namespace, spec: NetworkSpec, size: tuple[int, int], chunks: int
) -> list[dict[str, Any]]:
    """Rows of one network, size and number of chunks: every engine and precision."""
    import torch

    from rtqec.training.export import write_onnx
    from rtqec.training.module import make_module

    distance, layers = size
    torch.manual_seed(SEED)
    module = make_module(spec).eval()
    with torch.no_grad():
        for values in list(module.parameters())[-2:]:
            values.mul_(TRAINED)
    shape = ChunkShape(chunks, layers, distance, spec.outputs)
    rows = []
    with TemporaryDirectory() as folder:
        for kind in arguments.engines:
            for precision in PRECISIONS[kind]:
                path = Path(folder) / f"{precision}.onnx"
                write_onnx(path, spec, module, "float16" if (kind, precision) == ("tensorrt", "float16") else "float32")
                options = EngineOptions("auto" if kind == "tensorrt" else precision, num_threads=arguments.threads)
                row: dict[str, Any] = {"engine": kind, "precision": precision}
                row |= {} if kind == "tensorrt" else {"note": "not TensorRT"}
                try:
                    began = time.monotonic()
                    engine = make_engine(kind, path, shape, options)
                    engine.warm()
                    row |= {"name": engine.name, "start_s": round(time.monotonic() - began, 2)}
                    fill(engine)
                    row |= latency(engine, chunks, arguments.seconds) | difference(engine, module)
                    row["us_per_layer"] = round(row["p50_us"] / layers / chunks, 3)
                except EngineError as refused:
                    row["refused"] = str(refused)
                rows.append(row)
    return rows


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
    arguments = parser.parse_args()

    from bench.provenance import provenance

    about = {"benchmark": "gpu", "command": " ".join(["python -m bench.studies.gpu", *sys.argv[1:]]), **provenance()}
    for name in arguments.networks:
        for size in SIZES:
            for chunks in arguments.chunks:
                if size[0] not in arguments.distances or (size[1] == 104 and chunks > 1):
                    continue
                for found in measure(arguments, NETWORKS[name], size, chunks):
                    row = {"network": name, "distance": size[0], "layers": size[1], "chunks": chunks, **found}
                    print(json.dumps(row), flush=True)
                    if arguments.out:
                        with arguments.out.open("a") as file:
                            file.write(json.dumps(row | about) + "\n")


if __name__ == "__main__":
    main()
