"""Starting, stopping and refusing, as processes with exit codes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import zmq

from tests.integration.conftest import CONFIGS, SMALL, Start, command, daemons, short_folder


@dataclass
class Serving:
    """A daemon that serves the tests that it survives, one after the other.

    `sets` are those of whoever feeds it.
    """

    process: subprocess.Popen[str]
    endpoints: dict[str, str]
    sets: list[str]


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Rounds come over ipc, corrections go over tcp."""
    with short_folder() as folder, daemons(folder) as start, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoints = {"feed": f"ipc://{folder}/rounds", "publish": f"tcp://127.0.0.1:{probe.getsockname()[1]}"}
        probe.close()
        sets = [*SMALL, *(f"{table}.endpoint={endpoint}" for table, endpoint in endpoints.items())]
        own = (f"service.runtime_dir={folder}", f"service.state_dir={folder}")
        yield Serving(start("d5_memory_z.toml", *sets, *own, log=folder / "log"), endpoints, sets)


def as_options(*sets: str) -> list[str]:
    return [part for item in sets for part in ("--set", item)]


def refused(*arguments: str) -> str:
    """Run rtqec on something that cannot work: exit status 2, and what it says."""
    done = subprocess.run(
        command("rtqec", *arguments), capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_daemon_exits_cleanly(start_daemon: Start, number: int) -> None:
    """SIGTERM and Ctrl-C end the daemon with status 0."""
    process = start_daemon("d5_memory_z.toml", *SMALL)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "lane_stopped" in errors


@pytest.mark.parametrize("key", ["feed", "publish"])
def test_an_address_in_use_is_refused(serving: Serving, key: str, runtime_dir: Path) -> None:
    """A second daemon on the same endpoint, ipc or tcp, does not start, and the first one keeps it."""
    other = {"feed": f"ipc://{runtime_dir}/rounds", "publish": f"ipc://{runtime_dir}/corrections"}
    endpoints = other | {key: serving.endpoints[key]}
    sets = [f"{table}.endpoint={endpoint}" for table, endpoint in endpoints.items()]
    message = refused("run", str(CONFIGS / "d5_memory_z.toml"), *as_options(*SMALL, *sets))
    assert f"[{key}] endpoint" in message
    assert "in use" in message
    assert "Stop the other daemon" in message
    assert serving.process.poll() is None


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["window.buffer_rounds=2"], ["[window] buffer_rounds", "is 2", "at least 5", "accept_short_buffer"]),
        (["plan.time_coordinate=0"], ["[plan] time_coordinate", "is 0", "-1"]),
        (["plan.generated=color_code:memory_xyz"], ["graphlike", "Use a matchable code"]),
        (["window.comit_rounds=5"], ["comit_rounds", "misspelt"]),
        (["window.commit_rounds=0"], ["[window] commit_rounds", "is 0", "greater than 0"]),
        (["plan.circuit=nowhere.stim"], ["exactly one of"]),
        (["service.runtime_dir=/proc/nowhere"], ["[service] runtime_dir", "cannot be written"]),
    ],
)
def test_bad_configuration_is_refused_before_ready(runtime_dir: Path, sets: list[str], words: list[str]) -> None:
    """Exit status 2 with the key, the value, the reason and the remedy."""
    message = refused("run", str(CONFIGS / "d5_memory_z.toml"), *as_options(*sets))
    for word in words:
        assert word in message


def test_a_missing_file_is_refused() -> None:
    """The path and the remedy are named."""
    message = refused("check", "nowhere.toml")
    assert "nowhere.toml" in message
    assert "Name an existing file" in message


