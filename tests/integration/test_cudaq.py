"""A CUDA-Q program's side of a running daemon: over UDP, as a process, from READY to SIGTERM."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pymatching
import pytest
import stim
from numpy.typing import NDArray

from rtqec.config import load_config
from rtqec.cudaq import frames
from rtqec.cudaq.decoder import CudaqDecoder
from rtqec.cudaq.frames import Response, Status, read_response
from rtqec.service.ask import ask
from tests.cudaq import identity_decoder
from tests.integration.conftest import WAIT_S, command, service_file, short_folder, wait_for

DEPLOYMENT = """
[plan]
circuit = "0.stim"
dem = "0.dem"
distance = 3
measurements_per_round = {widths[0]}

[window]
commit_rounds = 3
buffer_rounds = 3

[feed]
round_period_us = 40

[deadline]
budget_us = 1e9

[listen.cudaq]
slot_bytes = 256

[lane]
count = {lanes}

[control]
endpoint = "ipc://{folder}/control"

[service]
runtime_dir = "{folder}/rtqec"
state_dir = "{folder}/state"

[[patch]]
id = 0
"""
ANOTHER = """
[[patch]]
id = {k}
plan = {{ circuit = "{k}.stim", dem = "{k}.dem", distance = 1, measurements_per_round = {widths} }}
"""


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
    """`rtqec run` with `[listen.cudaq]`, started by what it prints."""

    def __init__(self, folder: Path, *decoders: CudaqDecoder, lanes: int = 1) -> None:
        for k, decoder in enumerate(decoders):
            (folder / f"{k}.stim").write_text(str(decoder.circuit()))
            (folder / f"{k}.dem").write_text(str(decoder.model()))
        widths = [decoder.block_widths for decoder in decoders]
        text = DEPLOYMENT.format(folder=folder, widths=widths, lanes=lanes)
        text += "".join(ANOTHER.format(k=k, widths=widths[k]) for k in range(1, len(decoders)))
        self.config = folder / "cudaq.toml"
        self.config.write_text(text)
        self._programs: list[Program] = []
        self._log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            command("rtqec", "run", str(self.config)), stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"QEC_DECODING_SERVER_READY port=(\d+) transport=udp((?: ring\d+=\d+)+)\n", line)
        assert found is not None, line + self.log()
        self.ports = {int(k): int(port) for k, port in re.findall(r"ring(\d+)=(\d+)", found[2])}
        assert list(self.ports) == list(range(len(decoders)))
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


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def surface_decoder(rounds: int) -> tuple[CudaqDecoder, stim.Circuit]:
    """A distance-3 memory as CUDA-Q would describe it: tables, no rounds; and the circuit that samples it."""
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=3, rounds=rounds, before_measure_flip_probability=0.01,
        before_round_data_depolarization=0.01,
    )  # fmt: skip
    total, tables = 0, []
    for step in circuit.flattened():
        if step.name in ("M", "MR"):
            total += len(step.targets_copy())
        elif step.name == "DETECTOR":
            tables.append(tuple(sorted(total + target.value for target in step.targets_copy())))
    dem = circuit.detector_error_model(decompose_errors=True)
    return CudaqDecoder(dem, tuple(tables), 1), circuit


def sliced(shot: NDArray[np.bool_], width: int, whole: int) -> list[NDArray[np.bool_]]:
    """The rounds of a shot: `whole` of `width` measurements, then the readout."""
    return [*(shot[width * t : width * (t + 1)] for t in range(whole)), shot[width * whole :]]


def test_shots_from_ready_to_the_end(folder: Path) -> None:
    """100 shots of a memory, 8 of three bits in another lane: as whole-shot matching decodes them; then SIGTERM."""
    memory, circuit = surface_decoder(rounds=5)
    shots = circuit.compile_sampler(seed=20261121).sample(100)
    events = circuit.compile_m2d_converter().convert(measurements=shots, append_observables=False)
    expected = pymatching.Matching.from_detector_error_model(memory.dem).decode_batch(events)
    daemon = Daemon(folder, memory, identity_decoder(), lanes=2)
    try:
        unpadded, padded = daemon.program(0), daemon.program(1, slot_bytes=256)
        found = [unpadded.decode(sliced(shot, 8, 5), 1) for shot in shots]
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
    finally:
        daemon.close()


def test_a_lane_that_dies_keeps_its_ports(folder: Path) -> None:
    """Killed in a shot, a lane is back on the same port; the shot is an error until the decoder is reset.

    A swap of its plan is refused, with the reason.
    """
    daemon = Daemon(folder, identity_decoder())
    try:
        program = daemon.program(0)
        assert program.decode([np.array([1, 0, 1])], 3) == [True, False, True]
        assert program.ask(frames.enqueue_syndromes, [1]).status == Status.OK
        os.kill(daemon.status()["lanes"][0]["pids"][0], signal.SIGKILL)
        # The socket outlives the lane: what is asked now waits in it for the next one.
        assert program.ask(frames.get_corrections, 3).status == Status.INTERNAL_ERROR
        assert program.ask(frames.reset_decoder).status == Status.OK
        assert program.decode([np.array([0, 1, 1])], 3) == [False, True, True]
        wait_for(lambda: service_file(folder)["lanes"][0]["restarts"] == 1)
        refused = ask(load_config(daemon.config), {"verb": "swap-plan", "sets": []}, timeout_s=WAIT_S)
        assert "the thread that receives is the one that decodes" in refused["error"]
        daemon.end()
    finally:
        daemon.close()


@pytest.fixture
def recorded_cudaq() -> Path:
    """NVIDIA's recorded decoder and shots, or a skip that says so."""
    folder = Path(os.environ.get("RTQEC_DATA", Path(__file__).parents[3] / "shared" / "data")) / "cudaq_realtime"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set RTQEC_DATA to the folder that holds cudaq_realtime")
    return folder


