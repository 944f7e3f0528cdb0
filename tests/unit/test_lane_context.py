"""Rounds that wait in a lane's sockets take their own size, not that of the buffer they were read into."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import zmq

from rtqec.lane import make_context

NUM_MESSAGES = 20_000
PERIOD_S = 30e-6
BYTES_EACH_MAX = 1500
"""Less than half of what each takes where it holds a read buffer (4600), and far more than its own 88."""


def test_messages_that_wait_do_not_hold_their_read_buffers(tmp_path: Path) -> None:
    """Rounds that come one by one, as from a controller: what is sent at once is also read at once."""
    with make_context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        pull.set_hwm(0)
        push.set_hwm(0)
        pull.bind(f"ipc://{tmp_path}/x")
        push.connect(f"ipc://{tmp_path}/x")
        push.send(b"first")
        assert pull.poll(10_000)
        process = psutil.Process()
        before = process.memory_info().rss
        for _ in range(NUM_MESSAGES):
            push.send(bytes(88))
            due = time.perf_counter() + PERIOD_S
            while time.perf_counter() < due:
                pass
        push.send(b"last")
        received = 0
        grown = 0
        while pull.recv() != b"last":
            received += 1
            if received == 1:
                grown = process.memory_info().rss - before
    assert received == NUM_MESSAGES + 1  # With the first.
    assert grown < NUM_MESSAGES * BYTES_EACH_MAX
