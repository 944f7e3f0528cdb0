"""A daemon, and a world that goes wrong: random faults in episodes, each of which is checked to the last bit.

An episode is one controller with its own seed: it connects, sends finite shots with some faults, and in between the
lane is paused, or the controller stops reading, or rounds come faster than they should. The daemon lives on through all
of them. After each episode everything that came back is replayed (`replay.Replay`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from firmware_sim.controller import Controller
from firmware_sim.expected import missed_rounds
from firmware_sim.lanes import lane_process, lanes_of
from firmware_sim.loop import DaemonProcess
from firmware_sim.replay import Invariants, Replay
from firmware_sim.report import DaemonCounts, build_report, machine, problems_of
from rtqec.config import Config, with_faults
from rtqec.errors import ConfigError
from rtqec.plan import Plan, compile_plans
from rtqec.telemetry import TelemetryBlock, telemetry_path
from rtqec.units import US_PER_S

EPISODE_S = 8.0
_TROUBLES = ("none", "pause", "deaf", "rush")
_PAUSE_S = (0.02, 0.4)
_DEAF_S = (0.5, 3.0)
_RUSH_FACTORS = (2.0, 4.0, 8.0)
_MEMORY_GROWTH_MAX = 1.1
"""Resident memory after the last third of the episodes, over that after the first third: queues that grew once during
a pause keep their pages, but nothing may grow from episode to episode."""


def random_faults(rng: np.random.Generator, reorder_depth: int) -> list[dict[str, Any]]:
    """Some `[[fault]]` tables, each mild enough that shots without a fault remain."""

    def rate(low: float, high: float) -> float:
        return float(10 ** rng.uniform(np.log10(low), np.log10(high)))

    choices: list[dict[str, Any]] = [
        {"kind": "drop", "probability": rate(1e-4, 2e-2)},
        {"kind": "duplicate", "probability": rate(1e-4, 1e-2)},
        {"kind": "corrupt", "probability": rate(1e-4, 1e-2)},
        {"kind": "wrong_plan", "probability": rate(1e-4, 1e-2)},
        {"kind": "delay", "distribution": "exponential", "mean_us": rate(10, 300)},
        {"kind": "stall", "probability": rate(1e-5, 1e-4), "duration_ms": rate(1, 50)},
        {"kind": "skip", "probability": rate(1e-4, 1e-3), "rounds": int(rng.integers(1, 60))},
        {"kind": "restart", "every_rounds": int(rng.integers(4000, 16000)), "silence_ms": 800.0},
    ]
    if reorder_depth:
        distance = int(rng.integers(1, reorder_depth + 1))
        choices.append({"kind": "reorder", "probability": rate(1e-4, 1e-2), "distance": distance})
    count = int(rng.integers(0, 5))
    return [choices[i] for i in rng.choice(len(choices), count, replace=False)]


class _Trouble:
    """What goes wrong besides the messages, by the clock."""

    def __init__(self, kind: str, rng: np.random.Generator, pids: list[int], controller: Controller) -> None:
        self._kind, self._pids, self._controller = kind, pids, controller
        self._begin_s = time.monotonic() + float(rng.uniform(0.2, 0.5)) * EPISODE_S
        low, high = _PAUSE_S if kind == "pause" else _DEAF_S
        self._end_s = self._begin_s + float(rng.uniform(low, high))
        self._state = "before"

    def __call__(self) -> None:
        now = time.monotonic()
        if self._kind in ("none", "rush"):
            return
        if self._state == "before" and now >= self._begin_s:
            self._begin()
        elif self._state == "on" and now >= self._end_s:
            self.end()

    def _begin(self) -> None:
        self._state = "on"
        if self._kind == "pause":
            self._signal(signal.SIGSTOP)
        else:
            self._controller.sink.paused = True

    def end(self) -> None:
        """Back to normal, whatever happened."""
        if self._state == "on":
            self._state = "after"
            self._signal(signal.SIGCONT)
            self._controller.sink.paused = False

    def _signal(self, number: int) -> None:
        """To all lanes at once."""
        for pid in self._pids:
            os.kill(pid, number)


def run_chaos(
    config: Config, config_path: str, overrides: list[str], minutes: float, seed: int, command: str,
    on_episode: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:  # fmt: skip
    """Run episodes until their streams have lasted `minutes`.

    Args:
        config_path, overrides: The configuration, for the daemon.
        on_episode: Called with the summary of each.

    Returns:
        The report. `violations` is empty where all invariants held.

    Raises:
        ConfigError: An endless plan, whose rounds could not be replayed.
        RtqecError: The daemon did not start, or ended.
    """
    plans = compile_plans(config)
    if any(plan.endless for plan in plans):
        raise ConfigError(
            "[plan] rounds", 'is "endless".', "Chaos replays whole shots, and keeps what was sent until then.",
            "Use finite shots ([plan] rounds = N).",
        )  # fmt: skip
    episodes: list[dict[str, Any]] = []
    daemon = DaemonProcess(config_path, overrides)
    try:
        daemon.wait_ready()
        streamed_s = 0.0
        while streamed_s < minutes * 60:
            episode = _episode(config, plans, daemon, np.random.default_rng([seed, len(episodes)]), len(episodes))
            streamed_s += episode["seconds"]
            episodes.append(episode)
            on_episode(episode)
        daemon.check_alive()
    finally:
        daemon.stop()
    return {
        "minutes": round(streamed_s / 60, 2),
        "seed": seed,
        "patches": len(plans),
        "totals": _totals(episodes),
        "violations": _violations(episodes),
        "episodes": episodes,
        "machine": machine(),
        "command": command,
    }


def _episode(
    base: Config, plans: list[Plan], daemon: DaemonProcess, rng: np.random.Generator, number: int
) -> dict[str, Any]:
    """One controller's life."""
    faults = random_faults(rng, base.feed.reorder_depth)
    kind = str(rng.choice(_TROUBLES))
    period_us = base.period_us / (float(rng.choice(_RUSH_FACTORS)) if kind == "rush" else 1.0)
    rounds = max(plan.num_rounds or 0 for plan in plans)
    shots = max(int(EPISODE_S * US_PER_S / (period_us * rounds)), 20)
    source = base.source.model_copy(update={"seed": int(rng.integers(1 << 31)), "shots": shots})
    pace = base.pace.model_copy(update={"period_us": period_us})
    config = with_faults(base.model_copy(update={"source": source, "pace": pace}), faults)
    controller = Controller(config, plans, keep=True)
    lanes = lanes_of(config)
    trouble = _Trouble(kind, rng, [lane_process(config, lane.lane_name) for lane in lanes], controller)
    blocks = [TelemetryBlock.attach(telemetry_path(lane)) for lane in lanes]
    before = DaemonCounts.read(*blocks)

    def look() -> None:
        daemon.check_alive()
        trouble()

    try:
        controller.run(look)
    finally:
        trouble.end()
    report = build_report(controller, DaemonCounts.read(*blocks) - before, None, "")
    invariants = Invariants()
    for p, (plan, account) in enumerate(zip(plans, controller.accounts, strict=True)):
        sent = controller.sender.shots[p]
        assert sent is not None
        replay = Replay(plan, sent, config.feed.payload == "detection_events")
        invariants.add(replay.check(account.corrections, missed_rounds(config, controller.sender, p)))
    said = report["daemon"]
    return {
        "episode": number,
        "trouble": kind,
        "period_us": period_us,
        "faults": faults,
        "seconds": controller.seconds,
        "rounds_sent": controller.sender.rounds_sent,
        "corrections": controller.sink.received,
        "marked_shots": int(sum(account.marked.sum() for account in controller.accounts)),
        "shots": int(sum(account.finished.sum() for account in controller.accounts)),
        "late": report["flags"]["late"],
        "daemon": {name: count for name, count in said.items() if count},
        "rss_mib": round(daemon.rss_mib, 2),
        "invariants": asdict(invariants),
        "problems": problems_of(report),
    }


