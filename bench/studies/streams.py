"""The streams that this project claims to carry, through the running daemon, recorded with machine and date.

    python -m bench.studies.streams                 # all of them, appended to bench/results/streams.jsonl
    python -m bench.studies.streams d5_1us d5_10us  # some

Goals, from the project's first issue, on two shared cores with the simulator beside the daemon: at 1 us rounds
nothing lost, nothing out of order, a median backlog of at most 200 rounds over the last tenth and no upward slope;
at 10 us rounds, d = 5, a median reaction of at most 25 us; daemon memory grows by at most 1 MiB after a tenth.
The transport's own floor (`bench.floor`) is measured beside the second one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.provenance import RESULTS as RESULTS_FOLDER
from bench.provenance import ROOT, source

RESULTS = RESULTS_FOLDER / "streams.jsonl"
TENTH = ["--set", "window.commit_rounds=5", "--set", "pace.burst_us=0", "--set", "lane.coalesce_us=0"]
CASES = {
    "d5_1us": ["configs/d5_1us.toml"],
    "d7_1us": ["configs/d7_1us.toml"],
    "d5_10us": ["configs/d5_1us.toml", "--rounds", "2000000", "--period-us", "10", *TENTH],
    "d5_100us": ["configs/d5_1us.toml", "--rounds", "200000", "--period-us", "100", *TENTH],
    "d5_4us_memory": ["configs/d5_1us.toml", "--period-us", "4"],
}
FLOORS = {"d5_10us": ("10", "400000"), "d5_100us": ("100", "100000")}


def goals_of(name: str, report: dict[str, Any], floor: dict[str, Any] | None) -> dict[str, bool]:
    """Which goals a case meets."""
    backlog, rss = report["backlog_rounds"], report["rss_mib"]
    goals = {
        "nothing_lost": report["rounds_lost"] == 0 and report["corrections_received"] == report["corrections_expected"],
        "in_order": report["corrections_out_of_order"] == 0,
    }
    if name.endswith("_1us"):
        goals["backlog_median_200"] = backlog["median_last_tenth"] <= 200
        goals["no_upward_slope"] = backlog["slope_interval"][0] <= 0
    if name == "d5_10us":
        goals["reaction_p50_25us"] = report["reaction_us"]["p50"] <= 25
    if report["rounds_sent"] >= 10_000_000:
        goals["memory_1_mib"] = rss["at_end"] - rss["at_10_percent"] <= 1
    if floor is not None:
        goals["floor_itself_meets_25us"] = floor["reception_us"]["p50"] <= 25
    return goals


def run_case(name: str) -> dict[str, Any]:
    """One case: the report of the run, its floor, its goals, and where it was measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [sys.executable, "-m", "firmware_sim.cli", "loop", *CASES[name], "--report", str(path)]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        report = json.loads(path.read_text())
    del report["histograms"]
    report["command"] = "firmware-sim loop " + " ".join(CASES[name])
    floor = None
    if name in FLOORS:
        period, rounds = FLOORS[name]
        arguments = ["-m", "bench.floor", "--period-us", period, "--rounds", rounds]
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        floor = json.loads(done.stdout)
    return {
        "benchmark": name,
        "date": datetime.now(UTC).date().isoformat(),
        **source(),
        "goals": goals_of(name, report, floor),
        "floor": floor,
        "report": report,
    }


def main() -> None:
    for name in sys.argv[1:] or CASES:
        result = run_case(name)
        with RESULTS.open("a") as file:
            file.write(json.dumps(result) + "\n")
        report = result["report"]
        print(name, result["goals"])
        print("  backlog", report["backlog_rounds"])
        print("  reaction", report["reaction_us"], "service", report["service_us"], "memory", report["rss_mib"])
        if result["floor"]:
            print("  floor", result["floor"]["reception_us"])


if __name__ == "__main__":
    main()
