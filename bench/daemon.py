"""A run of a real daemon against a simulated controller, with what came of every shot."""

from __future__ import annotations

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
from rtqec.plan import compile_plans
from rtqec.telemetry import TelemetryBlock, telemetry_path


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
