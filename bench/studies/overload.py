"""Overload: rounds come twice as fast as the machine can decode them, for ten seconds; then as before.

    python -m bench.studies.overload        # appended to bench/results/overload.jsonl

First the shortest period that is held without holding a round is found (trials of two seconds, steps of 20 %). Then one
stream at twice that period, which falls to half of it for ten seconds. Reported: the backlog that the path saw at its
decisions, against the bound; rounds from the end of the rush to the first shot from which on nothing is marked; and
whether shots that begin after that equal the undisturbed decoder's.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from bench.daemon import run_shots
from bench.provenance import RESULTS, ROOT, provenance
from rtqec.wire import CorrectionFlag, Rung

CONFIG = ROOT / "configs" / "d7_memory_z.toml"
BOUND = 2000
SETS = [
    "plan.matching=correlated",
    'ladder.fallbacks=["catch_up"]',
    f"ladder.backlog_rounds={BOUND}",
    "feed.ring_rounds=1048576",
    "source.rounds_per_message=10",
    "sink.settle_s=120",
    "sink.compare=false",
]
TRIAL_S, RUSH_S, CALM_S = 2.0, 10.0, 4.0
LONGEST_US, STEP = 40.0, 0.8
ROUNDS = 71


def holds(period_us: float) -> bool:
    """Whether a stream of this period is answered without holding a round."""
    shots = max(int(TRIAL_S * 1e6 / (period_us * ROUNDS)), 10)
    run = run_shots(CONFIG, [*SETS, f"pace.period_us={period_us}", f"source.shots={shots}"])
    print(f"  {period_us:5.1f} us: {run.report['rounds_held']} held, backlog {run.report['backlog_rounds']['max']}")
    return run.report["rounds_held"] == 0 and run.report["daemon"]["ring_full"] == 0


def main() -> None:
    period_us = LONGEST_US
    while holds(period_us * STEP):
        period_us *= STEP
    base_us = 2 * period_us
    rush_start = int(CALM_S * 1e6 / base_us)
    rush_stop = rush_start + int(RUSH_S * 1e6 / (period_us / 2))
    total = rush_stop + int(CALM_S * 1e6 / base_us)
    shots = total // ROUNDS
    rush = [f"pace.rush_rounds=[{rush_start}, {rush_stop}]", "pace.rush_factor=4"]
    sets = [*SETS, f"pace.period_us={base_us}", f"source.shots={shots}", *rush]
    run = run_shots(CONFIG, sets)
    mine = run.corrections
    marks = CorrectionFlag.DEGRADED | CorrectionFlag.LOSSY | CorrectionFlag.AMENDMENT | CorrectionFlag.OPEN_PAST
    marked = ((mine["flags"] & marks) != 0) | (mine["rung"] == Rung.HOLD) | (mine["frame_status"] != 0)
    last_marked = int(mine["shot_id"][marked].max(initial=0))
    recovered = (last_marked + 1) * ROUNDS
    after = mine[mine["shot_id"] > last_marked]
    row = {
        "benchmark": "overload",
        "command": "python -m bench.studies.overload " + " ".join(sys.argv[1:]),
        "config": CONFIG.name,
        "sets": SETS,
        "held_period_us": period_us,
        "rush_period_us": period_us / 2,
        "rush_rounds": rush_stop - rush_start,
        "backlog_bound": BOUND,
        "backlog_max_at_decisions": run.report["daemon"]["backlog_max"],
        "backlog_max_of_controller": run.report["backlog_rounds"]["max"],
        "rounds_answered": run.report["rounds_answered"],
        "rounds_expected": run.report["rounds_expected"],
        "rounds_held": run.report["rounds_held"],
        "rounds_amended": run.report["rounds_amended"],
        "rounds_given_up": run.report["daemon"]["rounds_given_up"],
        "ring_full": run.report["daemon"]["ring_full"],
        "recovery_rounds": recovered - rush_stop,
        "recovery_ms": (recovered - rush_stop) * base_us / 1000,
        "shots_after_recovery": int(shots - last_marked - 1),
        "caught_up_after_recovery": int(((after["flags"] & CorrectionFlag.CAUGHT_UP) != 0).sum()),
        "invariants": run.replay().__dict__,
        "late": float(np.mean((mine["flags"] & CorrectionFlag.LATE) != 0)),
        **provenance(),
    }
    with (RESULTS / "overload.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps({key: row[key] for key in row if key not in ("machine", "versions")}, indent=2))


if __name__ == "__main__":
    main()
