"""A lane: the process that carries some patches along the whole path."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import IO

import numpy as np
import zmq

from rtqec.batch import Streams, ladder_steps
from rtqec.commit import Commit
from rtqec.config import Config
from rtqec.cores import INGEST, PATH, Placement
from rtqec.endpoints import bind_alone
from rtqec.errors import ConfigError, FaultError
from rtqec.feed import Feed, Intake
from rtqec.gate import Gate
from rtqec.kernels.native import precise_timers
from rtqec.kernels.records import DRAIN, OPEN_SHOTS
from rtqec.log import get_logger
from rtqec.match import Match
from rtqec.pipeline import Pipeline
from rtqec.plan import Plan, compile_plans
from rtqec.publish import Publish
from rtqec.resume import resume
from rtqec.ring import Ring
from rtqec.telemetry import TelemetryBlock, telemetry_path
from rtqec.window import Window


class Lane:
    """One lane. The constructor allocates and warms everything and touches no socket, so that a process may be forked
    from it; `open` binds, `start` begins.

    Args:
        config: The deployment, narrowed to the lane (`Config.of_lane`).
        goes_on: Whether to go on with the telemetry block of a lane that died.

    Raises:
        ConfigError: A plan cannot work, or the telemetry block cannot be written.
    """

    def __init__(self, config: Config, goes_on: bool = False) -> None:
        self._config = config
        self._log = get_logger().bind(lane=config.lane_name)
        self._locks: list[IO[str]] = []
        self._sockets: list[zmq.Socket[bytes]] = []
        started = time.monotonic()
        self.plans = compile_plans(config)
        self._patch_ids = [patch.id for patch in config.patch]
        self.telemetry = self._block(goes_on)
        self.telemetry.digests[:] = [list(bytes.fromhex(plan.digest)) for plan in self.plans]
        self._ring = ring = Ring(self.plans, config.feed.ring_rounds, self.telemetry.control)
        events = config.feed.payload == "detection_events"
        budgets_us = [patch.budget_us or config.deadline.budget_us for patch in config.patch]
        self._streams = streams = Streams(
            self.plans, self._patch_ids, budgets_us, config.ladder, ring, self.telemetry, events
        )
        waiting = np.array(config.lane.waiting_ns, np.int64)
        self._placement = Placement(config.cores, config.lane_index)
        self._intake = Intake(self.plans, self._patch_ids, ring, self.telemetry, config.feed)
        self.feed = Feed(self._intake, ring, None, waiting, lambda: self._placement.place_thread(INGEST))
        self._publish = Publish(None, streams, self.telemetry)
        self.pipeline = Pipeline(
            streams,
            ring,
            Window(streams, ring, waiting),
            Match(streams.models, config.lane.batch_windows),
            Commit(streams, self.telemetry),
            self._publish,
            config.lane.batch_windows,
        )
        self._path: threading.Thread | None = None
        self._fault: BaseException | None = None
        self.pipeline.warm()
        self.feed.warm()
        self._log.info(
            "lane_warm", patches=len(self.plans), matchers=len(streams.models),
            seconds=round(time.monotonic() - started, 2),
        )  # fmt: skip

    def open(self) -> None:
        """Bind the endpoints, and take the patches up where a lane before has left them.

        Raises:
            ConfigError: An address is in use, or cannot be bound.
        """
        config = self._config
        self._ring.reset()
        self._context = zmq.Context(io_threads=1)
        self._placement.place_transport(self._context)
        self._gate = Gate(self._context)
        rounds = self._bind(zmq.PULL, "[feed] endpoint", config.feed.endpoint, config.feed.receive_queue)
        corrections = self._bind(zmq.PUSH, "[publish] endpoint", config.publish.endpoint, config.publish.send_queue)
        self.feed.open(rounds)
        self._publish.open(corrections)
        for place in resume(self.telemetry, self._intake, self._streams, time.monotonic_ns()):
            self._log.warning("patch_taken_up", **place)

    def start(self) -> None:
        """Begin to receive and decode."""
        gc.collect()
        gc.freeze()
        self._placement.lock_memory()
        self.telemetry.header["pid"] = os.getpid()
        self.telemetry.header["starts"] += 1
        self.feed.start()
        self._path = threading.Thread(target=self._run_path, name="path", daemon=True)
        self._path.start()
        self._gate.start()
        self.telemetry.header["ready_ns"] = time.monotonic_ns()

    @property
    def name(self) -> str:
        """What logs and files call it."""
        return self._config.lane_name

    @property
    def alive(self) -> bool:
        """Whether ingest and path still run."""
        return self._path is not None and self._path.is_alive() and self.feed.alive

    @property
    def drained(self) -> bool:
        """Whether every shot has ended since `drain`."""
        return int(self._ring.control[OPEN_SHOTS]) == 1

    def drain(self) -> None:
        """Take no further shots, and end those that would go on for ever."""
        self._ring.control[DRAIN] = 1

    def stop(self) -> None:
        """Stop receiving, end the shots that are open, carry what has closed, end the threads.

        Raises:
            FaultError: The path had stopped by itself on a broken invariant.
        """
        self._ring.stop()
        self.feed.join()
        if self._path is not None:
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

    def describe(self) -> list[dict[str, object]]:
        """What others may know of each patch; see `service.state`."""
        return [
            describe_patch(self._config, index, plan) | {"budget_us": float(patch["budget_ns"]) / 1000}
            for index, (plan, patch) in enumerate(zip(self.plans, self._streams.patches, strict=True))
        ]

    def _block(self, goes_on: bool) -> TelemetryBlock:
        """The lane's telemetry block: that of the lane before, where it is asked for and fits, or a new one."""
        config = self._config
        path = telemetry_path(config)
        sizes = (self._patch_ids, config.publish.journal_corrections, max(p.layout.detectors_max for p in self.plans))
        try:
            if goes_on and path.exists():
                block = TelemetryBlock.attach(path, control=True)
                if block.fits(*sizes):
                    return block
            return TelemetryBlock.create(path, *sizes)
        except OSError as error:
            raise ConfigError(
                "[service] runtime_dir", f"is {config.service.runtime_dir!r}, but the telemetry block cannot be "
                f"written there: {error.strerror}.", "Status and metrics are read from it.",
                "Name a folder that this user may write; daemons that share one need different [service] name.",
            ) from error  # fmt: skip

    def _run_path(self) -> None:
        self._placement.place_thread(PATH)
        precise_timers()
        try:
            self.pipeline.run()
            self.feed.join()
            while self.pipeline.step():
                pass  # What had closed, or was ended, when the stop came.
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
        self._sockets.append(socket)
        lock = bind_alone(socket, key, written)
        if lock is not None:
            self._locks.append(lock)
        return socket


def describe_patch(config: Config, index: int, plan: Plan) -> dict[str, object]:
    """What others may know of a patch, as plain values."""
    return {
        "id": config.patch[index].id,
        "lane": config.lane_name,
        "plan_tag": f"{plan.tag:08x}",
        "digest": plan.digest,
        "distance": plan.distance,
        "rounds": plan.num_rounds or "endless",
        "num_observables": plan.num_observables,
        "commit_rounds": plan.window.commit_rounds,
        "buffer_rounds": plan.window.buffer_rounds,
        "round_period_us": config.feed.round_period_us,
        "ladder": [step.name for step in ladder_steps(plan, config.ladder)],
        "detectors": plan.places_of_full_layer,
    }
