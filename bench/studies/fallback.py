"""What can decode when matching is too slow: time of a window by density of events, and logical failures.

    python -m bench.studies.fallback    # appended to bench/results/fallback.jsonl

Under a particle's impact half of the detectors fire. Goal: at 20 to 50 % the fallback's median is below matching's, and
its slowest window below matching's 99th percentile; it fails at most 1.6 times as often as plain matching.

Bulk windows of rotated_memory_z, p = 0.003, d + d rounds, one window a call, all decoders in turn on the same windows.
CPU time of the thread, the clock itself about 0.7 us of it; of each window the best of some repeats counts.
"Natural" are windows of the circuit; the others have random events at the given density. Correlated matching sees both
bases, the others the one that the observable meets. Failures: shots of 10 d rounds, decoded window by window.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from typing import Any

import numpy as np
import stim
from numpy.typing import NDArray

from bench.provenance import RESULTS, provenance
from rtqec.config import Config
from rtqec.match import Matcher
from rtqec.plan import Plan, compile_plan
from rtqec.union_find import UnionFind
from rtqec.windowed import WindowedDecoder

TASK = "surface_code:rotated_memory_z"
NOISE = 0.003
SEED = 20261121
DENSITIES = {"natural": 0.0, "5 %": 0.05, "20 %": 0.2, "50 %": 0.5}
NUM_SHOTS = {5: 20_000, 7: 10_000}
REPEATS = 4


class UnionFindWindows(WindowedDecoder):
    """The plan's windows, decoded by union-find."""

    def __init__(self, plan: Plan, num_shots: int) -> None:
        super().__init__(plan)
        self._union_finds: dict[int, UnionFind] = {}
        self._num_shots = num_shots

    def matcher(self, model_index: int) -> Any:
        if model_index not in self._union_finds:
            self._union_finds[model_index] = UnionFind(self.plan.models[model_index], self._num_shots)
        return self._union_finds[model_index]


def make_plan(distance: int, matching: str) -> Plan:
    config = Config.model_validate({
        "plan": {"generated": TASK, "distance": distance, "rounds": 10 * distance, "noise": NOISE,
                 "matching": matching},
        "window": {"commit_rounds": distance, "buffer_rounds": distance},
        "feed": {"endpoint": "inproc://bench", "round_period_us": 1.0}, "publish": {"endpoint": "inproc://bench"},
    })  # fmt: skip
    return compile_plan(config, config.patch[0])


def sample(plan: Plan, distance: int, num_shots: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Layers and true observable flips."""
    circuit = stim.Circuit.generated(
        TASK, distance=distance, rounds=10 * distance, after_clifford_depolarization=NOISE,
        after_reset_flip_probability=NOISE, before_measure_flip_probability=NOISE,
        before_round_data_depolarization=NOISE,
    )  # fmt: skip
    events, truth = circuit.compile_detector_sampler(seed=SEED).sample(num_shots, separate_observables=True)
    return plan.rounds.layers_b8(events), truth


def time_windows(rows_b8: NDArray[np.uint8], decoders: dict[str, Any]) -> dict[str, Any]:
    """Time of each decoder on each window, us: the best of some repeats, so that other processes do not count."""
    times_ns = {name: np.full(len(rows_b8), np.inf) for name in decoders}
    visits = 0
    for _ in range(REPEATS):
        for i, row in enumerate(rows_b8):
            for name, decoder in decoders.items():
                masked = (row & decoder.model.mask_b8)[np.newaxis]
                started = time.thread_time_ns()
                decoder(masked)
                times_ns[name][i] = min(times_ns[name][i], time.thread_time_ns() - started)
                visits = max(visits, decoder.visits if name == "union_find" else 0)
    found: dict[str, Any] = {"union_find_visits_max": visits}
    for name, taken_ns in times_ns.items():
        p50, p99, most = (np.percentile(taken_ns, [50, 99, 100]) / 1000).tolist()
        found[name] = {"p50": round(p50, 1), "p99": round(p99, 1), "max": round(most, 1)}
    return found


def measure(distance: int, num_windows: int) -> dict[str, Any]:
    """Times by density, and failures, of one distance."""
    plans = {matching: make_plan(distance, matching) for matching in ("plain", "correlated")}
    bulk = {name: next(m for m in plan.models if m.phase == "bulk") for name, plan in plans.items()}
    union_find = UnionFind(bulk["plain"])
    union_find.warm()
    decoders = {
        "plain": Matcher(bulk["plain"], correlated=False),
        "correlated": Matcher(bulk["correlated"], correlated=True),
        "union_find": union_find,
    }
    layers_b8, truth = sample(plans["plain"], distance, NUM_SHOTS[distance])
    row_bytes = bulk["plain"].row_bytes
    start = distance * plans["plain"].layout.layer_bytes
    rng = np.random.default_rng(SEED)
    times = {}
    for name, density in DENSITIES.items():
        rows = layers_b8[:num_windows, start : start + row_bytes]
        if density:
            rows = np.packbits(rng.random((num_windows, 8 * row_bytes)) < density, axis=1, bitorder="little")
        times[name] = time_windows(rows, decoders)
    failing = {
        "plain": WindowedDecoder(plans["plain"]),
        "correlated": WindowedDecoder(plans["correlated"]),
        "union_find": UnionFindWindows(plans["plain"], len(layers_b8)),
    }
    return {
        "distance": distance,
        "num_windows": num_windows,
        "num_detectors": int(np.bitwise_count(bulk["plain"].mask_b8).sum()),
        "num_edges": len(union_find.detectors),
        "union_find_visits_bound": union_find.visits_max,
        "time_us": times,
        "num_shots": len(layers_b8),
        "failures": {name: int((decoder(layers_b8) != truth).any(axis=1).sum()) for name, decoder in failing.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=5000)
    options = parser.parse_args()
    gc.disable()
    result = {
        "benchmark": "fallback",
        **provenance(),
        "command": "python -m bench.studies.fallback " + " ".join(sys.argv[1:]),
        "cases": [measure(distance, options.windows) for distance in NUM_SHOTS],
    }
    with (RESULTS / "fallback.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    for case in result["cases"]:
        print(case["distance"], case["failures"], "of", case["num_shots"], "bound", case["union_find_visits_bound"])
        for name, times in case["time_us"].items():
            print("  ", name, times)


if __name__ == "__main__":
    main()
