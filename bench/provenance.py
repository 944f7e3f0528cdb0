"""Where and from what a number was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
PACKAGES = ("rtqec", "stim", "pymatching", "numba", "numpy", "pyzmq")


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def provenance() -> dict[str, Any]:
    """Date, commit, machine and versions."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": git("rev-parse", "--short", "HEAD"),
        # The results themselves, which a run before has just appended to, do not count.
        "dirty": bool(git("status", "--porcelain", "--", ".", ":!bench/results", ":!docs")),
        "machine": {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(),
                    "python": platform.python_version(), "load": os.getloadavg()[0]},
        "versions": {package: version(package) for package in PACKAGES},
    }  # fmt: skip
