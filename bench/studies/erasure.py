"""Is it worth telling the matcher which rounds were lost?

    python -m bench.studies.erasure             # all cases, appended to bench/results/erasure.jsonl
    python -m bench.studies.erasure --shots 2000

A lost round is filled so that its own detectors read 0; the next round's detectors then carry the news of both. That is
a measurement error of unknown sign, so an erasure-aware matcher gives the edges between a lost round's detectors and
the next round's the probability 1/2. Goal: a decision. Erasure-awareness is worth its price where it saves a large part
of the logical failures that loss causes at the rate of loss that a link has.

Shots of rotated_memory_z, distance 5, 50 rounds and the data readout, matched whole; every round but the first and the
readout is lost independently. Failures are compared shot by shot (McNemar's exact test).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from typing import Any

import numpy as np
import psutil
import pymatching
import stim
from numpy.typing import NDArray
from scipy.stats import binomtest

from bench.provenance import RESULTS, provenance
from rtqec.config import Config
from rtqec.plan import compile_plan

TASK = "surface_code:rotated_memory_z"
NUM_ROUNDS = 50
CASES = [(0.001, 0.01), (0.001, 0.05), (0.003, 0.01), (0.003, 0.05)]
SEED = 20261121
NUM_MATCHERS = 300


class Experiment:
    """One memory experiment, only the stabilisers that see the observable.

    Attributes:
        detectors: int64, shape (NUM_ROUNDS + 1, num_stabilisers): detector of each round and place.
    """

    def __init__(self, noise: float) -> None:
        self.circuit = stim.Circuit.generated(
            TASK, distance=5, rounds=NUM_ROUNDS, after_clifford_depolarization=noise,
            after_reset_flip_probability=noise, before_measure_flip_probability=noise,
            before_round_data_depolarization=noise,
        )  # fmt: skip
        places = self.circuit.get_detector_coordinates()
        seen = sorted((x, y) for x, y, t in places.values() if t == 0)
        self.detectors = np.full((NUM_ROUNDS + 1, len(seen)), -1)
        for detector, (x, y, t) in places.items():
            if (x, y) in seen:
                self.detectors[int(t), seen.index((x, y))] = detector
        assert (self.detectors >= 0).all()
        self.dem = self._observed()

    def _observed(self) -> stim.DetectorErrorModel:
        """The error model without the stabilisers of the other basis, which no observable meets."""
        kept = set(self.detectors.reshape(-1).tolist())
        dem = stim.DetectorErrorModel()
        for error in self.circuit.detector_error_model(decompose_errors=True, flatten_loops=True):
            if error.type != "error":
                continue
            for part in error.target_groups():
                if any(target.is_relative_detector_id() and target.val in kept for target in part):
                    dem.append("error", error.args_copy(), part)
        return dem

    def aware(self, lost: NDArray[np.intp]) -> pymatching.Matching:
        """A matcher that knows the lost rounds. An edge with p and one with 1/2 beside it are together one of 1/2."""
        dem = self.dem.copy()
        for t in lost.tolist():
            for pair in zip(self.detectors[t].tolist(), self.detectors[t + 1].tolist(), strict=True):
                dem.append("error", 0.5, [stim.target_relative_detector_id(detector) for detector in pair])
        return pymatching.Matching.from_detector_error_model(dem)


def filled(experiment: Experiment, events: NDArray[np.bool_], lost: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The events as folding sees them after filling: those of lost rounds move on to the next round that came.

    Events of the other basis are left out.

    Args:
        events: bool, shape (num_shots, num_detectors).
        lost: bool, shape (num_shots, NUM_ROUNDS + 1); the readout never.
    """
    moved = np.zeros_like(events)
    moved[:, experiment.detectors] = events[:, experiment.detectors]
    for t in range(NUM_ROUNDS):
        shots = np.flatnonzero(lost[:, t])[:, np.newaxis]
        here, following = experiment.detectors[t], experiment.detectors[t + 1]
        moved[shots, following] ^= moved[shots, here]
        moved[shots, here] = False
    return moved


