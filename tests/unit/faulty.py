"""Whole runs of the simulated controller, with faults, into a socket that takes everything."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import zmq
from numpy.typing import NDArray

from firmware_sim.faults import Faults
from firmware_sim.sender import Sender
from rtqec.config import Config, with_faults
from rtqec.plan import Plan
from rtqec.wire import ROUNDS_HEADER, ROUNDS_HEADER_BYTES
from tests.harness import make_config, make_plan

SECOND = 1_000_000_000
EPOCH = 70
"""The first source epoch of every run, so that two runs differ by nothing but what they are told."""
ENDLESS = {"plan__rounds": "endless", "feed__payload": "detection_events"}
FEW: dict[str, dict[str, Any]] = {
    "drop": {"probability": 0.1},
    "skip": {"every_rounds": 50, "rounds": 4},
    "wrong_plan": {"probability": 0.1},
    "corrupt": {"probability": 0.1},
    "reorder": {"probability": 0.05, "distance": 3},
    "duplicate": {"probability": 0.1},
}
"""Every fault of messages, now and then."""


def plan_of(config: Config) -> Plan:
    return make_plan(plan__rounds=config.plan.rounds, plan__noise=config.plan.noise)


def configured(*faults: dict[str, Any], **overrides: Any) -> Config:
    overrides = {"source__shots": 30, "source__rounds": 2000, "feed__takeover_ms": 0.5} | overrides
    return with_faults(make_config(**overrides), list(faults))


@dataclass
class Run:
    """A run whose daemon is a socket that takes everything."""

    config: Config
    plans: list[Plan]
    sender: Sender
    messages: list[bytes]
    seconds: float

    @property
    def headers(self) -> NDArray[Any]:
        return np.concatenate([np.frombuffer(m[:ROUNDS_HEADER_BYTES], ROUNDS_HEADER) for m in self.messages])

    @property
    def faults(self) -> Faults:
        assert self.sender.faults is not None
        return self.sender.faults


def run(*faults: dict[str, Any], by_the_clock: bool = False, **overrides: Any) -> Run:
    """Send a whole run; everything has long been due, unless it goes by the clock."""
    config = configured(*faults, **overrides)
    plans = [plan_of(config)] * len(config.patch)
    with mock.patch("firmware_sim.sender.time.time_ns", return_value=EPOCH):
        sender = Sender(config, plans)
    context = zmq.Context(io_threads=1)
    push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    for socket in (push, pull):
        socket.set_hwm(0)
    push.bind("inproc://rounds")
    pull.connect("inproc://rounds")
    started = time.monotonic()
    sender.start(push, time.monotonic_ns() if by_the_clock else SECOND)
    while sender.sending:
        time.sleep(0.001)
    seconds = time.monotonic() - started
    messages = []
    while pull.poll(0):
        messages.append(pull.recv())
    push.close()
    pull.close()
    context.term()
    return Run(config, plans, sender, messages, seconds)


def turns(messages: list[bytes]) -> list[tuple[int, int, int]]:
    """Which message is which: patch, shot, first round."""
    headers = [np.frombuffer(m[:ROUNDS_HEADER_BYTES], ROUNDS_HEADER)[0] for m in messages]
    return [(int(h["patch_id"]), int(h["shot_id"]), int(h["first_round"])) for h in headers]
