"""A CUDA-Q program's side of a running daemon: over UDP, as a process, from READY to SIGTERM."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pymatching
import pytest
from numpy.typing import NDArray

from rtqec.config import load_config
from rtqec.cudaq import frames
from rtqec.cudaq.frames import Response, Status, read_response
from rtqec.cudaq.syndromes import read_syndromes
from rtqec.service.ask import ask
from tests.decoder_files import SMOKE, flat, measurements_of, memory, recorded_folder, shots, write_file
from tests.integration.conftest import WAIT_S, command, service_file, wait_for
from tests.unit.test_cudaq_frames import REQUEST, RESPONSE

DEPLOYMENT = """
plan = {{ cudaq = "decoders.yml", distance = 3 }}
window = {{ commit_rounds = 3, buffer_rounds = 3 }}
feed = {{ round_period_us = 40 }}
deadline = {{ budget_us = 1e9 }}
listen = {{ cudaq = {{ slot_bytes = 256 }} }}
lane = {{ count = {lanes} }}
control = {{ endpoint = "ipc://{folder}/control" }}
patch = [{patches}]
"""
AT_LEISURE = ("listen.cudaq.port=0", "deadline.budget_us=1e9")
"""Of a decoder file as it is: any free port, and no step down where the machine is slow."""


def deployment(folder: Path, *tables: dict[str, Any], lanes: int = 1) -> Path:
    """A configuration with a decoder file."""
    write_file(folder, *tables)
    patches = ", ".join(f"{{ id = {k}, plan = {{ cudaq_decoder = {k} }} }}" for k in range(len(tables)))
    path = folder / "cudaq.toml"
    path.write_text(DEPLOYMENT.format(folder=folder, lanes=lanes, patches=patches))
    return path


class Program:
    """A client of one decoder that asks one thing after the other, as CUDA-Q's playback does."""

    def __init__(self, port: int, decoder: int, slot_bytes: int = 0) -> None:
        self.decoder, self._slot_bytes, self._request_id = decoder, slot_bytes, 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(WAIT_S)

    def ask(self, function: Any, *arguments: Any) -> Response:
        """One request, one answer, with its number."""
        self._request_id += 1
        request = function(self.decoder, *arguments, request_id=self._request_id, ptp=self._request_id)
        self._socket.send(frames.padded(request, self._slot_bytes))
        answer = read_response(self._socket.recv(1 << 16))
        assert (answer.request_id, answer.ptp_timestamp) == (self._request_id, self._request_id)
        return answer

    def decode(self, slices: list[NDArray[np.bool_]], num_observables: int) -> list[bool]:
        """The corrections of a shot that is sent slice by slice."""
        for bits in slices:
            assert self.ask(frames.enqueue_syndromes, bits).status == Status.OK
        answer = self.ask(frames.get_corrections, num_observables)
        assert answer.status == Status.OK
        found: list[bool] = answer.bits(num_observables).tolist()
        return found

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Daemon:
    """`rtqec run` of a configuration or of a decoder file, started by what it prints.

    Args:
        folder: For its log.
        config: What it runs.
        sets: Overrides.
    """

    def __init__(self, folder: Path, config: Path, *sets: str) -> None:
        self.config = config
        self._programs: list[Program] = []
        self._log = (folder / "log").open("w+")
        overrides = [part for item in sets for part in ("--set", item)]
        self.process = subprocess.Popen(
            command("rtqec", "run", str(config), *overrides), stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"QEC_DECODING_SERVER_READY port=(\d+) transport=udp((?: ring\d+=\d+)+)\n", line)
        assert found is not None, line + self.log()
        self.ports = {int(k): int(port) for k, port in re.findall(r"ring(\d+)=(\d+)", found[2])}
        assert list(self.ports) == list(range(len(self.ports)))
        assert int(found[1]) == self.ports[0]

    def program(self, decoder: int, slot_bytes: int = 0) -> Program:
        """A client of a decoder, whose datagrams are padded to so many bytes."""
        self._programs.append(Program(self.ports[decoder], decoder, slot_bytes))
        return self._programs[-1]

    def log(self) -> str:
        """What it wrote to stderr."""
        self._log.flush()
        return Path(self._log.name).read_text()

    def status(self) -> dict[str, Any]:
        """`rtqec status --json`."""
        done = subprocess.run(
            command("rtqec", "status", str(self.config), "--json"), capture_output=True, text=True, check=False
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def end(self) -> list[str]:
        """SIGTERM; what it still printed. Its status is 0."""
        self.process.send_signal(signal.SIGTERM)
        printed, _ = self.process.communicate(timeout=WAIT_S)
        assert self.process.returncode == 0, self.log()
        return printed.splitlines()

    def close(self) -> None:
        """However the test ended."""
        for program in self._programs:
            program.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self._log.close()


Run = Callable[..., Daemon]


@pytest.fixture
def run(runtime_dir: Path) -> Iterator[Run]:
    """Start daemons; none is left afterwards."""
    with ExitStack() as stack:

        def start(config: Path, *sets: str) -> Daemon:
            daemon = Daemon(runtime_dir, config, *sets)
            stack.callback(daemon.close)
            return daemon

        yield start


def sliced(shot: NDArray[np.bool_], width: int, whole: int) -> list[NDArray[np.bool_]]:
    """The rounds of a shot: `whole` of `width` measurements, then the readout."""
    return [*(shot[width * t : width * (t + 1)] for t in range(whole)), shot[width * whole :]]


def test_shots_from_ready_to_the_end(runtime_dir: Path, run: Run) -> None:
    """100 shots of a memory, 8 of three bits in another lane: as whole-shot matching decodes them; then SIGTERM."""
    circuit = memory(3, 5)
    model = circuit.detector_error_model(decompose_errors=True)
    model.to_file(runtime_dir / "memory.dem")
    table = {"id": 0, "type": "pymatching", "stim_dem_path": "memory.dem", "D_sparse": flat(measurements_of(circuit))}
    measurements, events = shots(circuit, 100, seed=20261121)
    expected = pymatching.Matching.from_detector_error_model(model).decode_batch(events)
    daemon = run(deployment(runtime_dir, table, SMOKE | {"id": 1}, lanes=2))
    unpadded, padded = daemon.program(0), daemon.program(1, slot_bytes=256)
    found = [unpadded.decode(sliced(shot, 8, 5), 1) for shot in measurements]
    assert found == expected.astype(bool).tolist()
    assert 5 < expected.sum() < 95
    for number in range(8):
        bits = np.array([number >> k & 1 for k in range(3)], np.bool_)
        assert padded.decode([bits], 3) == bits.tolist()
    reading = daemon.status()
    assert reading["well"]
    feeds = {lane["feed"] for lane in reading["lanes"]}
    assert feeds == {f"udp://127.0.0.1:{port}" for port in daemon.ports.values()}
    counters = {patch["id"]: patch["since_start"]["counters"] for patch in reading["patches"]}
    assert {k: counted["shots"] for k, counted in counters.items()} == {0: 100, 1: 8}
    assert {k: counted["answered_ok"] for k, counted in counters.items()} == {0: 700, 1: 16}
    assert all(counted["messages_missing"] == counted["sessions_failed"] == 0 for counted in counters.values())
    assert daemon.end() == [
        "QEC_DECODING_SERVER_RING decoder=0 dispatched=700",
        "QEC_DECODING_SERVER_RING decoder=1 dispatched=16",
        "QEC_DECODING_SERVER_DISPATCHED count=716",
    ]


def test_a_lane_that_dies_keeps_its_ports(runtime_dir: Path, run: Run) -> None:
    """Killed in a shot, a lane is back on the same port; the shot is an error until the decoder is reset.

    A swap of its plan is refused, with the reason.
    """
    daemon = run(deployment(runtime_dir, SMOKE))
    program = daemon.program(0)
    assert program.decode([np.array([1, 0, 1])], 3) == [True, False, True]
    assert program.ask(frames.enqueue_syndromes, [1]).status == Status.OK
    os.kill(daemon.status()["lanes"][0]["pids"][0], signal.SIGKILL)
    # The socket outlives the lane: what is asked now waits in it for the next one.
    assert program.ask(frames.get_corrections, 3).status == Status.INTERNAL_ERROR
    assert program.ask(frames.reset_decoder).status == Status.OK
    assert program.decode([np.array([0, 1, 1])], 3) == [False, True, True]
    wait_for(lambda: service_file(runtime_dir)["lanes"][0]["restarts"] == 1)
    refused = ask(load_config(daemon.config), {"verb": "swap-plan", "sets": []}, timeout_s=WAIT_S)
    assert "the thread that receives is the one that decodes" in refused["error"]
    daemon.end()


def test_a_decoder_file_is_served_as_it_is(runtime_dir: Path, run: Run) -> None:
    """`rtqec run FILE.yml`: READY with a port for each decoder, the documents' worked example to the byte, SIGTERM."""
    daemon = run(write_file(runtime_dir, SMOKE, SMOKE | {"id": 1}, transport={"provider": "udp", "args": ["--port=0"]}))
    assert list(daemon.ports) == [0, 1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.connect(("127.0.0.1", daemon.ports[1]))
        program.settimeout(WAIT_S)
        program.send(frames.enqueue_syndromes(1, [1, 0, 1], request_id=6))
        assert read_response(program.recv(1 << 16)).status == Status.OK
        program.send(REQUEST)
        assert program.recv(1 << 16) == frames.padded(RESPONSE)
    assert daemon.end() == [
        "QEC_DECODING_SERVER_RING decoder=0 dispatched=0",
        "QEC_DECODING_SERVER_RING decoder=1 dispatched=2",
        "QEC_DECODING_SERVER_DISPATCHED count=2",
    ]


@pytest.mark.recorded
def test_recorded_shots_are_corrected_as_recorded(run: Run) -> None:
    """NVIDIA's own decoder file, as it is, and the 100 shots of its syndrome file: 100 of 100 corrections as recorded,
    to a program that fills its slots and to `firmware-sim replay-cudaq`.
    """
    folder = recorded_folder()
    syndromes = read_syndromes(folder / "syndromes_pymatching.txt")
    assert syndromes.corrections is not None
    assert syndromes.corrections.shape == (100, 1)
    daemon = run(folder / "config_pymatching.yml", *AT_LEISURE)
    program = daemon.program(0, slot_bytes=256)
    found = [program.decode(syndromes.slices(shot), 1) for shot in range(100)]
    assert found == syndromes.corrections.tolist()
    replay = command(
        "firmware_sim", "replay-cudaq", str(folder / "syndromes_pymatching.txt"), "--port", str(daemon.ports[0])
    )
    done = subprocess.run(replay, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stdout) == (0, "100 of 100 corrections as recorded\n"), done.stderr
    daemon.end()


@pytest.mark.recorded
def test_the_recorded_smoke_file_is_served(run: Run) -> None:
    """NVIDIA's configuration of three bits says of itself: "syndrome bit 1 set -> correction bit 1 set"."""
    daemon = run(recorded_folder() / "decoding_server_config.yaml", *AT_LEISURE)
    assert daemon.program(0).decode([np.array([0, 1, 0])], 3) == [False, True, False]
    daemon.end()