def compare(noise: float, loss: float, num_shots: int) -> dict[str, Any]:
    """Logical failures undisturbed, filled, and filled with an erasure-aware matcher."""
    experiment = Experiment(noise)
    rng = np.random.default_rng(SEED)
    events, truth = experiment.circuit.compile_detector_sampler(seed=SEED).sample(num_shots, separate_observables=True)
    lost = rng.random((num_shots, NUM_ROUNDS + 1)) < loss
    lost[:, [0, NUM_ROUNDS]] = False
    moved, events = filled(experiment, events, lost), filled(experiment, events, np.zeros_like(lost))
    plain = experiment.aware(np.array([], np.intp))
    failed = {
        "undisturbed": (plain.decode_batch(events) != truth).any(axis=1),
        "filled": (plain.decode_batch(moved) != truth).any(axis=1),
    }
    failed["aware"] = failed["undisturbed"].copy()
    shots_of = defaultdict(list)
    for shot in np.flatnonzero(lost.any(axis=1)).tolist():
        shots_of[lost[shot].tobytes()].append(shot)
    for shots in shots_of.values():
        matcher = experiment.aware(np.flatnonzero(lost[shots[0]]))
        failed["aware"][shots] = (matcher.decode_batch(moved[shots]) != truth[shots]).any(axis=1)
    saved = int((failed["filled"] & ~failed["aware"]).sum())
    cost = int((failed["aware"] & ~failed["filled"]).sum())
    return {
        "noise": noise, "loss": loss, "num_shots": num_shots, "shots_with_loss": int(lost.any(axis=1).sum()),
        "sets_of_lost_rounds": len(shots_of), "failures": {name: int(found.sum()) for name, found in failed.items()},
        "saved_by_awareness": saved, "cost_by_awareness": cost,
        "mcnemar_p": binomtest(saved, saved + cost).pvalue if saved + cost else 1.0,
    }  # fmt: skip


def matcher_cost(matching: str) -> dict[str, Any]:
    """Memory and time of one more matcher of a bulk window, 5 + 5 rounds, distance 5."""
    config = Config.model_validate({
        "plan": {"generated": TASK, "distance": 5, "rounds": 30, "noise": 0.003, "matching": matching},
        "window": {"commit_rounds": 5, "buffer_rounds": 5},
        "feed": {"endpoint": "inproc://bench", "round_period_us": 1.0}, "publish": {"endpoint": "inproc://bench"},
    })  # fmt: skip
    model = next(m for m in compile_plan(config, config.patch[0]).models if m.phase == "bulk")
    correlated = matching == "correlated"
    noisy = np.packbits(np.random.default_rng(1).random((64, 8 * model.row_bytes)) < 0.03, axis=1, bitorder="little")
    rows = noisy & model.mask_b8
    kept, before, times_ms = [], psutil.Process().memory_info().rss, []
    for _ in range(NUM_MATCHERS):
        started = time.perf_counter_ns()
        matcher = pymatching.Matching.from_detector_error_model(model.dem, enable_correlations=correlated)
        matcher.decode_batch(
            rows, bit_packed_shots=True, bit_packed_predictions=True, enable_correlations=correlated
        )  # fmt: skip
        times_ms.append((time.perf_counter_ns() - started) / 1e6)
        kept.append(matcher)
    rss = psutil.Process().memory_info().rss - before
    return {
        "matching": matching,
        "num_edges": kept[0].num_edges,
        "num_matchers": NUM_MATCHERS,
        "kib_per_matcher": round(rss / NUM_MATCHERS / 1024, 1),
        "make_and_warm_ms_p50": round(float(np.median(times_ms)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=50_000)
    options = parser.parse_args()
    result = {
        "benchmark": "erasure",
        **provenance(),
        "command": "python -m bench.studies.erasure " + " ".join(sys.argv[1:]),
        "matcher_cost": [matcher_cost(matching) for matching in ("plain", "correlated")],
        "cases": [],
    }
    for noise, loss in CASES:
        result["cases"].append(compare(noise, loss, options.shots))
        print(result["cases"][-1], flush=True)
    with (RESULTS / "erasure.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(result["matcher_cost"])


if __name__ == "__main__":
    main()
