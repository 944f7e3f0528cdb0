"""Lanes that die while rounds are sent: when, by what, and how long it took until their patches were answered again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.account import PatchAccount
from firmware_sim.sender import Sender
from rtqec.config import Config
from rtqec.errors import ConfigError
from rtqec.kernels.records import FeedCounter
from rtqec.telemetry import TelemetryBlock
from rtqec.units import NS_PER_MS, us_from_ns

_AT_ITS_END = -1
"""Instead of a time: the patch had been answered to its end before."""


class Signal(StrEnum):
    """How a lane dies."""

    KILL = "KILL"
    """At once."""
    STOP = "STOP"
    """It hangs, until the supervisor notices and kills it."""


@dataclass(frozen=True)
class DeathPlan:
    """What `firmware-sim loop --kill-lane` asks for.

    Attributes:
        lane: Name of the lane.
        times: How often it dies: after equal parts of the rounds, never in the last one.
        signal: How.
    """

    lane: str
    times: int
    signal: Signal = Signal.KILL


@dataclass
class Death:
    """One of them.

    Attributes:
        at_ns: CLOCK_MONOTONIC of the signal.
        first_ns: When the lane that took its place made its first correction; 0 as long as it has not.
        all_ns: When each of its patches had been answered again; 0 as long as one has not.
        rounds_gone: Rounds of its patches that were answered by holding, because they were lost with it.
    """

    at_ns: int
    first_ns: int = 0
    all_ns: int = 0
    rounds_gone: int = 0


class Deaths:
    """Lets a lane die by the rounds that were sent, and watches it come back.

    Args:
        plan: What is asked for.
        find_process: The process of a lane that is ready, or 0; see `lanes.lane_process`.
        block: The telemetry block of the lane, which outlives it.
        accounts: Of the patches of the lane.
        kill: How a signal is sent.
    """

    def __init__(
        self, plan: DeathPlan, find_process: Callable[[str], int], block: TelemetryBlock, accounts: list[PatchAccount],
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:  # fmt: skip
        self.plan, self.deaths = plan, list[Death]()
        self._find_process, self._block, self._accounts, self._kill = find_process, block, accounts, kill
        self._written: NDArray[np.int64] = block.written.copy()
        self._answered = np.zeros(len(block.patch_ids), np.int64)
        self._gone_before = 0

    def __call__(self, rounds_sent: int, rounds_total: int) -> None:
        """Look how far the run is.

        Args:
            rounds_sent, rounds_total: Of all patches of the run.
        """
        if self.deaths and not self.deaths[-1].all_ns:
            self._watch(self.deaths[-1])
        elif (
            len(self.deaths) < self.plan.times
            and rounds_sent * (self.plan.times + 1) >= rounds_total * (len(self.deaths) + 1)
            and not all(account.finished[-1] for account in self._accounts)
            and (process := self._find_process(self.plan.lane))
        ):
            self._strike(process)

    def finish(self) -> None:
        """Look a last time, when every account has been checked."""
        if self.deaths:
            self._watch(self.deaths[-1])
        self._note_gone()

    def describe(self, accounts: list[PatchAccount], sender: Sender) -> dict[str, Any]:
        """For the report: how the lane came back, and what the patches of the others noticed.

        Args:
            accounts: Of all patches.
            sender: Of the run.
        """
        gone, mine = [death.rounds_gone for death in self.deaths], self._block.patch_ids.tolist()
        others = [(p, account) for p, account in enumerate(accounts) if account.patch_id not in mine]
        lateness_ns = max([account.lateness_ns_max for _, account in others], default=0)
        return {
            "lane": self.plan.lane,
            "patches": mine,
            "signal": str(self.plan.signal),
            "asked": self.plan.times,
            "times": len(self.deaths),
            "back": sum(death.all_ns > 0 for death in self.deaths),
            "first_correction_ms": _summary([(d.first_ns - d.at_ns) / NS_PER_MS for d in self.deaths if d.first_ns]),
            "all_patches_ms": _summary([(d.all_ns - d.at_ns) / NS_PER_MS for d in self.deaths if d.all_ns]),
            "rounds_gone": {"total": sum(gone)} | _summary(gone),
            "shots_leapt": sum(account.shots_leapt for account in self._accounts),
            "leaps_max": max(account.leaps for account in self._accounts),
            "ring_full": int(self._block.feed_counters[:, FeedCounter.RING_FULL].sum()),
            "others": {
                "patches": [account.patch_id for _, account in others],
                "rounds_sent": sum(sender.rounds_sent_of(p) for p, _ in others),
                "rounds_answered": sum(account.rounds_answered for _, account in others),
                "corrections": sum(account.received for _, account in others),
                "resent": sum(account.resent for _, account in others),
                "late": sum(account.flags["late"] for _, account in others),
                "lossy": sum(account.flags["lossy"] for _, account in others),
                "lateness_us_max": round(us_from_ns(lateness_ns), 2),
            },
        }

    def _strike(self, process: int) -> None:
        self._note_gone()
        self._written[:] = self._block.written
        self._answered[:] = [_AT_ITS_END if account.finished[-1] else 0 for account in self._accounts]
        self.deaths.append(Death(time.monotonic_ns()))
        self._kill(process, signal.Signals[f"SIG{self.plan.signal}"])

    def _watch(self, death: Death) -> None:
        """Look whether the lane is back, and who has been answered since."""
        ready_ns = int(self._block.header["ready_ns"][0])
        if ready_ns <= death.at_ns:
            return
        for row in np.flatnonzero(self._answered == 0).tolist():
            made = self._block.corrections_of(row, int(self._written[row]), 1 << 62)["published_ns"].astype(np.int64)
            since = made[made >= ready_ns]
            self._answered[row] = since[0] if len(since) else 0
        answered = self._answered[self._answered > 0]
        death.first_ns = int(answered.min()) if len(answered) else 0
        death.all_ns = int(answered.max()) if self._answered.all() else 0

    def _note_gone(self) -> None:
        """Charge the rounds that are gone by now to the last death."""
        gone = sum(account.rounds_gone for account in self._accounts)
        if self.deaths:
            self.deaths[-1].rounds_gone += gone - self._gone_before
        self._gone_before = gone


def check_plan(plan: DeathPlan, config: Config) -> None:
    """Refuse what nobody could make sense of.

    Raises:
        ConfigError: There is no such lane, or the rounds go wrong as well.
    """
    names = [f"lane{number}" for number in range(config.lane.count)]
    if plan.lane not in names:
        raise ConfigError(
            "--kill-lane", f"is {plan.lane!r}, but the lanes are {', '.join(names)}.", "Nobody would die.",
            "Name one of them; [lane] count says how many there are.",
        )  # fmt: skip
    if config.fault:
        raise ConfigError(
            "--kill-lane", f"is {plan.lane!r}, but there are [[fault]] tables.",
            "What the daemon must count of faults is not known where a lane takes rounds with it.",
            "Leave out one of the two.",
        )  # fmt: skip


def death_problems(section: dict[str, Any]) -> list[str]:
    """What is wrong with how a lane died: it must not stay away, nor take anything of another lane with it.

    Args:
        section: As `Deaths.describe` makes it.
    """
    lane, times, others, problems = section["lane"], section["times"], section["others"], []
    if times < section["asked"]:
        problems.append(f"{lane} died {times} times, not {section['asked']}: the run is too short")
    if section["back"] < times:
        problems.append(f"{lane} died {times} times, and came back {section['back']} times")
    # Messages that a full ring drops can make a whole shot as well.
    if section["leaps_max"] > times + section["ring_full"]:
        problems.append(f"{lane} died {times} times, but a patch of it left out shots {section['leaps_max']} times")
    if others["rounds_answered"] != others["rounds_sent"]:
        problems.append(
            f"of the {others['rounds_sent']} rounds sent to other lanes {others['rounds_answered']} were answered"
        )
    none = [f"{key} of other lanes is {others[key]}, must be 0" for key in ("resent", "lossy") if others[key]]
    return problems + none


def _summary(values: list[Any]) -> dict[str, float | None]:
    """Median and maximum."""
    if not values:
        return {"median": None, "max": None}
    return {"median": round(median(values), 3), "max": round(max(values), 3)}
