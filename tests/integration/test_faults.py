"""A world that goes wrong around a real daemon: what was injected is what it says, and what it says is right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from rtqec.config import load_config
from rtqec.service.ask import ask
from rtqec.wire import CORRECTION
from tests.integration.conftest import CONFIGS, SMALL, RunLoop, Start, command


@pytest.mark.parametrize(
    "faults",
    [
        ["drop:probability=0.01", "duplicate:probability=0.01", "corrupt:probability=0.01"],
        ["reorder:probability=0.01,distance=4", "wrong_plan:probability=0.005", "skip:probability=0.002,rounds=3"],
        ["restart:every_rounds=4000,silence_ms=400", "stall:every_rounds=3000,duration_ms=5"],
    ],
    ids=["drop duplicate corrupt", "reorder wrong_plan skip", "restart stall"],
)
def test_the_daemon_counts_what_was_injected(runtime_dir: Path, faults: list[str]) -> None:
    """Every fault is seen, none is invented, count by count; order, plan and frames are right all the same."""
    report = runtime_dir / "report.json"
    sets = [*SMALL, "feed.reorder_depth=8", "feed.gap_wait_us=20000", "feed.ring_rounds=262144", "source.shots=1600"]
    done = subprocess.run(
        command(
            "firmware_sim", "loop", str(CONFIGS / "d5_memory_z.toml"), "--report", str(report),
            *[part for item in sets for part in ("--set", item)], *[part for f in faults for part in ("--fault", f)],
        ),
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(report.read_text())["faults"]
    assert all(check["equal"] for check in said["agree"])
    assert len(said["agree"]) > 10


def test_a_short_chaos(runtime_dir: Path) -> None:
    """Random faults, pauses, a deaf controller, rushes: every correction decoded again gives the same bits."""
    report = runtime_dir / "chaos.json"
    # Of this seed three episodes have all of them.
    options = ["--minutes", "0.4", "--seed", "24", "--report", str(report)]
    done = subprocess.run(
        command("firmware_sim", "chaos", str(CONFIGS / "chaos.toml"), *options),
        capture_output=True, text=True, timeout=280, check=False, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert {episode["trouble"] for episode in found["episodes"]} == {"rush", "deaf", "pause"}
    assert found["violations"] == []
    assert found["totals"]["corrections"] > 50_000
    assert found["totals"]["marked_shots"] > 0


def test_a_rush_is_answered_by_holding_and_amended(run_loop: RunLoop) -> None:
    """Rounds come far faster than they can be decoded for a while: answers go on, and after it all is as ever."""
    report = run_loop(
        "d5_memory_z.toml",
        "plan.matching=correlated",
        'ladder.fallbacks=["catch_up"]',
        "ladder.backlog_rounds=400",
        "feed.ring_rounds=262144",
        "source.shots=3000",
        "source.rounds_per_message=10",
        "pace.period_us=30",
        "pace.rush_rounds=[30000, 90000]",
        "pace.rush_factor=30",
        "sink.settle_s=60",
    )
    assert report["corrections_out_of_order"] == report["bad_amendments"] == report["corrections_wrong_frame"] == 0
    assert report["rounds_answered"] == report["rounds_expected"] == 3000 * 51
    assert report["rounds_held"] == report["rounds_amended"] + report["daemon"]["rounds_given_up"] > 0


def test_nothing_is_lost_in_silence_when_the_controller_does_not_read(
    start_daemon: Start,
    runtime_dir: Path,
) -> None:
    """The transport's queue overflows, the lane goes on; the journal has the last corrections, in order."""
    sets = (
        *SMALL,
        f"control.endpoint=ipc://{runtime_dir}/control",
        "publish.send_queue=10",
        "publish.journal_corrections=1000",
        "feed.ring_rounds=262144",
        "ladder.fallbacks=[]",
    )
    start_daemon("d5_memory_z.toml", *sets)
    config = load_config(CONFIGS / "d5_memory_z.toml", [*sets, "source.send_queue=100"])
    controller = subprocess.Popen(
        command(
            "firmware_sim", "run", str(CONFIGS / "d5_memory_z.toml"), "--shots", "8000",
            *[part for item in (*SMALL, "sink.settle_s=3", "source.send_queue=100000") for part in ("--set", item)],
        ),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        answer = ask(config, {"verb": "status"})["patches"][0]
        if answer["corrections"] > 500:
            break
    # The controller stops altogether: its rounds are in the transport, and it reads nothing any more.
    controller.send_signal(signal.SIGSTOP)
    before = -1
    while time.monotonic() < give_up and answer["corrections"] != before:
        before = answer["corrections"]
        time.sleep(0.3)
        answer = ask(config, {"verb": "status"})["patches"][0]
    counters = answer["counters"]
    assert counters["corrections_sent"] + counters["corrections_unsent"] == answer["corrections"]
    resent = ask(config, {"verb": "resend", "patch": 0, "first": max(answer["corrections"] - 900, 0)})
    found = np.frombuffer(b"".join(resent["corrections"]), CORRECTION)
    assert found["window_index"][-1] == answer["corrections"] - 1
    assert (np.diff(found["window_index"].astype(np.int64)) == 1).all()
    controller.kill()
    controller.wait()
