"""How long does a CUDA-Q program wait for its corrections? Round trips over loopback UDP, beside those of a bare echo.

A daemon with `[listen.cudaq]` is sent shots round by round by a compiled client; every request waits for its answer.
After each shot the same datagrams go to a bare echo: a compiled loop of `recvfrom` and `sendto`, another process. The
echo is the floor: what the kernel takes to carry a request and its answer between two processes. Of both, the first
request after the change of process is not counted: it finds everything cold.

Where cudaq-qec is installed (3 GB, by hand), the same shots then go through its own real-time path: calls within one
process, hence without sockets, one per round; the last one matches the whole shot.

    python -m bench.studies.cudaq --shots 5000

With `--set lane.spin_us=50`, on cores of their own, neither of the two sleeps.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import stim

from bench.peers.peer import Task
from bench.provenance import RESULTS, provenance
from rtqec.config import load_config
from rtqec.cudaq import frames
from rtqec.kernels.native import compiled, now_ns, recvfrom, sendto, timespec
from rtqec.plan import compile_plans
from rtqec.reference import WholeShotMatcher

SEED = 20261121
DEPLOYMENT = """
[plan]
generated = "surface_code:rotated_memory_z"
distance = 5
rounds = 20
noise = 0.001

[window]
commit_rounds = 5
buffer_rounds = 5

[feed]
round_period_us = 20

[listen.cudaq]
port = 0

[service]
runtime_dir = "{folder}/rtqec"
state_dir = "{folder}/state"
"""
_ADDRESS_BYTES = 32


@compiled
def echo(fd: Any, datagram: Any, address: Any, length: Any) -> Any:
    """Send everything back to where it came from, until an empty datagram comes."""
    while True:
        length[0] = _ADDRESS_BYTES
        size = recvfrom(fd, datagram.ctypes.data, datagram.size, 0, address.ctypes.data, length.ctypes.data)
        if size == 0:
            return
        if size > 0:
            sendto(fd, datagram.ctypes.data, size, 0, address.ctypes.data, length[0])


@compiled
def ask(fd: Any, request: Any, answer: Any, spec: Any) -> Any:
    """Send a request over a connected socket, and wait for its answer: how long that took, ns; -1 without one."""
    started = now_ns(spec)
    sendto(fd, request.ctypes.data, request.size, 0, 0, 0)
    if recvfrom(fd, answer.ctypes.data, answer.size, 0, 0, 0) < 0:
        return -1
    return now_ns(spec) - started


def be_echo() -> None:
    """The floor, as a process: its port on stdout, then echoes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        arrays = np.zeros(65536, np.uint8), np.zeros(_ADDRESS_BYTES, np.uint8), np.zeros(1, np.int32)
        print(f"port={found.getsockname()[1]}", flush=True)
        echo(found.fileno(), *arrays)


def started(*command: str) -> tuple[subprocess.Popen[str], int]:
    """A process, once it has said its port."""
    process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = re.search(r"port=(\d+)", process.stdout.readline())
    assert port is not None
    return process, int(port[1])


def connected(port: int) -> socket.socket:
    """A socket that hears only from a port."""
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.connect(("127.0.0.1", port))
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, np.array([1, 0], np.int64).tobytes())
    return found


def packed(frame: bytes) -> np.ndarray:
    """A request in its slot, as compiled code sends it."""
    return np.frombuffer(frames.padded(frame), np.uint8).copy()


def percentiles(times_ns: list[int]) -> dict[str, float]:
    """us."""
    found = np.percentile(times_ns, [50, 99, 99.9]) / 1000
    return dict(zip(("p50_us", "p99_us", "p999_us"), found.round(2).tolist(), strict=True)) | {"count": len(times_ns)}


