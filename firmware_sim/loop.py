"""Start a daemon, feed it, check every correction, report."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from firmware_sim.controller import Controller
from firmware_sim.deaths import DeathPlan, Deaths, check_plan
from firmware_sim.journal import journal_of_blocks
from firmware_sim.lanes import lane_process, lanes_of
from firmware_sim.report import DaemonCounts, build_report
from rtqec.config import Config
from rtqec.errors import ExitCode, FaultError, RtqecError
from rtqec.plan import compile_plans
from rtqec.telemetry import TelemetryBlock, telemetry_path
from rtqec.units import BYTES_PER_MIB

_READY_TIMEOUT_S = 300.0
"""First start on a slow machine: compiling the kernels and the matchers."""
_STOP_TIMEOUT_S = 20.0
_EARLY_FRACTION = 0.1


class DaemonExitError(RtqecError):
    """The daemon ended by itself; its own message is on stderr."""

    def __init__(self, code: int) -> None:
        known = ExitCode(code) if code in set(ExitCode) else ExitCode.FAULT
        self.exit_code = known
        super().__init__(f"the daemon ended with exit status {code} ({known.name}); its message is above.")


class DaemonProcess:
    """`rtqec run` in a process of its own, until READY and to its end.

    Args:
        config_path, overrides: As given to this command.
    """

    def __init__(self, config_path: str, overrides: list[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rtqec-loop-")
        address = str(Path(self._folder.name) / "notify")
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(address)
        self._notify.settimeout(0.1)
        # On a terminal the progress bar has the last line; the daemon speaks up only when something is wrong.
        quiet = ["log.level=warning"] if sys.stderr.isatty() else []
        sets = [part for override in [*quiet, *overrides] for part in ("--set", override)]
        command = [sys.executable, "-m", "rtqec.cli", "run", config_path, *sets]
        self._process = subprocess.Popen(command, env=os.environ | {"NOTIFY_SOCKET": address})

    def wait_ready(self) -> None:
        """Wait for READY=1.

        Raises:
            DaemonExitError: It ended instead.
        """
        give_up = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < give_up:
            self.check_alive()
            try:
                if b"READY=1" in self._notify.recv(4096):
                    return
            except TimeoutError:
                continue
        raise FaultError(f"the daemon did not say READY within {_READY_TIMEOUT_S:g} s.")

    def check_alive(self) -> None:
        """Raise `DaemonExitError` where it has ended."""
        code = self._process.poll()
        if code is not None:
            raise DaemonExitError(code)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def rss_mib(self) -> float:
        """Resident memory of all its processes now. Pages that they share, as a lane and its standby do, count once."""
        return self._sum(lambda process: process.memory_full_info().pss) / BYTES_PER_MIB

    @property
    def cpu_s(self) -> float:
        """The CPU time so far of all its processes that run now."""
        return self._sum(lambda process: process.cpu_times().user + process.cpu_times().system)

    def _sum(self, read: Callable[[psutil.Process], float]) -> float:
        """Over the supervisor and everything that it started; one that ends meanwhile counts for nothing."""
        total, supervisor = 0.0, psutil.Process(self.pid)
        for process in (supervisor, *supervisor.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += read(process)
        return total

    def stop(self) -> None:
        """SIGTERM, and wait; SIGKILL where it does not listen."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._notify.close()
        self._folder.cleanup()


def run_loop(
    config: Config, config_path: str, overrides: list[str], command: str, on_progress: Callable[[Controller], None],
    plan: DeathPlan | None = None, keep: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """One whole run.

    Args:
        config: The configuration, overrides applied.
        config_path, overrides: The same, for the daemon.
        command: How to repeat the run, for the report.
        on_progress: Called every few milliseconds while it runs.
        plan: Which lane dies meanwhile, if one does.
        keep: Whether the controller keeps every correction.

    Returns:
        The report; see `report.build_report`.

    Raises:
        RtqecError: The daemon did not start, or ended.
    """
    if plan is not None:
        check_plan(plan, config)
    daemon = DaemonProcess(config_path, overrides)
    try:
        controller = Controller(config, compile_plans(config), keep)
        daemon.wait_ready()
        lanes = lanes_of(config)
        blocks = [TelemetryBlock.attach(telemetry_path(lane)) for lane in lanes]
        deaths = _deaths(plan, config, controller, lanes, blocks) if plan is not None else None
        rss: dict[str, float] = {}

        def sample() -> None:
            daemon.check_alive()
            sent, total = controller.sender.rounds_sent, controller.sender.rounds_total
            if deaths is not None:
                deaths(sent, total)
            if "at_10_percent" not in rss and sent >= _EARLY_FRACTION * total:
                rss["at_10_percent"] = round(daemon.rss_mib, 3)
            on_progress(controller)

        controller.run(sample)
        if deaths is not None:
            deaths.finish()
        rss["at_end"] = round(daemon.rss_mib, 3)
        rss.setdefault("at_10_percent", rss["at_end"])
        counts = DaemonCounts.read(*blocks)
    finally:
        daemon.stop()
    return build_report(controller, counts, rss, command, deaths)


def _deaths(
    plan: DeathPlan, config: Config, controller: Controller, lanes: list[Config], blocks: list[TelemetryBlock]
) -> Deaths:
    """Let a lane of a daemon that is READY die."""
    controller.use_journal(journal_of_blocks(blocks))
    block = next(block for lane, block in zip(lanes, blocks, strict=True) if lane.lane_name == plan.lane)
    mine = [account for account in controller.accounts if account.patch_id in block.patch_ids]
    return Deaths(plan, lambda name: lane_process(config, name), block, mine)