def test_check_prints_the_plan(runtime_dir: Path) -> None:
    """Rounds, layers, windows, matchers, what was dropped, the cost and whether it keeps up."""
    done = subprocess.run(
        command("rtqec", "check", str(CONFIGS / "d5_memory_z.toml")),
        capture_output=True, text=True, timeout=120, check=True, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    for word in ("51 (the last", "12 x 1, 24 x 49, 12 at the end", "matchers", "588 of 1200", "us per round", "keep"):
        assert word in done.stdout


def test_verify_writes_json_and_fails_beyond_the_bound(runtime_dir: Path) -> None:
    """Without a buffer windows lose accuracy, and the exit status says so."""
    report = runtime_dir / "verify.json"
    arguments = ["verify", str(CONFIGS / "d5_memory_z.toml"), "--shots", "3000", "--json", str(report)]
    assert subprocess.run(command("rtqec", *arguments), capture_output=True, timeout=120, check=False).returncode == 0
    assert '"verdict": "holds"' in report.read_text()
    spoiled = [*arguments, "--set", "window.buffer_rounds=0", "--set", "window.accept_short_buffer=true"]
    assert subprocess.run(command("rtqec", *spoiled), capture_output=True, timeout=120, check=False).returncode == 1
    assert '"verdict": "violated"' in report.read_text()


def test_ctrl_c_stops_the_loop_and_its_daemon(runtime_dir: Path) -> None:
    """Ctrl-C in the middle of a run leaves no daemon behind."""
    process = subprocess.Popen(
        command("firmware_sim", "loop", str(CONFIGS / "d5_memory_z.toml"), "--period-us", "200", *as_options(*SMALL)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    daemon = None
    for line in process.stderr:
        if "patch_ready" in line:
            daemon = psutil.Process(process.pid).children()[0]
            break
    assert daemon is not None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "stopped by the user" in errors
    assert not daemon.is_running()


def test_garbage_on_the_socket_then_a_whole_run(serving: Serving) -> None:
    """Any bytes are counted and dropped; the controller that comes next is served in full."""
    context = zmq.Context()
    vandal = context.socket(zmq.PUSH)
    vandal.connect(serving.endpoints["feed"])
    for size in (0, 1, 79, 80, 81, 88, 4096, 1 << 17):
        vandal.send(os.urandom(size))
    vandal.send_multipart([b"RUQC" * 20, b"x"])
    vandal.close(linger=5000)
    context.term()
    done = subprocess.run(
        command(
            "firmware_sim", "run", str(CONFIGS / "d5_memory_z.toml"), "--shots", "50", "--period-us", "30",
            *as_options(*serving.sets),
        ),
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 out of order" in done.stdout


def test_a_second_controller_is_refused_until_the_first_has_gone(serving: Serving) -> None:
    """One peer per endpoint: the second is not served and not fed, and is let in when the first has left."""
    sets = as_options(*serving.sets, "sink.connect_timeout_s=2")
    arguments = ["run", str(CONFIGS / "d5_memory_z.toml"), "--shots", "20", *sets]
    context = zmq.Context()
    first = context.socket(zmq.PUSH)
    monitor = first.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    first.connect(serving.endpoints["feed"])
    assert monitor.poll(10_000)
    second = subprocess.run(command("firmware_sim", *arguments), capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "no daemon answered" in second.stderr
    first.disable_monitor()
    monitor.close(linger=0)
    first.close(linger=0)
    context.term()
    third = subprocess.run(command("firmware_sim", *arguments), capture_output=True, text=True, check=False)
    assert third.returncode == 0, third.stdout + third.stderr


@pytest.mark.parametrize("left", [None, b"a telemetry block of another version"])
def test_a_controller_without_a_daemon_says_so(runtime_dir: Path, left: bytes | None) -> None:
    """It does not send to nobody, whatever another version's daemon has left behind."""
    if left is not None:
        (runtime_dir / "rtqec-lane0.telemetry").write_bytes(left)
    sets = (*SMALL, "sink.connect_timeout_s=0.5", f"service.runtime_dir={runtime_dir}")
    done = subprocess.run(
        command("firmware_sim", "run", str(CONFIGS / "d5_memory_z.toml"), *as_options(*sets)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no daemon answered" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_sees_progress(runtime_dir: Path) -> None:
    """With a terminal as stderr the run shows how far it is, and ends as well as in a pipe."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        command(
            "firmware_sim", "loop", str(CONFIGS / "d5_memory_z.toml"), "--shots", "2000", "--period-us", "40",
            *as_options(*SMALL),
        ),
        stdout=subprocess.PIPE, stderr=theirs, text=True, env=os.environ | {"TERM": "xterm", "COLUMNS": "160"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # The other end was closed: how Linux ends a pseudo-terminal.
    os.close(ours)
    process.communicate(timeout=60)
    assert process.returncode == 0, shown.decode(errors="replace")
    assert b"decoding" in shown
    assert b"26,000 rounds" in shown
