"""What the seam costs PyMatching: more than 64 observables leave its fast path, or do they?

    python -m bench.studies.seam        # appended to bench/results/seam.jsonl

The bulk window of a plan, decoded row by row as the path does: with its seam as it is (one observable per detector),
with the seam hashed into 63 observables (what a syndrome of a BCH code would look like; the answer is then no seam, but
costs what one would), and without any seam. All three take turns on the same rows; CPU time, medians over turns, and
the ratio turn by turn. If a narrow seam were faster, it would be worth building.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pymatching
import stim
from numpy.typing import NDArray

from bench.cases import cases_of
from bench.provenance import RESULTS, ROOT, provenance
from rtqec.plan.model import WindowModel

WINDOWS = 600
TURNS = 15
SEED = 20261121
NARROW = 63
CASES = (
    ["plan.distance=11", "plan.noise=0.001"],
    ["plan.distance=11", "plan.noise=0.001", "plan.drop_unobservable=false"],
    ["plan.distance=13", "plan.noise=0.001"],
    ["plan.distance=13", "plan.noise=0.003"],
    ["plan.distance=13", "plan.noise=0.001", "plan.drop_unobservable=false"],
    ["plan.distance=13", "plan.noise=0.003", "plan.drop_unobservable=false"],
    ["plan.distance=17", "plan.noise=0.001", "plan.drop_unobservable=false"],
    ["plan.distance=9", "plan.noise=0.003", "plan.matching=correlated"],
    ["plan.distance=13", "plan.noise=0.003", "plan.matching=correlated"],
)


def with_seam(model: WindowModel, codes: list[list[int]]) -> stim.DetectorErrorModel:
    """The model with the j-th seam detector written as the observables `codes[j]` behind the plan's own."""
    first = model.num_observables
    dem = stim.DetectorErrorModel()
    for instruction in model.dem:
        if instruction.type != "error":
            dem.append(instruction)
            continue
        targets: list[stim.DemTarget] = []
        for target in instruction.targets_copy():
            if target.is_logical_observable_id() and target.val >= first:
                targets += [stim.target_logical_observable_id(first + bit) for bit in codes[target.val - first]]
            else:
                targets.append(target)
        dem.append("error", instruction.args_copy(), targets)
    return dem


def row_ns(matching: pymatching.Matching, rows: NDArray[np.uint8], correlated: bool) -> float:
    began = time.thread_time_ns()
    for row in rows:
        matching.decode_batch(
            row[np.newaxis], bit_packed_shots=True, bit_packed_predictions=True, enable_correlations=correlated
        )
    return (time.thread_time_ns() - began) / len(rows)


def main() -> None:
    rng = np.random.default_rng(SEED)
    for overrides in CASES:
        (case,) = cases_of(ROOT / "configs" / "d5_memory_z.toml", ["plan.rounds=8d", *overrides], [])
        plan = case.plan()
        model = plan.models[plan.window_indices(plan.rounds.num_rounds)[2]]
        codes = [np.flatnonzero(rng.random(NARROW) < 0.5).tolist() for _ in model.seam]
        dems = {"wide": model.dem, "narrow": with_seam(model, codes), "none": with_seam(model, [[]] * len(codes))}
        matchings = {
            name: pymatching.Matching.from_detector_error_model(dem, enable_correlations=plan.correlated)
            for name, dem in dems.items()
        }
        events, _, _ = model.dem.compile_sampler(seed=SEED).sample(WINDOWS)
        rows = np.packbits(events, axis=1, bitorder="little") & model.mask_b8
        taken: dict[str, list[float]] = {name: [] for name in matchings}
        for turn in range(TURNS + 1):
            for name in rng.permutation(list(matchings)).tolist():
                took = row_ns(matchings[name], rows, plan.correlated)
                if turn:
                    taken[name].append(took)
        ratios = np.array(taken["wide"]) / np.array(taken["narrow"])
        row = {
            "benchmark": "seam",
            "command": "python -m bench.studies.seam " + " ".join(sys.argv[1:]),
            "case": case.describe(),
            "both_types": not plan.table.drop_unobservable,
            "seam_detectors": len(model.seam),
            "us_per_window": {name: float(np.median(found)) / 1000 for name, found in taken.items()},
            "wide_over_narrow": {
                "median": float(np.median(ratios)), "p10": float(np.quantile(ratios, 0.1)),
                "p90": float(np.quantile(ratios, 0.9)),
            },
            **provenance(),
        }  # fmt: skip
        with (RESULTS / "seam.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(" ".join(overrides), f"{len(model.seam)} seam detectors", row["us_per_window"], row["wide_over_narrow"])


if __name__ == "__main__":
    main()