def rows_of(flat: list[int]) -> list[list[int]]:
    """CUDA-Q's sparse rows: column numbers, each row ended by -1."""
    rows: list[list[int]] = [[]]
    for number in flat:
        if number < 0:
            rows.append([])
        else:
            rows[-1].append(number)
    return rows[:-1]


def recorded_decoder(path: Path) -> CudaqDecoder:
    """The first decoder of a recorded configuration."""
    yaml = pytest.importorskip("yaml")
    table = yaml.safe_load(path.read_text())["decoders"][0]
    flips: list[list[str]] = [[] for _ in range(table["block_size"])]
    for name, rows in (("D", rows_of(table["H_sparse"])), ("L", rows_of(table["O_sparse"]))):
        for number, columns in enumerate(rows):
            for column in columns:
                flips[column].append(f"{name}{number}")
    rates = table["decoder_custom_args"]["error_rate_vec"]
    dem = stim.DetectorErrorModel(
        "\n".join(f"error({rate}) {' '.join(targets)}" for rate, targets in zip(rates, flips, strict=True) if targets)
    )
    tables = tuple(tuple(row) for row in rows_of(table["D_sparse"]))
    return CudaqDecoder(dem, tables, len(rows_of(table["O_sparse"])))


def recorded_shots(path: Path) -> tuple[list[list[NDArray[np.bool_]]], list[list[bool]]]:
    """The shots of a syndrome file, round by round, and the corrections that it expects."""
    shots: list[list[list[bool]]] = []
    expected: list[list[bool]] = []
    corrections = False
    for line in path.read_text().splitlines():
        word = line.split()[0]
        if word == "SHOT_START":
            shots.append([])
        elif word == "ROUND_START":
            shots[-1].append([])
        elif word == "CORRECTIONS_START":
            corrections = True
        elif word in "01":
            (expected.append([word == "1"]) if corrections else shots[-1][-1].append(word == "1"))
    return [[np.array(bits) for bits in shot] for shot in shots], expected


@pytest.mark.recorded
def test_recorded_shots_are_corrected_as_recorded(folder: Path, recorded_cudaq: Path) -> None:
    """NVIDIA's 100 shots, and its three-bit configuration: every correction as they recorded it."""
    memory = recorded_decoder(recorded_cudaq / "config_pymatching.yml")
    smoke = recorded_decoder(recorded_cudaq / "decoding_server_config.yaml")
    assert memory.block_widths == [8, 8, 8, 8, 9]
    shots, expected = recorded_shots(recorded_cudaq / "syndromes_pymatching.txt")
    daemon = Daemon(folder, memory, smoke)
    try:
        program, other = daemon.program(0, slot_bytes=256), daemon.program(1)
        assert len(shots) == len(expected) == 100
        assert [program.decode(shot, 1) for shot in shots] == expected
        # "syndrome bit 1 set -> correction bit 1 set", as the configuration says.
        assert other.decode([np.array([0, 1, 0])], 3) == [False, True, False]
        daemon.end()
    finally:
        daemon.close()
