"""The floor under reaction time: the same sender and the same transport, with a receiver that decodes nothing.

    python -m bench.floor --period-us 10

Goal: none; it says what no decoder behind this transport can beat on the machine where it runs. `rtqec-bench latency`
measures it beside every wire run. As a command of its own it prints JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import queue
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from bench.estimates import percentiles
from bench.provenance import provenance
from firmware_sim.sender import Sender
from rtqec.config import Config, load_config
from rtqec.errors import FaultError
from rtqec.kernels.native import compiled, now_ns, precise_timers, timespec, zmq_recv
from rtqec.plan import Plan, compile_plans
from rtqec.units import NS_PER_MS, NS_PER_US

CONFIG = Path(__file__).parents[1] / "configs" / "d5_1us.toml"
_LOOK_MS = 200
"""How often the receiver looks whether the sender has ended."""
_START_S = 60.0
_SENT_WORD = 7
"""Place of `sent_ns`, the due time, in the header's 64-bit words; see `wire.ROUNDS_HEADER`."""
_MESSAGE_WORDS = 8192


@dataclass(frozen=True)
class Floor:
    """What a run without a decoder shows.

    Attributes:
        reception_ns: int64, from the time at which each message was due to its reception.
        rounds_sent: Rounds.
        sender_late_ns_max: The latest that a message left.
    """

    reception_ns: NDArray[np.int64]
    rounds_sent: int
    sender_late_ns_max: int


@compiled
def receive(socket: Any, message: Any, words: Any, reception_ns: Any, received: Any, spec: Any) -> Any:
    """Receive until none comes for a while, or `reception_ns` is full. Returns how many there are in it then."""
    while received < len(reception_ns):
        if zmq_recv(socket, message.ctypes.data, message.size, 0) < 0:
            break
        reception_ns[received] = now_ns(spec) - np.int64(words[_SENT_WORD])
        received += 1
    return received


def null_decoder(scheme: str, folder: str, most: int, receive_queue: int, told: Any, sent: Any) -> None:
    """A process of its own, as the daemon is: writes `reception.npy` when the sender has ended and nothing more comes.

    Args:
        scheme: "ipc" or "tcp".
        folder: For its socket and its file.
        most: Messages at most.
        receive_queue: As the daemon has it.
        told: A queue; gets the endpoint once it listens, None once the file is written.
        sent: An event: nothing more is sent.
    """
    precise_timers()
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.set_hwm(receive_queue)
    socket.bind("tcp://127.0.0.1:*" if scheme == "tcp" else f"ipc://{folder}/floor.ipc")
    words = np.zeros(_MESSAGE_WORDS, np.uint64)
    message, spec = words.view(np.uint8), timespec()
    reception_ns = np.zeros(most, np.int64)
    socket.setsockopt(zmq.RCVTIMEO, 1)
    receive(socket.underlying, message, words, reception_ns, 0, spec)
    socket.setsockopt(zmq.RCVTIMEO, _LOOK_MS)
    told.put(socket.get_string(zmq.LAST_ENDPOINT))
    received = before = -1
    while not (sent.is_set() and received == before) and received < most:
        before = received
        received = receive(socket.underlying, message, words, reception_ns, max(received, 0), spec)
    np.save(Path(folder) / "reception.npy", reception_ns[:received])
    told.put(None)
    socket.close(linger=0)
    context.term()


def measure_floor(config: Config, plans: list[Plan]) -> Floor:
    """Send what a configuration sends, by its clock, to nobody who decodes.

    Args:
        config: `[source]`, `[pace]` and `[feed]` are read. Sent over ipc, or over tcp where its feed uses that.
        plans: One per patch.

    Raises:
        FaultError: The receiver did not start.
    """
    spawn = multiprocessing.get_context("spawn")
    sender = Sender(config, plans)
    scheme = "tcp" if config.feed.endpoint.startswith("tcp:") else "ipc"
    with tempfile.TemporaryDirectory(prefix="rt") as folder:
        told, sent = spawn.Queue(), spawn.Event()
        arguments = (scheme, folder, sender.rounds_total, config.feed.receive_queue, told, sent)
        process = spawn.Process(target=null_decoder, args=arguments, daemon=True)
        # Ctrl-C is for this process, which ends that one; a signal that is ignored stays ignored there.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        process.start()
        signal.signal(signal.SIGINT, previous)
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.set_hwm(config.source.send_queue)
        try:
            _connect(socket, _heard(told))
            sender.start(socket, time.monotonic_ns() + round(config.pace.start_delay_ms * NS_PER_MS))
            while sender.sending:
                time.sleep(_LOOK_MS / 1000)
            sent.set()
            _heard(told)
            reception_ns = np.load(Path(folder) / "reception.npy")
        finally:
            sender.stop()
            socket.close(linger=0)
            context.term()
            process.join(timeout=1)
            if process.is_alive():
                process.terminate()
                process.join()
    return Floor(reception_ns, sender.rounds_sent, sender.late_ns_max)


def _heard(told: Any) -> Any:
    """What the null decoder says next."""
    try:
        return told.get(timeout=_START_S)
    except queue.Empty:
        raise FaultError(f"the null decoder has said nothing for {_START_S:g} s.") from None


def _connect(socket: zmq.Socket[bytes], endpoint: str) -> None:
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    socket.connect(endpoint)
    answered = monitor.poll(round(_START_S * 1000))
    socket.disable_monitor()
    monitor.close(linger=0)
    if not answered:
        raise FaultError(f"the null decoder at {endpoint} did not answer within {_START_S:g} s.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--period-us", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=400_000)
    parser.add_argument("--burst-us", type=float, default=0.0)
    options = parser.parse_args()
    pace = [
        f"source.rounds={options.rounds}",
        f"pace.period_us={options.period_us}",
        f"pace.burst_us={options.burst_us}",
    ]
    config = load_config(CONFIG, pace)
    floor = measure_floor(config, compile_plans(config))
    result = {
        "benchmark": "floor",
        "period_us": options.period_us,
        "burst_us": options.burst_us,
        "rounds_sent": floor.rounds_sent,
        "rounds_received": len(floor.reception_ns),
        "reception_us": percentiles(floor.reception_ns / NS_PER_US),
        "sender_late_us_max": floor.sender_late_ns_max / NS_PER_US,
    }
    print(json.dumps(result | provenance()))


if __name__ == "__main__":
    main()
