"""A daemon and a simulated controller as a user starts them: as processes, over real sockets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
RunLoop = Callable[..., dict[str, Any]]
Start = Callable[..., subprocess.Popen[str]]
SMALL_WINDOWS = ("window.commit_rounds=3", "window.buffer_rounds=3")
SMALL = ("plan.distance=3", "plan.rounds=12", *SMALL_WINDOWS)
"""Of a configuration whose code does not matter: a daemon is ready in half the time."""
WAIT_S = 60.0
"""For what comes by itself, on a machine that does other things as well."""


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder for sockets: an ipc path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="rt") as folder:
        yield Path(folder)


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where sockets and what daemons say of themselves lie, empty; what they keep lies elsewhere."""
    with short_folder() as folder, short_folder() as state:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        monkeypatch.setenv("XDG_STATE_HOME", str(state))
        yield folder


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


@contextmanager
def daemons(folder: Path) -> Iterator[Start]:
    """Start daemons, each back when it says READY to its service manager in the folder; none is left afterwards.

    `log`: where one writes that may say more than a pipe holds before somebody reads it.
    """
    started: list[subprocess.Popen[str]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, ExitStack() as files:
        notify.bind(str(folder / "notify"))
        notify.settimeout(1)

        def start(name: str, *sets: str, log: Path | None = None) -> subprocess.Popen[str]:
            overrides = [part for item in sets for part in ("--set", item)]
            process = subprocess.Popen(
                command("rtqec", "run", str(CONFIGS / name), *overrides),
                stderr=files.enter_context(log.open("w")) if log else subprocess.PIPE,
                text=True,
                env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
            )
            started.append(process)
            while process.poll() is None:
                with suppress(TimeoutError):
                    if notify.recv(64) == b"READY=1":  # Not the words of a daemon before it.
                        return process
            raise AssertionError(log.read_text() if log else process.communicate()[1])

        try:
            yield start
        finally:
            for process in started:
                process.kill()
                process.communicate()


@pytest.fixture
def start_daemon(runtime_dir: Path) -> Iterator[Start]:
    """`rtqec run`, and back when it is ready."""
    with daemons(runtime_dir) as start:
        yield start


def service_file(runtime_dir: Path) -> dict[str, Any]:
    """What the daemon says of itself."""
    described: dict[str, Any] = json.loads((runtime_dir / "rtqec" / "rtqec.json").read_text())
    return described


def wait_for(what: Callable[[], Any]) -> Any:
    """Look until there is something."""
    give_up = time.monotonic() + WAIT_S
    while not (found := what()):
        assert time.monotonic() < give_up
        time.sleep(0.005)
    return found
