"""The daemon as its service manager and its operators see it: what dies comes back, what is told is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rtqec.config import load_config
from rtqec.service.ask import ask
from rtqec.telemetry import TelemetryBlock
from tests.integration.conftest import Start, command, daemons, service_file, short_folder, wait_for

DEPLOYMENT = """
[plan]
generated = "surface_code:rotated_memory_z"
distance = 3
rounds = 12
noise = 0.003

[window]
commit_rounds = 3
buffer_rounds = 3

[feed]
endpoint = "ipc://{folder}/rounds{{lane}}"
round_period_us = 40

[publish]
endpoint = "ipc://{folder}/corrections{{lane}}"

[control]
endpoint = "ipc://{folder}/control"

[deadline]
budget_us = 1000

[service]
runtime_dir = "{folder}/rtqec"
state_dir = "{folder}/state"

[lane]
count = 2

[[patch]]
id = 0
lane = 0
[[patch]]
id = 7
lane = 1
"""


class Lab:
    """A small deployment, a lane for each of its two patches, and what its daemon says of itself."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config, self.log = folder, folder / "lab.toml", folder / "log"
        self.text = DEPLOYMENT.format(folder=folder)
        self.config.write_text(self.text)

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """Over control."""
        return ask(load_config(self.config), {"verb": verb} | fields, timeout_s=60)

    def lane(self, name: str) -> dict[str, Any]:
        """Of the service file."""
        lanes = {found["name"]: found for found in service_file(self.folder)["lanes"]}
        found: dict[str, Any] = lanes[name]
        return found

    def block(self, name: str) -> TelemetryBlock:
        """A lane's telemetry."""
        return TelemetryBlock.attach(Path(self.lane(name)["telemetry"]))

    def back(self, name: str, before: int) -> bool:
        """Whether another process is the lane."""
        found = self.lane(name)
        return bool(found["state"] == "ready" and found["pid"] != before)

    def said(self, after: int) -> list[dict[str, Any]]:
        """The daemon's log, without its first bytes."""
        return [json.loads(line) for line in self.log.read_text()[after:].splitlines()]


@pytest.fixture(scope="module")
def running() -> Iterator[Lab]:
    """A daemon of the shortest patience, for tests that it survives; afterwards SIGTERM ends it with status 0."""
    with short_folder() as folder, daemons(folder) as start:
        lab = Lab(folder)
        daemon = start(str(lab.config), "service.lane_timeout_ms=300", log=lab.log)
        yield lab
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=20) == 0, lab.log.read_text()
        assert service_file(folder)["state"] == "stopped"


@pytest.fixture
def lab(runtime_dir: Path) -> Lab:
    """A deployment without a daemon."""
    return Lab(runtime_dir)


def check_that_a_lane_comes_back_alone(lab: Lab) -> None:
    """Kill lane 0, and let the next one hang: nothing else changes, and what control has set stays."""
    before, other, known = lab.lane("lane0"), lab.lane("lane1"), len(lab.log.read_text())
    assert lab.ask("budget", patch=0, budget_us=88)["ok"]
    assert lab.ask("ladder", patch=0, steps=["match"])["ok"]
    for number, restarts in ((signal.SIGKILL, 1), (signal.SIGSTOP, 2)):
        pid = lab.lane("lane0")["pid"]
        os.kill(pid, number)
        wait_for(lambda pid=pid: lab.back("lane0", pid))
        assert lab.lane("lane0")["restarts"] == before["restarts"] + restarts
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        patch = lab.block("lane0").patches[0]
        assert (int(patch["budget_ns"]), int(patch["steps_mask"])) == (88_000, 0b1)
    assert lab.lane("lane1") == other
    restarts_said = [lane["restarts"] for lane in lab.ask("status")["lanes"]]
    assert restarts_said == [before["restarts"] + 2, other["restarts"]]
    died = [(line["lane"], line["reason"]) for line in lab.said(known) if line["event"] == "lane_died"]
    assert died == [("lane0", "SIGKILL"), ("lane0", "silent")]