def measure(config: Path, sets: list[str], num_shots: int) -> dict[str, Any]:
    """One run: round trips by what is asked, and how many shots were corrected as whole-shot matching does."""
    loaded = load_config(config, sets)
    plan = compile_plans(loaded)[0]
    circuit: stim.Circuit = plan.experiment.circuit
    shots = circuit.compile_sampler(seed=SEED).sample(num_shots)
    events = circuit.compile_m2d_converter().convert(measurements=shots, append_observables=False)
    packed_events = np.packbits(events, axis=1, bitorder="little")
    expected = WholeShotMatcher(plan.experiment.own_dem, False)(packed_events)[:, 0]
    starts = plan.rounds.block_starts.tolist()
    overrides = [part for item in sets for part in ("--set", item)]
    daemon, port = started("rtqec.cli", "run", str(config), *overrides)
    floor, floor_port = started("bench.studies.cudaq", "--echo")
    spec, answer = timespec(), np.zeros(frames.SLOT_BYTES, np.uint8)
    times: dict[str, list[int]] = {"echo": [], "enqueue": [], "enqueue_last": [], "get_corrections": []}
    equal = request_id = 0
    with connected(port) as served, connected(floor_port) as bare:
        for shot, flips in zip(shots, expected.tolist(), strict=True):
            requests = [
                frames.enqueue_syndromes(0, shot[a:b], request_id + k)
                for k, (a, b) in enumerate(itertools.pairwise(starts), start=1)
            ]
            request_id += len(requests) + 1
            first, *rounds, last = (packed(frame) for frame in requests)
            question = packed(frames.get_corrections(0, plan.num_observables, request_id))
            ask(served.fileno(), first, answer, spec)
            for request in rounds:
                times["enqueue"].append(ask(served.fileno(), request, answer, spec))
            times["enqueue_last"].append(ask(served.fileno(), last, answer, spec))
            times["get_corrections"].append(ask(served.fileno(), question, answer, spec))
            response = frames.read_response(answer.tobytes())
            assert (response.status, response.request_id) == (frames.Status.OK, request_id)
            equal += response.bits(1)[0] == flips
            ask(bare.fileno(), first, answer, spec)
            times["echo"] += [ask(bare.fileno(), request, answer, spec) for request in (*rounds, last, question)]
        bare.send(b"")
    daemon.terminate()
    for process in (daemon, floor):
        process.communicate(timeout=60)
    assert min(min(found) for found in times.values()) > 0, "a datagram was lost"
    result: dict[str, Any] = {"shots": num_shots, "equal_to_whole_shot_matching": int(equal)}
    result |= {name: percentiles(found[len(found) // 20 :]) for name, found in times.items()}
    task = Task(loaded, plan, plan.experiment, plan.rounds, plan.rounds.num_rounds, stream=False)
    return result | {"cudaq_qec_in_process": in_process(task, shots, expected)}


def in_process(task: Task, shots: np.ndarray, expected: np.ndarray) -> dict[str, Any] | None:
    """What the same calls take through cudaq-qec's own path, without sockets; None where it is not installed.

    Args:
        task: The experiment.
        shots: bool, shape (num_shots, num_measurements).
        expected: bool, shape (num_shots,): what whole-shot matching says.
    """
    try:
        from bench.peers.cudaq_realtime import PACKAGE, RealtimeMatching
    except ImportError:
        return None
    flips, calls_ns = RealtimeMatching(task).time_calls(shots)
    counted = calls_ns[len(calls_ns) // 20 :]
    # The first round of a shot is left out, as it is above.
    parts = {"enqueue": counted[:, 1:-2], "enqueue_last": counted[:, -2], "get_corrections": counted[:, -1]}
    return {
        "version": metadata.version(PACKAGE),
        "equal_to_whole_shot_matching": int((flips[:, 0] == expected).sum()),
        **{name: percentiles(found.ravel().tolist()) for name, found in parts.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--echo", action="store_true", help="Be the floor.")
    parser.add_argument("--shots", type=int, default=5000)
    parser.add_argument("--set", action="append", default=[], help="Of the daemon's configuration.")
    parser.add_argument("--keep", action="store_true", help="Append the row to bench/results.")
    arguments = parser.parse_args()
    if arguments.echo:
        be_echo()
        return
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "cudaq.toml"
        config.write_text(DEPLOYMENT.format(folder=folder))
        began = time.monotonic()
        found = measure(config, arguments.set, arguments.shots)
        sets = "".join(f" --set {item}" for item in arguments.set)
        row = {
            "benchmark": "cudaq",
            "command": f"python -m bench.studies.cudaq --shots {arguments.shots}{sets}",
            **found,
            "seconds": round(time.monotonic() - began, 1),
            **provenance(),
        }
    if arguments.keep:
        with (RESULTS / "cudaq.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    print(json.dumps({key: row[key] for key in row if key not in ("machine", "versions")}, indent=1))


if __name__ == "__main__":
    main()
