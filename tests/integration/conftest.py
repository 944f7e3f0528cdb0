"""A daemon and a simulated controller as a user starts them: as processes, over real sockets."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
RunLoop = Callable[..., dict[str, Any]]


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder for sockets: an ipc path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="rt"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    yield folder
    shutil.rmtree(folder)


def command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"{module}.cli", *arguments]


@pytest.fixture
def run_loop(runtime_dir: Path) -> RunLoop:
    """`firmware-sim loop CONFIG --report FILE` with overrides; its report."""

    def run(name: str, *sets: str, status: int = 0) -> dict[str, Any]:
        report = runtime_dir / "report.json"
        overrides = [part for item in sets for part in ("--set", item)]
        done = subprocess.run(
            command("firmware_sim", "loop", str(CONFIGS / name), "--report", str(report), *overrides),
            capture_output=True,
            text=True,
            timeout=240,
            env=os.environ | {"COLUMNS": "200"},
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        loaded: dict[str, Any] = json.loads(report.read_text())
        return loaded

    return run


@pytest.fixture
def recorded_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of recorded experiments, or a skip that says so."""
    folder = Path(os.environ.get("RTQEC_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (folder / "google_qec3v5").is_dir():
        pytest.skip(f"no recorded experiments in {folder}: set RTQEC_DATA to the folder that holds google_qec3v5")
    monkeypatch.setenv("RTQEC_DATA", str(folder))
    return folder


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A tcp port that nobody listens on."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
