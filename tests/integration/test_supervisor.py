"""The daemon as its service manager and its operators see it: what dies comes back, what is told is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rtqec.config import load_config
from rtqec.service.ask import ask
from rtqec.telemetry import TelemetryBlock
from tests.integration.conftest import CONFIGS, Start, command, service_file, wait_for

TWO_LANES = (
    "lane.count=2", "feed.endpoint=ipc://${XDG_RUNTIME_DIR}/rounds{lane}",
    "publish.endpoint=ipc://${XDG_RUNTIME_DIR}/corrections{lane}", "control.endpoint=ipc://${XDG_RUNTIME_DIR}/control",
)  # fmt: skip


def lane(runtime_dir: Path, name: str) -> dict[str, Any]:
    lanes = {found["name"]: found for found in service_file(runtime_dir)["lanes"]}
    found: dict[str, Any] = lanes[name]
    return found


def asked(verb: str, **fields: Any) -> dict[str, Any]:
    return ask(load_config(CONFIGS / "two_patches.toml", TWO_LANES), {"verb": verb} | fields, timeout_s=60)


def back(runtime_dir: Path, name: str, before: int) -> bool:
    found = lane(runtime_dir, name)
    return bool(found["state"] == "ready" and found["pid"] != before)


@pytest.mark.parametrize("standby", ["true", "false"])
def test_a_lane_that_dies_or_hangs_comes_back_alone(start_daemon: Start, runtime_dir: Path, standby: str) -> None:
    """Killed or stopped, with or without a process that stands by: another one takes its place, and nothing else."""
    daemon = start_daemon("two_patches.toml", *TWO_LANES, f"service.standby={standby}")
    other = lane(runtime_dir, "lane1")
    for number, restarts in ((signal.SIGKILL, 1), (signal.SIGSTOP, 2)):
        pid = lane(runtime_dir, "lane0")["pid"]
        os.kill(pid, number)
        wait_for(lambda pid=pid: back(runtime_dir, "lane0", pid))
        assert lane(runtime_dir, "lane0")["restarts"] == restarts
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert lane(runtime_dir, "lane1") == other
    status = asked("status")
    assert [found["restarts"] for found in status["lanes"]] == [2, 0]
    daemon.send_signal(signal.SIGTERM)
    _, errors = daemon.communicate(timeout=20)
    assert daemon.returncode == 0, errors
    assert [reason for reason in ("SIGKILL", "silent") if f'"reason": "{reason}"' in errors] == ["SIGKILL", "silent"]
    assert service_file(runtime_dir)["state"] == "stopped"


def test_an_idle_daemon_is_left_alone(start_daemon: Start, runtime_dir: Path) -> None:
    """Lanes beat also when nothing comes: over many times the shortest patience none is restarted."""
    start_daemon("two_patches.toml", *TWO_LANES, "service.lane_timeout_ms=300")
    before = asked("status")["lanes"]
    started = time.monotonic()
    wait_for(lambda: time.monotonic() - started > 3)
    assert asked("status")["lanes"] == before


def test_sighup_takes_over_what_can_change(start_daemon: Start, runtime_dir: Path, tmp_path: Path) -> None:
    """Budgets change, endpoints do not, and the log says both."""
    config = tmp_path / "changing.toml"
    text = (CONFIGS / "two_patches.toml").read_text()
    config.write_text(text)
    daemon = start_daemon(str(config), *TWO_LANES)
    block = TelemetryBlock.attach(Path(lane(runtime_dir, "lane1")["telemetry"]))
    config.write_text(text + "\n[lane]\nspin_us = 5.0\n[deadline]\nbudget_us = 77.0\n")
    daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: block.patches["budget_ns"].tolist() == [77_000])
    config.write_text("nonsense = 1\n" + text)
    daemon.send_signal(signal.SIGHUP)
    asked("drain")
    _, errors = daemon.communicate(timeout=20)
    lines = [json.loads(line) for line in errors.splitlines()]
    found = [(line["event"], line.get("key")) for line in lines if line["event"].startswith("reload")]
    assert found == [("reload_refused", "lane.spin_us"), ("reloaded", "deadline.budget_us"), ("reload_refused", None)]
    assert "restart" in next(line["reason"] for line in lines if line.get("key") == "lane.spin_us")
    assert any("nonsense" in line.get("reason", "") for line in lines)


def test_drain_ends_the_daemon_with_status_0(start_daemon: Start, runtime_dir: Path) -> None:
    """Over control as by SIGTERM; and nobody is left behind."""
    daemon = start_daemon("two_patches.toml", *TWO_LANES)
    processes = psutil.Process(daemon.pid).children(recursive=True)
    assert asked("drain") == {"ok": True, "state": "draining"}
    _, errors = daemon.communicate(timeout=20)
    assert daemon.returncode == 0, errors
    assert psutil.wait_procs(processes, timeout=5)[1] == []


def test_a_daemon_whose_supervisor_is_killed_leaves_no_lane_behind(start_daemon: Start, runtime_dir: Path) -> None:
    """Lanes end when nobody is there to tell them anything; a new daemon can take their endpoints."""
    first = start_daemon("two_patches.toml", *TWO_LANES)
    processes = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    assert psutil.wait_procs(processes, timeout=20)[1] == []
    start_daemon("two_patches.toml", *TWO_LANES)


def test_a_stop_during_the_start_is_obeyed_at_once(runtime_dir: Path) -> None:
    """No lane needs to be ready first."""
    sets = [part for item in TWO_LANES for part in ("--set", item)]
    daemon = subprocess.Popen(
        command("rtqec", "run", str(CONFIGS / "two_patches.toml"), *sets), stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(psutil.Process(daemon.pid).children()) == 2)
    daemon.send_signal(signal.SIGINT)
    _, errors = daemon.communicate(timeout=20)
    assert daemon.returncode == 0, errors
    assert "Traceback" not in errors
