"""The bench's wire runs, small: a real daemon, a simulated controller, a null decoder, and a row of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.cases import cases_of
from bench.cost import CostMeter
from bench.daemon import feeding
from bench.energy import Counters
from bench.inline import InlineLane
from bench.recorded import record
from bench.trial import make_trial
from rtqec.config import LadderTable
from rtqec.plan import Plan
from tests.integration.conftest import CONFIGS

SMALL = ["plan.distance=3", "window.commit_rounds=3", "window.buffer_rounds=3", "ladder.fallbacks=[]"]
"""However busy the machine that runs the tests: no windows are joined to catch up."""


def bench(verb: str, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One verb as its module runs it, so that the null decoder's process finds its way back."""
    program = f"import typer; from bench.{verb} import {verb}; typer.run({verb})"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments, "--out", str(out)],
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip


def rows_of(out: Path, verb: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{verb}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("config", ["d5_memory_z.toml", "d5_1us.toml"], ids=["shots", "endless"])
def test_a_wire_run_has_a_floor(tmp_path: Path, config: str) -> None:
    """Every window of what was sent is in the row, every message in the floor, and both in the log."""
    sets = [part for item in (*SMALL, "plan.noise=0.001") for part in ("--set", item)]
    done = bench(
        "latency", tmp_path, str(CONFIGS / config), *sets, "--set", "pace.period_us=100", "--mode", "wire",
        "--rounds", "2040", "--late-us", "5000000",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = rows_of(tmp_path, "latency")
    result = row["result"]
    assert result["accepted"]
    assert result["mode"] == "wire"
    assert result["rounds"] == result["floor_us"]["count"] == 2040
    assert result["corrections"] == result["reaction_us"]["count"] == (40 * 16 if config.startswith("d5_m") else 679)
    assert result["floor_lost"] == 0
    assert result["service_us"]["p50"] < result["reaction_us"]["p50"]
    assert result["reaction_us"]["p99.99"] is None
    assert result["ccdf"]["reaction"][-1] == [result["reaction_us"]["max"], 0.0]
    lines = (tmp_path / result["hdr_log"]).read_text().splitlines()
    tags = [line.partition(",")[0] for line in lines if line.startswith("Tag=")]
    assert tags == ["Tag=reaction", "Tag=service", "Tag=floor"]


def test_a_trial_that_is_far_too_fast_does_not_spoil_the_next(runtime_dir: Path) -> None:
    """One daemon: a rate that it holds, one that no machine holds, and the first again."""
    (case,) = cases_of(CONFIGS / "d5_memory_z.toml", SMALL, [])
    with feeding(case.path, list(case.overrides)) as feeder:
        slow = [make_trial(feeder, 1000.0, 1.0, Counters())]
        fast = make_trial(feeder, 50e6, 0.01, Counters())
        slow.append(make_trial(feeder, 1000.0, 1.0, Counters()))
    assert fast.held is not True
    for trial in slow:
        assert trial.fed is not None
        report = trial.fed.report
        assert report["rounds_answered"] == report["rounds_sent"] == 1020
        assert report["backlog_rounds"]["max"] >= 0
        assert trial.fed.counts.totals["windows"] == 20 * 16
    assert not list(runtime_dir.iterdir())


@pytest.mark.parametrize("plan_name", ["plan_d3", "plan_endless"])
def test_what_the_path_costs_is_counted_over_whole_windows(plan_name: str, request: pytest.FixtureRequest) -> None:
    """Rounds and windows are those that the plan makes of the recorded rounds, one by one and saturated."""
    plan: Plan = request.getfixturevalue(plan_name)
    shots = record(plan, 9000, seed=2)
    with InlineLane(plan, LadderTable(fallbacks=["catch_up"])) as lane:
        cost = CostMeter(lane, shots)
        single = cost.one_by_one(0.02)
        saturated = cost.saturated(0.02, 1.0)
    windows_per_round = len(shots.closings(plan)) / shots.total
    assert single.windows / single.rounds.sum() == pytest.approx(windows_per_round, rel=0.02)
    assert saturated.rounds.sum() > 2 * saturated.windows / windows_per_round
    assert single.rungs["hold"] == saturated.rungs["hold"] == 0
    low, high = single.interval_us(0.95)
    assert low <= single.us_per_round <= high
