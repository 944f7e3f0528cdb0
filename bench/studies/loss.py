"""What lost rounds cost: the same shots undisturbed, with lost rounds filled, and with matchers that know of them.

    python -m bench.studies.loss    # d = 5, p = 0.001, 50,000 shots, 1 % of rounds lost; to bench/results/loss.jsonl

Through the running daemon, sockets and all; the same rounds are lost in both runs. Every correction is decoded again,
and `lossy` must stand on all windows that looked at a lost round, and on no other.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from bench.daemon import Run, run_shots
from bench.estimates import exact_interval
from bench.provenance import RESULTS, ROOT, provenance

CONFIG = ROOT / "configs" / "d5_memory_z.toml"
STEADY = ["ladder.fallbacks=[]", "feed.ring_rounds=1048576", "sink.settle_s=60", "sink.compare=false"]


def failures(run: Run, shots: np.ndarray) -> dict[str, Any]:
    count, total = int(run.wrong[shots].sum()), int(shots.sum())
    return {"failures": count, "shots": total, "interval": exact_interval(count, total)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--noise", type=float, default=0.001)
    parser.add_argument("--shots", type=int, default=50_000)
    parser.add_argument("--loss", type=float, default=0.01)
    arguments = parser.parse_args()
    sets = [*STEADY, f"plan.noise={arguments.noise}", f"source.shots={arguments.shots}"]
    faults = [{"kind": "drop", "probability": arguments.loss}]
    runs = {
        "undisturbed": run_shots(arguments.config, sets),
        "filled": run_shots(arguments.config, [*sets, "window.erasures=false"], faults),
        "aware": run_shots(arguments.config, sets, faults),
    }
    assert np.array_equal(runs["filled"].lost, runs["aware"].lost)
    num_rounds = int(runs["aware"].controller.sender.shot_rounds[0])
    everyone = np.ones(arguments.shots, bool)
    # A lost first round or data readout cannot be filled: these shots are held in part, degraded.
    held = np.zeros(arguments.shots, bool)
    lost = runs["aware"].lost
    held[lost[(lost[:, 1] == 0) | (lost[:, 1] == num_rounds - 1), 0]] = True
    saved = int((runs["filled"].wrong & ~runs["aware"].wrong).sum())
    cost = int((~runs["filled"].wrong & runs["aware"].wrong).sum())
    row = {
        "benchmark": "loss",
        "command": "python -m bench.studies.loss " + " ".join(sys.argv[1:]),
        "config": arguments.config.name,
        "noise": arguments.noise,
        "loss": arguments.loss,
        "rounds_lost": len(lost),
        "shots_with_loss": len(np.unique(lost[:, 0])),
        "shots_held": int(held.sum()),
        "all_shots": {name: failures(run, everyone) for name, run in runs.items()},
        "shots_not_held": {name: failures(run, ~held) for name, run in runs.items()},
        "saved_by_awareness": saved,
        "cost_by_awareness": cost,
        "mcnemar_p": float(binomtest(saved, saved + cost).pvalue) if saved + cost else 1.0,
        "invariants": {name: run.replay().__dict__ for name, run in runs.items()},
        "lossy_corrections": {name: run.report["flags"]["lossy"] for name, run in runs.items()},
        "counts_agree": all(check["equal"] for check in runs["aware"].report["faults"]["agree"]),
        **provenance(),
    }
    with (RESULTS / "loss.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps({key: row[key] for key in row if key not in ("machine", "versions")}, indent=2))


if __name__ == "__main__":
    main()