def test_a_lane_that_dies_or_hangs_comes_back_alone(running: Lab) -> None:
    """Killed or stopped: a copy of the process that stands by takes its place, and nothing else."""
    check_that_a_lane_comes_back_alone(running)


def test_a_lane_without_a_standby_comes_back_alone(lab: Lab, start_daemon: Start) -> None:
    """As with one; and the daemon then ends with status 0."""
    daemon = start_daemon(str(lab.config), "service.standby=false", log=lab.log)
    check_that_a_lane_comes_back_alone(lab)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(timeout=20) == 0, lab.log.read_text()
    assert service_file(lab.folder)["state"] == "stopped"


def test_an_idle_daemon_is_left_alone(running: Lab) -> None:
    """Lanes beat also when nothing comes: over many times the shortest patience none is restarted."""
    before = running.ask("status")["lanes"]
    started = time.monotonic()
    wait_for(lambda: time.monotonic() - started > 3)
    assert running.ask("status")["lanes"] == before


def test_sighup_takes_over_what_can_change(running: Lab) -> None:
    """Budgets change, what a lane is built on does not, and the log says both."""
    process, known = service_file(running.folder)["pid"], len(running.log.read_text())

    def reload(text: str, entries: int) -> list[dict[str, Any]]:
        """What the log says of reloads, once it says so much."""
        running.config.write_text(text)
        os.kill(process, signal.SIGHUP)

        def found() -> list[dict[str, Any]]:
            return [line for line in running.said(known) if line["event"].startswith("reload")]

        wait_for(lambda: len(found()) >= entries)
        return found()

    changed = running.text.replace("budget_us = 1000", "budget_us = 77").replace("[lane]", "[lane]\nspin_us = 5.0")
    reload(changed, 2)
    wait_for(lambda: running.block("lane1").patches["budget_ns"].tolist() == [77_000])
    lines = reload("nonsense = 1\n" + changed, 3)
    said = [(line["event"], line.get("key")) for line in lines]
    assert said == [("reload_refused", "lane.spin_us"), ("reloaded", "deadline.budget_us"), ("reload_refused", None)]
    assert "restart" in lines[0]["reason"]
    assert "nonsense" in lines[2]["reason"]
    running.config.write_text(running.text)


def test_a_daemon_whose_supervisor_is_killed_leaves_no_lane_behind(lab: Lab, start_daemon: Start) -> None:
    """Lanes end when nobody is there to tell them anything; a new daemon can take their endpoints. That one is told to
    drain: it ends with status 0, and leaves nobody behind either."""
    first = start_daemon(str(lab.config))
    processes = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    assert psutil.wait_procs(processes, timeout=20)[1] == []
    daemon = start_daemon(str(lab.config))
    processes = psutil.Process(daemon.pid).children(recursive=True)
    assert lab.ask("drain") == {"ok": True, "state": "draining"}
    _, errors = daemon.communicate(timeout=20)
    assert daemon.returncode == 0, errors
    assert psutil.wait_procs(processes, timeout=5)[1] == []


@pytest.mark.parametrize("sharing_out", [False, True], ids=["lanes prepare", "patches are measured"])
def test_a_stop_during_the_start_is_obeyed_at_once(lab: Lab, sharing_out: bool) -> None:
    """No lane needs to be ready first, nor to be there."""
    if sharing_out:
        text = lab.text.replace("lane = 0\n", "plan = { rounds = 30 }\n").replace("lane = 1\n", "")
        lab.config.write_text(text)
    daemon = subprocess.Popen(command("rtqec", "run", str(lab.config)), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(psutil.Process(daemon.pid).children()) == 2)
    daemon.send_signal(signal.SIGINT)
    _, errors = daemon.communicate(timeout=20)
    assert daemon.returncode == 0, errors
    assert "Traceback" not in errors
