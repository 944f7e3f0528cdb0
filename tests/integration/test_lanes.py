"""Several lanes, each a process: what one of them carries is right, whatever becomes of the others or of itself."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firmware_sim.controller import Controller
from firmware_sim.deaths import DeathPlan
from firmware_sim.loop import run_loop
from firmware_sim.replay import Invariants, Replay
from firmware_sim.report import problems_of
from rtqec.config import load_config
from rtqec.wire import CorrectionFlag, FrameStatus, Rung
from tests.integration.conftest import CONFIGS, SMALL, command

DEPLOYMENT = """
[plan]
generated = "surface_code:rotated_memory_z"
distance = 3
rounds = 30
noise = 0.003

[window]
commit_rounds = 3
buffer_rounds = 3

[feed]
endpoint = "ipc://${XDG_RUNTIME_DIR}/{lane}-rounds.ipc"
round_period_us = 150
ring_rounds = 65536

[publish]
endpoint = "ipc://${XDG_RUNTIME_DIR}/{lane}-corrections.ipc"
journal_corrections = 32768

[deadline]
budget_us = 2_000_000

[service]
lane_timeout_ms = 5000

[ladder]
fallbacks = []

[lane]
count = 2

[log]
level = "warning"

[source]
shots = 1200
rounds = 37_200

[[patch]]
id = 0
lane = 0
[[patch]]
id = 1
lane = 0
plan = { rounds = "endless" }
[[patch]]
id = 2
lane = 1
[[patch]]
id = 3
lane = 1
plan = { rounds = "endless" }
"""
"""In each lane finite shots and an endless stream. However busy the machine that runs the tests: nothing steps down, no
lane that is alive is taken for one that hangs, and what is on time on a lane of its own stays on time."""
NO_LOSS = np.zeros((0, 2), np.int64)


@pytest.fixture
def deployment(runtime_dir: Path) -> Path:
    """`DEPLOYMENT` as a file."""
    path = runtime_dir / "lanes.toml"
    path.write_text(DEPLOYMENT)
    return path


def run(path: Path, *overrides: str, plan: DeathPlan | None = None) -> tuple[dict[str, Any], Controller]:
    """`firmware-sim loop` in this process, and every correction."""
    controllers: list[Controller] = []
    sets = ["log.level=warning", "sink.settle_s=60", *overrides]
    config = load_config(path, sets)
    report = run_loop(
        config, str(path), sets, "", lambda c: controllers.append(c) if not controllers else None, plan, True
    )
    return report, controllers[0]


def replayed(controller: Controller, patch_id: int, lanes_died: bool = False) -> Invariants:
    """What comes out when every correction of a patch is decoded again."""
    index = [account.patch_id for account in controller.accounts].index(patch_id)
    shots, account = controller.sender.shots[index], controller.accounts[index]
    assert shots is not None
    return Replay(controller.plans[index], shots, False).check(account.corrections, NO_LOSS, lanes_died)


def test_two_lanes_decode_as_one_would(runtime_dir: Path) -> None:
    """Patches that the daemon has shared out itself: every correction of both lanes is that of the plan's windows."""
    report, controller = run(
        CONFIGS / "two_patches.toml", *SMALL, "lane.count=2", "ladder.fallbacks=[]", "feed.ring_rounds=65536",
        f"feed.endpoint=ipc://{runtime_dir}/{{lane}}-rounds", f"publish.endpoint=ipc://{runtime_dir}/{{lane}}-corrections",
        "source.shots=500", "pace.period_us=60",
    )  # fmt: skip
    assert problems_of(report) == []
    assert report["corrections_received"] == report["corrections_expected"] == 500 * (4 + 10)
    assert report["daemon"]["rounds"] == report["rounds_sent"] == 500 * (13 + 31)
    assert report["daemon"]["unknown_patch"] == 0
    assert all(replayed(controller, patch_id).hold for patch_id in (0, 7))


def test_a_lane_that_is_killed_takes_nothing_of_the_others_with_it(deployment: Path) -> None:
    """kill -9 under load, three times: its patches resume and flag every deviation, the other lane notices nothing."""
    report, controller = run(deployment, plan=DeathPlan("lane0", 3))
    assert problems_of(report) == []
    deaths = report["lane_deaths"]
    assert deaths["times"] == deaths["back"] == 3
    # Of an endless stream a window's buffer, at least, is always lost.
    assert deaths["rounds_gone"]["total"] > 0
    finite, endless, other_finite, other_endless = controller.accounts
    assert replayed(controller, 0, lanes_died=True).hold
    assert report["deviations"] == 0
    check_endless(endless.corrections)
    assert replayed(controller, 2).hold
    for account in (other_finite, other_endless):
        assert not account.marked.any()
        assert account.finished.all()
        assert account.flags["late"] == account.resent == account.leaps == 0
    assert finite.finished[-1]


def check_endless(corrections: np.ndarray[Any, Any]) -> None:
    """A stream that lanes have left in the middle: each round once; clean to the first gap, tainted from there on."""
    stops = corrections["first_round"] + corrections["num_rounds"]
    assert corrections["first_round"].tolist() == [0, *stops[:-1].tolist()]
    assert int(stops[-1]) == 37_200
    assert np.array_equal(np.bitwise_xor.accumulate(corrections["flips"]), corrections["frame"])
    held = np.flatnonzero(corrections["rung"] == Rung.HOLD)
    admitted = CorrectionFlag.LOSSY | CorrectionFlag.DEGRADED
    assert len(held) >= 3
    assert (corrections["flags"][held] & admitted == admitted).all()
    tainted = corrections["frame_status"] == FrameStatus.TAINTED
    assert not tainted[: held[0]].any()
    assert tainted[held[0] :].all()
    assert (corrections["tainted_since"][held[0] :] == corrections["first_round"][held[0]]).all()


def test_a_lane_that_hangs_is_replaced(deployment: Path, runtime_dir: Path) -> None:
    """SIGSTOP of a lane, by the command line: it is killed and comes back, and the report says how long that took."""
    report = runtime_dir / "report.json"
    done = subprocess.run(
        command(
            "firmware_sim", "loop", str(deployment), "--report", str(report), "--kill-lane", "lane1", "--kills", "1",
            "--kill-signal", "STOP", "--set", "service.lane_timeout_ms=2500",
        ),
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lane1 1 times (STOP)" in done.stdout
    deaths = json.loads(report.read_text())["lane_deaths"]
    assert deaths["back"] == 1
    # It is dead when its beats have stood still for `[service] lane_timeout_ms`.
    assert deaths["first_correction_ms"]["median"] > 2400
    assert deaths["others"]["lossy"] == deaths["others"]["resent"] == 0
