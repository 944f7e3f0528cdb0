"""The floor under reaction time: the same sender and the same transport, with a receiver that decodes nothing.

    python -m bench.transport_floor --period-us 10

Goal: none; it says what no decoder behind this transport can beat on the machine where it runs. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from firmware_sim.report import machine, percentiles_us
from firmware_sim.sender import Sender
from rtqec.config import load_config
from rtqec.kernels.histogram import NUM_BINS, bin_of
from rtqec.kernels.native import compiled, now_ns, precise_timers, timespec, zmq_recv
from rtqec.plan import compile_plans

CONFIG = Path(__file__).parents[1] / "configs" / "d5_1us.toml"
TIMEOUT_MS = 2000
SENT_WORD = 7


@compiled
def receive(socket: Any, num_rounds: Any, message: Any, words: Any, counts: Any, longest: Any, spec: Any) -> Any:
    """Receive `num_rounds` messages, or until none comes; count intended send time -> reception, ns."""
    received = 0
    while received < num_rounds:
        if zmq_recv(socket, message.ctypes.data, message.size, 0) < 0:
            break
        late_ns = now_ns(spec) - np.int64(words[SENT_WORD])
        counts[bin_of(late_ns)] += 1
        longest[0] = max(longest[0], late_ns)
        received += 1
    return received


def receiver(endpoint: str, num_rounds: int, ready: Any, results: Any) -> None:
    """The null decoder: a process of its own, as the daemon is."""
    precise_timers()
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.set_hwm(1_000_000)
    socket.bind(endpoint)
    words = np.zeros(8192, np.uint64)
    counts, longest = np.zeros(NUM_BINS, np.int64), np.zeros(1, np.int64)
    socket.setsockopt(zmq.RCVTIMEO, 1)
    receive(socket.underlying, 1, words.view(np.uint8), words, counts, longest, timespec())
    ready.set()
    socket.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS + 8000)
    received = receive(socket.underlying, num_rounds, words.view(np.uint8), words, counts, longest, timespec())
    results.put((received, percentiles_us(counts, int(longest[0]))))
    socket.close(linger=0)
    context.term()


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
    with tempfile.TemporaryDirectory(prefix="rt") as folder:
        endpoint = f"ipc://{folder}/floor.ipc"
        spawn = multiprocessing.get_context("spawn")
        ready, results = spawn.Event(), spawn.Queue()
        process = spawn.Process(target=receiver, args=(endpoint, options.rounds, ready, results))
        process.start()
        sender = Sender(config, compile_plans(config))
        ready.wait()
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.set_hwm(1_000_000)
        socket.connect(endpoint)
        time.sleep(0.2)
        sender.start(socket, time.monotonic_ns())
        received, reception_us = results.get()
        process.join()
        sender.stop()
        socket.close(linger=0)
        context.term()
    print(
        json.dumps(
            {
                "benchmark": "transport_floor",
                "date": datetime.now(UTC).date().isoformat(),
                "period_us": options.period_us,
                "burst_us": options.burst_us,
                "rounds_sent": options.rounds,
                "rounds_received": received,
                "reception_us": reception_us,
                "sender_late_us_max": sender.late_ns_max / 1000,
                "machine": machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
