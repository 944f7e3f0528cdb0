"""Runs of a real daemon against a simulated controller: one with what came of every shot, or one after the other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.controller import Controller
from firmware_sim.expected import missed_rounds
from firmware_sim.loop import DaemonProcess
from firmware_sim.replay import Invariants, Replay
from firmware_sim.report import DaemonCounts, build_report
from rtqec.config import Config, load_config, with_faults
from rtqec.plan import Plan, compile_plans
from rtqec.telemetry import TelemetryBlock, telemetry_path
from rtqec.units import ns_from_us

_QUIET_S = 0.1
_QUIET_MAX_S = 30.0
_RECOVERY_WINDOWS = 4
_RECOVERY_PERIOD_US = 100.0


@dataclass
class Run:
    """One run of one patch of finite shots.

    Attributes:
        report: As of `firmware-sim loop`.
        wrong: bool, shape (num_shots,): shots whose frame is not the truth.
        corrections: `wire.CORRECTION`, all of them.
        lost: int64, shape (n, 2): shot and round of those that never reached the daemon.
        invariants: What replaying every correction found.
    """

    controller: Controller
    report: dict[str, Any]
    wrong: NDArray[np.bool_]
    corrections: NDArray[Any]
    lost: NDArray[np.int64]

    def replay(self) -> Invariants:
        """Decode every correction again."""
        controller = self.controller
        sent = controller.sender.shots[0]
        assert sent is not None
        events = controller.config.feed.payload == "detection_events"
        return Replay(controller.plans[0], sent, events).check(self.corrections, self.lost)


@contextmanager
def running(path: Path, overrides: list[str]) -> Iterator[tuple[Config, DaemonProcess]]:
    """A daemon that is READY."""
    config = load_config(path, overrides)
    daemon = DaemonProcess(str(path), ["log.level=warning", *overrides])
    try:
        daemon.wait_ready()
        yield config, daemon
    finally:
        daemon.stop()


def run_shots(
    path: Path, overrides: list[str], faults: list[dict[str, Any]] | None = None,
    look: Callable[[Controller, TelemetryBlock], None] | None = None,
) -> Run:  # fmt: skip
    """Start a daemon, send all shots, stop it."""
    with running(path, overrides) as (plain, daemon):
        config = with_faults(plain, faults or [])
        controller = Controller(config, compile_plans(config), keep=True)
        block = TelemetryBlock.attach(telemetry_path(config))

        def sample() -> None:
            daemon.check_alive()
            if look is not None:
                look(controller, block)

        controller.run(sample)
        counts = DaemonCounts.read(block)
    sent, account = controller.sender.shots[0], controller.accounts[0]
    assert sent is not None
    assert sent.observable_flips is not None
    wrong = account.frames != sent.observable_flips
    return Run(
        controller,
        build_report(controller, counts, None, ""),
        wrong,
        account.corrections,
        missed_rounds(config, controller.sender, 0),
    )


@dataclass(frozen=True)
class Fed:
    """What came of feeding a daemon once.

    Attributes:
        controller: After its run.
        counts: What the daemon counted meanwhile.
        cpu_s: CPU time of the daemon meanwhile, all processes and threads.
    """

    controller: Controller
    counts: DaemonCounts
    cpu_s: float

    @property
    def report(self) -> dict[str, Any]:
        """As of `firmware-sim loop`."""
        return build_report(self.controller, self.counts, None, "")


class Feeder:
    """Feeds one daemon again and again.

    Args:
        path, overrides: What it was started with.
        daemon: It.
        plans: One per patch.

    Attributes:
        block: What the daemon counts.
    """

    def __init__(self, path: Path, overrides: list[str], daemon: DaemonProcess, plans: list[Plan]) -> None:
        self.plans = plans
        self._path, self._overrides, self._daemon = path, overrides, daemon
        self.block = TelemetryBlock.attach(telemetry_path(load_config(path, overrides)))

    def config(self, *more: str) -> Config:
        """The daemon's configuration with further overrides, which only the simulated controller may read."""
        return load_config(self._path, [*self._overrides, *more])

    def sending(self, rounds: int) -> list[str]:
        """Overrides with which each patch is sent so many rounds, or the next whole shot, and nothing is compared."""
        overrides = ["sink.compare=false"]
        lengths = [plan.num_rounds for plan in self.plans if plan.num_rounds is not None]
        if lengths:
            overrides.append(f"source.shots={-(-rounds // min(lengths))}")
        if len(lengths) < len(self.plans):
            overrides.append(f"source.rounds={rounds}")
        return overrides

    def feed(
        self, *more: str, keep: bool = False, late_bound_us: float | None = None,
        look: Callable[[Controller], None] | None = None,
    ) -> Fed:  # fmt: skip
        """Send what a configuration with further overrides says, and wait for the answers.

        Args:
            more: Overrides of `[source]`, `[pace]` and `[sink]`.
            keep: Whether to keep every correction.
            late_bound_us: How late a round may leave before the sender counts it; None: its own bound.
            look: Called every few milliseconds; may raise to end the run.
        """
        controller = Controller(self.config(*more), self.plans, keep=keep)
        if late_bound_us is not None:
            controller.sender.late_bound_ns = ns_from_us(late_bound_us)
        before, cpu_before = DaemonCounts.read(self.block), self._daemon.cpu_s

        def sample() -> None:
            self._daemon.check_alive()
            if look is not None:
                look(controller)

        controller.run(sample)
        return Fed(controller, DaemonCounts.read(self.block) - before, self._daemon.cpu_s - cpu_before)

    def recover(self) -> None:
        """After a run that was ended early, or lost rounds: let the daemon work off what has reached it.

        A shot that broke off is answered when the next source begins. That answer is of no run that counts: a short
        one takes it.
        """
        give_up = time.monotonic() + _QUIET_MAX_S
        before, counts = None, self.block.totals()
        while counts != before and time.monotonic() < give_up:
            time.sleep(_QUIET_S)
            before, counts = counts, self.block.totals()
        longest = max(plan.window.rounds for plan in self.plans)
        self.feed(*self.sending(_RECOVERY_WINDOWS * longest), f"pace.period_us={_RECOVERY_PERIOD_US}")


@contextmanager
def feeding(path: Path, overrides: list[str]) -> Iterator[Feeder]:
    """A daemon that is READY, on sockets and in a runtime folder of its own, so that it meets no other."""
    with tempfile.TemporaryDirectory(prefix="rt") as folder:
        apart = [*overrides, *_apart(load_config(path, overrides), folder)]
        with running(path, apart) as (config, daemon):
            yield Feeder(path, apart, daemon, compile_plans(config))


def _apart(config: Config, folder: str) -> list[str]:
    """Overrides that move everything by which a daemon is met into a folder; tcp ports stay what they are."""
    moved = [f"service.runtime_dir={folder}", f"service.state_dir={folder}/state"]
    for table, endpoint in (("feed", config.feed.endpoint), ("publish", config.publish.endpoint)):
        if endpoint.startswith("ipc:"):
            moved.append(f"{table}.endpoint=ipc://{folder}/{table}.ipc")
    if config.control.endpoint is not None and config.control.endpoint.startswith("ipc:"):
        moved.append(f"control.endpoint=ipc://{folder}/control.ipc")
    return moved
