"""What the path costs when nothing goes wrong, against another version of this project.

    git worktree add /tmp/before 485ec3d
    python -m bench.studies.overhead --against /tmp/before --config configs/d5_memory_z.toml

CPU time of the path's thread per round (choose, gather, match, commit, publish), windows one by one as they close in a
stream that keeps up, in pairs of processes, one of each version, in random order. The bound is the one-sided 95 %
confidence bound of the mean of the logarithms of the pairs' ratios. Goal: at most 1.05.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

MEASURE_NS = 1_500_000_000
SHOTS = 64
SEED = 20261120


def worker(config_path: str) -> float:
    """CPU time per round in this process, us, of whatever version of rtqec is imported."""
    import numpy as np
    import zmq

    import rtqec.config
    from rtqec.batch import Streams
    from rtqec.commit import Commit
    from rtqec.config import load_config
    from rtqec.kernels.records import HEAD, SLOT_LAST, STOP
    from rtqec.match import Match
    from rtqec.pipeline import Pipeline
    from rtqec.plan import compile_plans
    from rtqec.publish import Publish
    from rtqec.ring import Ring
    from rtqec.telemetry import TelemetryBlock
    from rtqec.window import Window

    config = load_config(config_path)
    plan = compile_plans(config)[0]
    events, _, _ = plan.experiment.own_dem.compile_sampler(seed=SEED).sample(SHOTS)
    num_rounds, layer_bytes = plan.rounds.num_rounds, plan.layout.layer_bytes
    layers = plan.rounds.layers_b8(events).reshape(-1, layer_bytes)
    ring = Ring([plan], 4096)
    budget_us = config.deadline.budget_us
    context = zmq.Context()
    with TemporaryDirectory() as folder, context.socket(zmq.PUSH) as socket:
        path = Path(folder) / "overhead.telemetry"
        if hasattr(rtqec.config, "LadderTable"):
            telemetry = TelemetryBlock.create(path, [0], config.publish.journal_corrections)
            streams: Any = Streams([plan], [0], [budget_us], config.ladder, ring, telemetry)
            commit, publish = Commit(streams, telemetry), Publish(socket, streams, telemetry)
        else:
            telemetry = TelemetryBlock.create(path, [0])
            streams = Streams([plan], [0], budget_us, True)
            commit, publish = Commit(streams, ring, telemetry), Publish(socket, telemetry)
        waiting = np.zeros(2, np.int64)
        pipeline = Pipeline(streams, ring, Window(streams, ring, waiting), Match(streams.models, 1), commit, publish, 1)
        pipeline.warm()
        ring.control[STOP] = 1
        mask = int(ring.places[0]["mask"])
        took_ns = head = 0
        while took_ns < MEASURE_NS:
            stop = head + plan.window.commit_rounds
            rounds = np.arange(head, stop)
            where = rounds & mask
            ring.events_b8.reshape(-1, layer_bytes)[where] = layers[rounds % len(layers)]
            ring.slots["shot_id"][where] = rounds // num_rounds
            ring.slots["flags"][where] = np.where(rounds % num_rounds == num_rounds - 1, SLOT_LAST, 0)
            ring.slots["received_ns"][where] = time.monotonic_ns()
            ring.cursors[HEAD] = head = stop
            began = time.thread_time_ns()
            while pipeline.step():
                pass
            took_ns += time.thread_time_ns() - began
    context.term()
    return took_ns / head / 1000


def measure(tree: Path, config: Path) -> float:
    """A worker in a process of its own, with the rtqec of `tree` and its configuration of the same name."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    command = [sys.executable, __file__, "--worker", str(tree / config)]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker")
    parser.add_argument("--against", type=Path)
    parser.add_argument("--config", type=Path, default=Path("configs/d5_memory_z.toml"))
    parser.add_argument("--pairs", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.worker:
        print(worker(arguments.worker))
        return

    import numpy as np
    from scipy import stats

    from bench.provenance import RESULTS, ROOT, git, provenance

    trees = {"now": ROOT, "before": arguments.against.resolve()}
    for tree in trees.values():
        measure(tree, arguments.config)  # Fills the caches.
    pairs = []
    order = random.Random(SEED)
    for _ in range(arguments.pairs):
        names = list(trees)
        order.shuffle(names)
        pairs.append({name: measure(trees[name], arguments.config) for name in names})
    ratios = np.log([pair["now"] / pair["before"] for pair in pairs])
    margin = stats.t.ppf(0.95, len(ratios) - 1) * ratios.std(ddof=1) / np.sqrt(len(ratios))
    row = {
        "benchmark": "overhead",
        "command": f"python -m bench.studies.overhead --against BEFORE --config {arguments.config} "
        f"--pairs {arguments.pairs}",
        "against": git("-C", str(trees["before"]), "rev-parse", "--short", "HEAD"),
        "config": arguments.config.name,
        "pairs": len(pairs),
        "us_per_round": {name: float(np.median([pair[name] for pair in pairs])) for name in trees},
        "ratio": float(np.exp(ratios.mean())),
        "ratio_upper_95": float(np.exp(ratios.mean() + margin)),
        **provenance(),
    }
    with (RESULTS / "overhead.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps({key: row[key] for key in row if key not in ("machine", "versions")}))


if __name__ == "__main__":
    main()
