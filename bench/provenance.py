"""Where, when and from what a number was measured."""

from __future__ import annotations

import functools
import os
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from firmware_sim import report

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PACKAGES = ("rtqec", "stim", "pymatching", "sinter", "numba", "numpy", "pyzmq")
_MADE_BY_BENCH = (":!bench/results", ":!docs/figures", ":!README.md")
"""What a benchmark itself writes does not make a tree dirty."""


def git(*arguments: str) -> str | None:
    """What git says of the source tree, or None where there is none (an installed package)."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return None


@functools.cache
def source() -> dict[str, Any]:
    """Commit, and whether the tree holds anything that is not in it. Asked once per process."""
    commit = git("rev-parse", "--short", "HEAD")
    status = git("status", "--porcelain", "--", ".", *_MADE_BY_BENCH)
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def installed(package: str) -> str | None:
    """The version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """The machine as it stands: what it is, and how busy it has been in the last minute."""
    return report.machine() | {
        "cores": len(os.sched_getaffinity(0)),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "load": round(os.getloadavg()[0], 2),
    }


def provenance() -> dict[str, Any]:
    """Date, commit, machine and versions, of this moment."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        **source(),
        "machine": machine(),
        "versions": {package: installed(package) for package in PACKAGES},
    }
