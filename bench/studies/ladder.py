"""What the ladder is worth: late and wrong shots against the budget, beside correlated matching only and matching only.

    python -m bench.studies.ladder                        # both distances, appended to bench/results/ladder.jsonl
    python -m bench.studies.ladder --draw docs/ladder.svg # and the figure, from the newest results

Goal: where plain matching fits the budget, less than 1 % of the windows are late. Judged on the CPU time of every step
of the real path through an exact single-server queue (`bench.service`); the wall clock of the same steps is beside it.
LER(t) is the fraction of shots with a late or a wrong answer: a controller can use neither.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from bench.estimates import exact_interval
from bench.provenance import RESULTS, provenance
from bench.service import ServiceQueue, ServiceRun, sample_layers
from rtqec.config import Config
from rtqec.plan import Plan, compile_plan
from rtqec.wire import Rung

mpl.use("Agg")
from matplotlib import pyplot as plt

NOISE = 0.003
SEED = 20261120
CASES = {
    5: {"shots": 10_000, "period_us": 6.0, "budgets_us": [8, 12, 16, 24, 32, 48, 100]},
    7: {"shots": 5_000, "period_us": 10.0, "budgets_us": [12, 16, 24, 32, 48, 64, 100, 200]},
}
POLICIES: dict[str, dict[str, Any]] = {
    "ladder": {"matching": "correlated", "fallbacks": ["match", "catch_up", "union_find"]},
    "correlated only": {"matching": "correlated", "fallbacks": []},
    "match only": {"matching": "plain", "fallbacks": []},
}


def make_plan(distance: int, matching: str, fallbacks: list[str]) -> tuple[Config, Plan]:
    config = Config.model_validate({
        "plan": {"generated": "surface_code:rotated_memory_z", "distance": distance, "rounds": 10 * distance,
                 "noise": NOISE, "matching": matching},
        "window": {"commit_rounds": distance, "buffer_rounds": distance},
        "feed": {"endpoint": "inproc://bench", "round_period_us": 1.0},
        "publish": {"endpoint": "inproc://bench"},
        "ladder": {"fallbacks": fallbacks},
    })  # fmt: skip
    return config, compile_plan(config, config.patch[0])


def summarise(run: ServiceRun, truth: np.ndarray, budget_us: float, rounds: int, period_us: float) -> dict[str, Any]:
    late = run.response_ns > budget_us * 1000
    shots = run.corrections["shot_id"].astype(np.int64)
    late_shot = np.zeros(len(truth), bool)
    np.logical_or.at(late_shot, shots, late)
    wrong = run.frames != truth
    lowest = np.full(len(truth), 9)
    np.minimum.at(lowest, shots, run.corrections["rung"])
    by_rung = {
        rung.name.lower(): {"shots": int((lowest == rung).sum()), "wrong": int((wrong & (lowest == rung)).sum())}
        for rung in Rung
    }
    bad = int((wrong | late_shot).sum())
    return {
        "budget_us": budget_us,
        "windows": len(late),
        "late_windows": float(late.mean()),
        "late_windows_interval": exact_interval(int(late.sum()), len(late)),
        "late_windows_wall": float(((run.corrections["flags"] & 2) != 0).mean()),
        "wrong_shots": int(wrong.sum()),
        "late_or_wrong_shots": bad,
        "late_or_wrong": bad / len(truth),
        "late_or_wrong_interval": exact_interval(bad, len(truth)),
        "rungs": {rung.name.lower(): int((run.corrections["rung"] == rung).sum()) for rung in Rung},
        "shots_by_lowest_rung": by_rung,
        "caught_up": int(((run.corrections["flags"] & 32) != 0).sum()),
        "service_us": {f"p{q}": float(np.percentile(run.service_ns, q)) / 1000 for q in (50, 90, 99)},
        "load": float(run.service_ns.sum() / (len(truth) * rounds * period_us * 1000)),
        "wall_over_cpu": float(run.wall_ns / run.service_ns.sum()),
        "backlog_max": run.backlog_max,
    }


def measure(distance: int) -> None:
    case = CASES[distance]
    period_us = float(case["period_us"])
    for name, policy in POLICIES.items():
        config, plan = make_plan(distance, **policy)
        layers, truth = sample_layers(plan, int(case["shots"]), SEED)
        for budget_us in case["budgets_us"]:
            with ServiceQueue(plan, config.ladder, budget_us) as queue:
                queue.run(layers[:500], period_us)  # The ladder learns what this machine is.
                run = queue.run(layers, period_us)
            row = summarise(run, truth, budget_us, plan.rounds.num_rounds, period_us)
            row = {"benchmark": "ladder", "distance": distance, "policy": name, "noise": NOISE, "period_us": period_us,
                   "shots": len(truth), **row, **provenance()}  # fmt: skip
            with (RESULTS / "ladder.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"d={distance} {name:16} {budget_us:4} us: late {row['late_windows']:.4f} "
                  f"(wall {row['late_windows_wall']:.4f}), wrong {row['wrong_shots']}, "
                  f"late or wrong {row['late_or_wrong']:.4f}, load {row['load']:.2f}, {row['rungs']}")  # fmt: skip


def draw(path: Path) -> None:
    rows = [json.loads(line) for line in (RESULTS / "ladder.jsonl").read_text().splitlines()]
    newest = {(row["distance"], row["policy"], row["budget_us"]): row for row in rows}
    mpl.rcParams["svg.hashsalt"] = "rtqec"
    figure, axes = plt.subplots(2, len(CASES), figsize=(8, 6), layout="constrained", sharex="col")
    for column, distance in enumerate(CASES):
        for name in POLICIES:
            mine = [row for (d, policy, _), row in sorted(newest.items()) if (d, policy) == (distance, name)]
            budgets = [row["budget_us"] for row in mine]
            axes[0, column].plot(budgets, [max(row["late_windows"], 1e-5) for row in mine], "o-", label=name)
            values = np.array([row["late_or_wrong"] for row in mine])
            low, high = np.array([row["late_or_wrong_interval"] for row in mine]).T
            axes[1, column].errorbar(budgets, values, [values - low, high - values], fmt="o-", label=name)
        axes[0, column].axhline(0.01, color="grey", linestyle=":", linewidth=1)
        axes[0, column].set(title=f"d = {distance}, p = {NOISE}", yscale="log", xscale="log")
        axes[1, column].set(yscale="log", xscale="log", xlabel="budget, microseconds")
        for axis in axes[:, column]:
            axis.grid(visible=True, which="both", alpha=0.25)
    axes[0, 0].set_ylabel("late windows")
    axes[1, 0].set_ylabel("shots late or wrong")
    axes[0, 0].legend(fontsize=8)
    row = rows[-1]
    figure.suptitle(f"CPU time of every step, exact queue; {row['machine']['cpu']}, {row['date']}", fontsize=9)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("distances", nargs="*", type=int, default=list(CASES))
    parser.add_argument("--draw", type=Path)
    arguments = parser.parse_args()
    if arguments.draw is None:
        for distance in arguments.distances:
            measure(distance)
    else:
        draw(arguments.draw)


if __name__ == "__main__":
    main()
