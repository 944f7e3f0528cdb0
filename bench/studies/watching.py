"""Does watching cost the path anything? CPU time of the path per committed round, with and without watchers.

A daemon is fed at no more than half of what it could take. In interleaved pairs of equal length nobody looks, or
Prometheus scrapes once a second and `rtqec top` runs in a terminal. The kernel's own account of the path's thread
(`/proc/PID/task/TID/schedstat`) is divided by the rounds that it committed.

    python -m bench.studies.watching configs/d5_memory_z.toml --pairs 24 --seconds 5

Goal: 95 % upper bound of the ratio at most 1.05.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
from scipy import stats

from bench.provenance import machine
from firmware_sim.controller import Controller
from firmware_sim.loop import DaemonProcess
from rtqec.config import load_config
from rtqec.kernels.records import PathCounter
from rtqec.plan import compile_plans
from rtqec.telemetry import TelemetryBlock, telemetry_path

GOAL = 1.05
PORT = 19464


def path_thread(pid: int) -> Path:
    """The account of the thread that decodes."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return next(task / "schedstat" for task in tasks if (task / "comm").read_text().strip() == "path")


class Watchers:
    """A scrape a second, and `rtqec top` on a terminal of its own."""

    def __init__(self, config: str, sets: list[str]) -> None:
        self._stop = threading.Event()
        self.scrapes = 0
        self._scraper = threading.Thread(target=self._scrape)
        self._scraper.start()
        master, slave = pty.openpty()
        self._master = master
        arguments = [part for item in sets for part in ("--set", item)]
        self._top = subprocess.Popen(
            [sys.executable, "-m", "rtqec.cli", "top", config, *arguments], stdin=slave, stdout=slave, stderr=slave,
            env=os.environ | {"TERM": "xterm-256color", "LINES": "30", "COLUMNS": "100"},
        )  # fmt: skip
        os.close(slave)
        self.drawn = 0
        self._reader = threading.Thread(target=self._drain)
        self._reader.start()

    def _drain(self) -> None:
        try:
            while piece := os.read(self._master, 65536):
                self.drawn += len(piece)
        except OSError:
            return

    def _scrape(self) -> None:
        while not self._stop.wait(1.0):
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics") as answer:
                assert answer.read()
            self.scrapes += 1

    def close(self) -> None:
        self._stop.set()
        self._scraper.join()
        self._top.kill()
        self._top.wait()
        self._reader.join()
        os.close(self._master)
        assert self.scrapes
        assert self.drawn > 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("bench/results/watching.jsonl"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sets = [
            *arguments.sets, f"service.runtime_dir={folder}", f"service.state_dir={folder}/state",
            f"metrics.endpoint=127.0.0.1:{PORT}", f"feed.endpoint=ipc://{folder}/rounds",
            f"publish.endpoint=ipc://{folder}/corrections", "sink.compare=false",
        ]  # fmt: skip
        config = load_config(arguments.config, sets)
        plans = compile_plans(config)
        rounds_per_s = 1e6 / config.period_us
        total_s = 2 * arguments.pairs * (arguments.seconds + 2) + 30
        shots = round(total_s * rounds_per_s / (plans[0].num_rounds or 1))
        length = f"source.shots={shots}" if plans[0].num_rounds else f"source.rounds={round(total_s * rounds_per_s)}"
        config = load_config(arguments.config, [*sets, length])
        daemon = DaemonProcess(arguments.config, [*sets, length])
        daemon.wait_ready()
        controller = Controller(config, plans)
        feeding = threading.Thread(target=lambda: controller.sender and None)
        ratios: list[float] = []
        costs: list[list[float]] = []

        def measure() -> float:
            before = account.read_text(), int(block.path_counters[:, PathCounter.ROUNDS_COMMITTED].sum())
            time.sleep(arguments.seconds)
            after = account.read_text(), int(block.path_counters[:, PathCounter.ROUNDS_COMMITTED].sum())
            took_ns = int(after[0].split()[0]) - int(before[0].split()[0])
            return took_ns / (after[1] - before[1])

        def study() -> None:
            time.sleep(2)
            rng = np.random.default_rng(1)
            for pair in range(arguments.pairs):
                cost = {}
                for watched in rng.permutation([False, True]).tolist():
                    watchers = Watchers(arguments.config, sets) if watched else None
                    time.sleep(2)  # Until `top` has started and drawn.
                    cost[watched] = measure()
                    if watchers is not None:
                        watchers.close()
                costs.append([cost[False], cost[True]])
                ratios.append(cost[True] / cost[False])
                print(f"{pair + 1}: {cost[False]:.0f} ns alone, {cost[True]:.0f} watched: {ratios[-1]:.3f}", flush=True)
            controller.sender.stop()

        block = TelemetryBlock.attach(telemetry_path(config))
        account = path_thread(int(block.header["pid"][0]))
        del feeding
        student = threading.Thread(target=study)
        student.start()
        controller.run(daemon.check_alive)
        student.join()
        daemon.stop()
    logs = np.log(ratios)
    half = stats.t.ppf(0.95, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    row = {
        "study": "watching", "config": arguments.config, "sets": arguments.sets, "pairs": len(ratios),
        "seconds": arguments.seconds, "rounds_per_s": rounds_per_s, "ratio": float(np.exp(logs.mean())),
        "upper_95": float(np.exp(logs.mean() + half)), "goal": GOAL, "costs_ns": costs, **machine(),
    }  # fmt: skip
    with arguments.out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(f"ratio {row['ratio']:.4f}, 95 % upper bound {row['upper_95']:.4f} (goal {GOAL})")


if __name__ == "__main__":
    main()