def _totals(episodes: list[dict[str, Any]]) -> dict[str, int]:
    """Sums over all episodes."""
    totals = {key: sum(episode[key] for episode in episodes)
              for key in ("rounds_sent", "corrections", "shots", "marked_shots", "late")}  # fmt: skip
    for episode in episodes:
        for name, count in episode["daemon"].items():
            totals[f"daemon_{name}"] = totals.get(f"daemon_{name}", 0) + count
    return totals


def _violations(episodes: list[dict[str, Any]]) -> list[str]:
    """What must not be, in words."""
    found = [
        f"episode {episode['episode']}: {name} is {count}, must be 0"
        for episode in episodes
        for name, count in episode["invariants"].items()
        if count
    ]
    found += [f"episode {episode['episode']}: {problem}" for episode in episodes for problem in episode["problems"]]
    third = len(episodes) // 3
    if third:
        first = max(episode["rss_mib"] for episode in episodes[:third])
        last = max(episode["rss_mib"] for episode in episodes[-third:])
        if last > first * _MEMORY_GROWTH_MAX:
            found.append(f"memory is {last} MiB in the last third of the episodes, was {first} MiB in the first")
    return found


def episode_line(episode: dict[str, Any]) -> str:
    """One episode in a line."""
    kinds = ", ".join(fault["kind"] for fault in episode["faults"]) or "no faults"
    bad = [name for name, count in episode["invariants"].items() if count] + episode["problems"]
    return (
        f"{episode['episode']:4} {episode['trouble']:6} {episode['period_us']:6g} us  {episode['corrections']:8,} "
        f"corrections  {episode['rss_mib']:7.1f} MiB  {kinds}" + (f"  VIOLATED: {'; '.join(bad)}" if bad else "")
    )


def print_chaos(console: Console, result: dict[str, Any]) -> None:
    """The whole run, for people."""
    totals = result["totals"]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("streams", f"{result['minutes']:g} minutes in {len(result['episodes'])} episodes, "
                             f"{result['patches']} patches, seed {result['seed']}")  # fmt: skip
    table.add_row("rounds sent", f"{totals['rounds_sent']:,}")
    table.add_row("corrections", f"{totals['corrections']:,}, each decoded again: {totals['late']:,} late")
    table.add_row("shots", f"{totals['shots']:,} answered to the end, {totals['marked_shots']:,} of them marked")
    said = {name.removeprefix("daemon_"): count for name, count in totals.items() if name.startswith("daemon_")}
    table.add_row("daemon", ", ".join(f"{name} {count:,}" for name, count in said.items()))
    table.add_row("invariants", "all hold" if not result["violations"] else f"{len(result['violations'])} violated")
    table.add_row("repeat with", escape(result["command"]))
    console.print(table)
    for violation in result["violations"]:
        console.print(f"[red]VIOLATED[/red] {violation}", highlight=False)
