"""A lane: the process that carries some patches along the whole path."""

from __future__ import annotations

import gc
import os
import socket as os_socket
import threading
import time
from typing import IO

import numpy as np
import zmq

from rtqec.batch import Streams
from rtqec.commit import Commit
from rtqec.config import Config
from rtqec.endpoints import bind_alone, lock_beside
from rtqec.errors import ConfigError, FaultError
from rtqec.feed import Feed, Intake
from rtqec.gate import Gate
from rtqec.kernels.native import precise_timers
from rtqec.log import get_logger
from rtqec.match import Match
from rtqec.pipeline import Pipeline
from rtqec.plan import compile_plans
from rtqec.publish import Publish
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock, telemetry_path
from rtqec.window import Window


class Lane:
    """Everything of one lane, allocated and warm after construction.

    Args:
        config: The deployment.

    Raises:
        ConfigError: A plan cannot work, or an address is in use.
    """

    def __init__(self, config: Config) -> None:
        self._log = get_logger().bind(lane=config.lane.name)
        self._locks: list[IO[str]] = []
        started = time.monotonic()
        self.plans = compile_plans(config)
        patch_ids = [patch.id for patch in config.patch]
        self._context = zmq.Context(io_threads=1)
        self._gate = Gate(self._context)
        rounds = self._bind(zmq.PULL, "[feed] endpoint", config.feed.endpoint, config.feed.receive_queue)
        corrections = self._bind(zmq.PUSH, "[publish] endpoint", config.publish.endpoint, config.publish.send_queue)
        self._sockets = [rounds, corrections]
        try:
            config.runtime_dir.mkdir(parents=True, exist_ok=True)
            self._locks.append(lock_beside(telemetry_path(config)))
            self.telemetry = TelemetryBlock.create(
                telemetry_path(config), patch_ids, config.publish.journal_corrections
            )
        except OSError as error:
            raise ConfigError(
                "[lane] runtime_dir", f"is {config.lane.runtime_dir!r}, but the telemetry block cannot be written "
                f"there: {error.strerror}.", "Status and metrics are read from it.",
                "Name a folder that this user may write; daemons that share one need different [lane] name.",
            ) from error  # fmt: skip
        self.telemetry.digests[:] = [list(bytes.fromhex(plan.digest)) for plan in self.plans]
        ring = Ring(self.plans, config.feed.ring_rounds)
        events = config.feed.payload == "detection_events"
        budgets_us = [patch.budget_us or config.deadline.budget_us for patch in config.patch]
        streams = Streams(self.plans, patch_ids, budgets_us, config.ladder, ring, self.telemetry, events)
        waiting = np.array(config.lane.waiting_ns, np.int64)
        intake = Intake(self.plans, patch_ids, ring, self.telemetry, config.feed)
        self.feed = Feed(intake, ring, rounds, waiting)
        self.pipeline = Pipeline(
            streams,
            ring,
            Window(streams, ring, waiting),
            Match(streams.models, config.lane.batch_windows),
            Commit(streams, self.telemetry),
            Publish(corrections, streams, self.telemetry),
            config.lane.batch_windows,
        )
        self._ring = ring
        self._path = threading.Thread(target=self._run_path, name="path", daemon=True)
        self._fault: BaseException | None = None
        self.pipeline.warm()
        self.feed.warm()
        self._log.info(
            "lane_warm", patches=len(self.plans), matchers=len(streams.models),
            seconds=round(time.monotonic() - started, 2),
        )  # fmt: skip

    def start(self) -> None:
        """Begin to receive and decode, and say READY."""
        gc.collect()
        gc.freeze()
        self.feed.start()
        self._path.start()
        self._gate.start()
        self.telemetry.header["ready_ns"] = time.monotonic_ns()
        _notify("READY=1")
        for plan in self.plans:
            self._log.info("patch_ready", plan_tag=f"{plan.tag:08x}", digest=plan.digest)

    @property
    def alive(self) -> bool:
        """Whether ingest and path still run."""
        return self._path.is_alive() and self.feed.alive

    def stop(self) -> None:
        """Stop receiving, carry what has closed, end the threads.

        Raises:
            FaultError: The path had stopped by itself on a broken invariant.
        """
        _notify("STOPPING=1")
        self._ring.stop()
        self.feed.join()
        self._path.join()
        self._gate.stop(self._sockets)
        for socket in self._sockets:
            socket.close(linger=1000)
        self._context.term()
        for lock in self._locks:
            lock.close()
        self._log.info("lane_stopped", **{k: v for k, v in self.telemetry.totals().items() if v})
        if self._fault is not None:
            raise FaultError(f"the path stopped on a broken invariant: {self._fault!r}") from self._fault

    def _run_path(self) -> None:
        precise_timers()
        try:
            self.pipeline.run()
            while self.pipeline.step():
                pass  # Windows that had closed when the stop came.
        except BaseException as error:
            self._fault = error
            self._log.exception("path_fault")
            self._ring.stop()

    def _bind(self, kind: int, key: str, written: str, queue: int) -> zmq.Socket[bytes]:
        """Bind one socket, or say why not."""
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.set_hwm(queue)
        socket.setsockopt(zmq.LINGER, 0)
        self._gate.guard(socket, key)
        lock = bind_alone(socket, key, written)
        if lock is not None:
            self._locks.append(lock)
        return socket


def _notify(state: str) -> None:
    """Tell the service manager, where there is one (sd_notify's protocol)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with os_socket.socket(os_socket.AF_UNIX, os_socket.SOCK_DGRAM) as socket:
        socket.connect("\0" + address[1:] if address.startswith("@") else address)
        socket.sendall(state.encode())
