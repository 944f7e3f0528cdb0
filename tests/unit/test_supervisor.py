"""The supervisor by itself, with lanes that are no processes: what ends it, and what a reload leaves as it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgpack
import pytest
import typer

from rtqec import cli
from rtqec.config import Config, load_config
from rtqec.errors import ExitCode
from rtqec.service.control import Control
from rtqec.service.state import service_path
from rtqec.service.supervisor import Supervisor
from rtqec.telemetry import TelemetryBlock, telemetry_path

DEPLOYMENT = """
[plan]
generated = "surface_code:rotated_memory_z"
distance = 3
rounds = 12
noise = 0.01

[window]
commit_rounds = 3
buffer_rounds = 3

[feed]
endpoint = "ipc://{folder}/rounds"
round_period_us = 1

[publish]
endpoint = "ipc://{folder}/corrections"

[control]
endpoint = "ipc://{folder}/control"

[service]
runtime_dir = "{folder}/rtqec"
state_dir = "{folder}/state"

[deadline]
budget_us = 1000
"""
LADDER = ["match", "catch_up", "union_find"]
Watch = Callable[["FakeLane"], Coroutine[Any, Any, None]]


async def watch_for_ever(_lane: FakeLane) -> None:
    await asyncio.Event().wait()


class FakeLane:
    """What the supervisor knows of a lane (`LaneKeeper`): one that is up at once, and has a telemetry block.

    `watching` is what it does while it is watched.
    """

    watching: Watch = watch_for_ever

    def __init__(self, deployment: Config, index: int, patch_ids: list[int], _on_change: Any) -> None:
        self.config = deployment.of_lane(index, patch_ids)
        self.name, self.state = self.config.lane_name, "ready"
        self.pid = self.path_pid = self.restarts = 0
        self.patches = [
            {"id": patch_id, "lane": self.name, "plan_tag": "0", "digest": "0", "ladder": LADDER}
            for patch_id in patch_ids
        ]
        self.telemetry = TelemetryBlock.create(telemetry_path(self.config), patch_ids, 16)
        self.telemetry.patches["budget_ns"], self.telemetry.patches["steps_mask"] = 1_000_000, 0b111

    async def start(self) -> None:
        pass

    async def watch(self) -> None:
        await type(self).watching(self)

    def order(self, message: dict[str, Any]) -> None:
        pass

    async def drain(self, _timeout_s: float) -> bool:
        self.state = "draining"
        return True

    async def stop(self) -> ExitCode:
        assert self.state == "draining"
        self.state = "stopped"
        return ExitCode.OK


@pytest.fixture
def config_file(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment whose lanes are `FakeLane`s, in a folder with a short path."""
    folder = tmp_path_factory.mktemp("s")
    monkeypatch.setattr("rtqec.service.supervisor.LaneKeeper", FakeLane)
    path = folder / "lab.toml"
    path.write_text(DEPLOYMENT.format(folder=folder))
    return path


async def fail(*_whose: Any) -> None:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    "service",
    [
        "tests.unit.test_supervisor.FakeLane.watching", "rtqec.service.supervisor.ControlServer.serve",
        "rtqec.service.supervisor.Supervisor._feed_watchdog",
    ],
    ids=["lane", "control", "watchdog"],
)  # fmt: skip
def test_a_service_that_fails_ends_the_daemon_with_a_fault(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    """Whichever it is: the lanes drain and stop as ever, and the exit status is 3, so that the service manager starts
    the daemon anew."""
    monkeypatch.setattr(service, fail)
    monkeypatch.setattr("rtqec.log.configure", lambda *_as_of_this_process: None)
    with pytest.raises(typer.Exit) as ended:
        cli.run(config_file)
    assert ended.value.exit_code == ExitCode.FAULT == 3
    said = json.loads(service_path(load_config(config_file)).read_text())
    assert (said["state"], [lane["state"] for lane in said["lanes"]]) == ("stopped", ["stopped"])


async def ask(supervisor: Supervisor, **asked: Any) -> None:
    """Over control, as somebody on this machine; it must be done."""
    answer = msgpack.unpackb(await Control(supervisor).answer(msgpack.packb(asked), "local uid 0"))
    assert answer["ok"], answer


@pytest.mark.parametrize("changed", ["", '[log]\nlevel = "debug"\n'], ids=["nothing", "log level"])
def test_a_reload_leaves_what_control_has_set(config_file: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    """Where no budget of the configuration changed, budgets and steps stay those that `budget` and `ladder` have set;
    where one did, the configuration's holds."""
    monkeypatch.setattr("rtqec.service.control._CHANGE_WAIT_S", 0.0)
    monkeypatch.setattr("rtqec.log._threshold", 0)
    supervisor = Supervisor(load_config(config_file), config_file, [])
    text = config_file.read_text()
    found: list[tuple[int, int]] = []

    def look(lane: FakeLane) -> None:
        patch = lane.telemetry.patches[0]
        found.append((int(patch["budget_ns"]), int(patch["steps_mask"])))

    async def operate(lane: FakeLane) -> None:
        await ask(supervisor, verb="budget", patch=0, budget_us=77)
        await ask(supervisor, verb="ladder", patch=0, steps=["match", "union_find"])
        look(lane)
        for content in (text + changed, text.replace("budget_us = 1000", "budget_us = 500")):
            config_file.write_text(content)
            supervisor._reload()
            look(lane)
        supervisor.drain()

    monkeypatch.setattr(FakeLane, "watching", operate)
    assert asyncio.run(supervisor.run()) is ExitCode.OK
    assert found == [(77_000, 0b101), (77_000, 0b101), (500_000, 0b101)]
