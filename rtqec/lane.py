"""A lane: the process that carries some patches along the whole path."""

from __future__ import annotations

import gc
import os
import threading
import time
from dataclasses import dataclass
from typing import IO

import numpy as np
import zmq
from numpy.typing import NDArray

from rtqec.batch import Streams, ladder_steps
from rtqec.commit import Commit
from rtqec.config import Config, expand_variables
from rtqec.cores import INGEST, PATH, Placement
from rtqec.cudaq.listener import Listener
from rtqec.cudaq.sessions import Sessions
from rtqec.curve import load_server_key
from rtqec.endpoints import bind_alone
from rtqec.errors import ConfigError, FaultError
from rtqec.feed import Feed, Intake
from rtqec.gate import Gate
from rtqec.kernels.native import compiling_alone, precise_timers
from rtqec.kernels.records import DRAIN, FEED_ENDED, OPEN_SHOTS, PATH_ENDED, PATH_LEFT, PATH_OWNER, FeedCounter
from rtqec.kernels.signal import wake
from rtqec.log import get_logger
from rtqec.match import Match
from rtqec.pipeline import Pipeline
from rtqec.plan import Plan, compile_plans
from rtqec.predecoder import hand_over_of, make_predecode, open_engine
from rtqec.publish import Publish
from rtqec.resume import resume
from rtqec.ring import Ring
from rtqec.security import Right, Rights
from rtqec.telemetry import TelemetryBlock, telemetry_path
from rtqec.window import WAIT_TIMEOUT_NS, Window

_ZERO_COPY_RECV = 10
"""ZMQ_ZERO_COPY_RECV of zmq.h, which pyzmq does not name."""
_HAND_OVER_S = 5.0
_HAND_OVER_LOOK_S = 20e-6


def make_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A ZeroMQ context whose sockets copy what they receive.

    By default libzmq lets a message point into the 8 kB with which it read the connection; a round that comes alone
    then holds all of it: 4.6 kB for each of 40,000 rounds that waited, 0.2 kB with copies (libzmq 4.3.5, 2026-11-21).
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    context.set(_ZERO_COPY_RECV, 0)
    return context


@dataclass(frozen=True)
class Inheritance:
    """What a lane that runs leaves to the one that takes its path over.

    Attributes:
        ring_fd: The memory of its ring.
        rounds_digests: `Plan.rounds_digest` of each patch.
    """

    ring_fd: int
    rounds_digests: list[str]


class Lane:
    """One lane. The constructor allocates and warms everything and touches no socket, so that a process may be forked
    from it; `open` binds, `start` begins.

    Args:
        config: The deployment, narrowed to the lane (`Config.of_lane`).
        goes_on: Whether to go on with the telemetry block of a lane that died.
        inheritance: Of a lane that runs and whose path this one is to take over (`inherit`), or None.

    Raises:
        ConfigError: A plan cannot work, the telemetry block cannot be written, or a key cannot be read.
    """

    def __init__(self, config: Config, goes_on: bool = False, inheritance: Inheritance | None = None) -> None:
        self._config = config
        self._log = get_logger().bind(lane=config.lane_name)
        self._locks: list[IO[str]] = []
        self._sockets: list[zmq.Socket[bytes]] = []
        self._rights, self._server_key = Rights.of(config), load_server_key(config)
        self._gate: Gate | None = None
        started = time.monotonic()
        self.plans = compile_plans(config)
        self._patch_ids = [patch.id for patch in config.patch]
        self._aside = inheritance is not None
        if inheritance is not None:
            self._check_rounds(inheritance.rounds_digests)
        self.telemetry = self._block(goes_on)
        # The block of a lane before holds the budgets and steps that control has set.
        self._aside |= bool(self.telemetry.header["starts"][0])
        self._ring = ring = Ring(
            self.plans, config.feed.ring_rounds, self.telemetry.control, inheritance.ring_fd if inheritance else None
        )
        events = config.feed.payload == "detection_events"
        budgets_us = [patch.budget_us or config.deadline.budget_us for patch in config.patch]
        self._streams = streams = Streams(
            self.plans, self._patch_ids, budgets_us, config.ladder, ring, self.telemetry, events, self._aside,
            hand_over_of(config),
        )  # fmt: skip
        waiting = np.array(config.lane.waiting_ns, np.int64)
        self._placement = Placement(config.cores, config.lane_index)
        self._intake = Intake(self.plans, self._patch_ids, ring, self.telemetry, config.feed)
        self._listener = self._make_listener(waiting)
        self.feed = Feed(self._intake, ring, None, waiting, lambda: self._placement.place_thread(INGEST))
        self._publish = Publish(None, streams, self.telemetry)
        self._predecode = make_predecode(config, self.plans, streams, ring, self.telemetry)
        self.pipeline = Pipeline(
            streams,
            ring,
            Window(streams, ring, waiting, WAIT_TIMEOUT_NS if self._listener is None else 0),
            Match(streams.models, config.lane.batch_windows, self._predecode.grids if self._predecode else None),
            Commit(streams, self.telemetry),
            self._publish,
            config.lane.batch_windows,
            self._predecode,
        )
        self._path: threading.Thread | None = None
        self._ticket = 0
        self._fault: BaseException | None = None
        with compiling_alone():
            self.pipeline.warm()
            (self.feed if self._listener is None else self._listener).warm()
        self._log.info(
            "lane_warm", patches=len(self.plans), matchers=len(streams.models),
            seconds=round(time.monotonic() - started, 2),
        )  # fmt: skip

    def open(self) -> None:
        """Bind the endpoints, and take the patches up where a lane before has left them.

        Raises:
            ConfigError: An address is in use, or cannot be bound.
        """
        self._open_engine()
        self._ring.reset()
        self._step_in()
        tags = self._intake.tables.patches
        tags["other_tag"] = self.telemetry.heard_tags
        if self._listener is None:
            self._open_endpoints()
        for place in resume(self.telemetry, self._intake, self._streams, time.monotonic_ns()):
            self._log.warning("patch_taken_up", **place)
        if self._listener is not None:
            for decoder_id in self._listener.open():
                self._log.warning("decoder_must_be_reset", decoder=decoder_id)

    def start(self) -> None:
        """Begin to receive and decode."""
        gc.collect()
        gc.freeze()
        self._placement.lock_memory()
        self.telemetry.header["pid"] = os.getpid()
        self.telemetry.header["starts"] += 1
        if self._listener is None:
            self.feed.start()
        self._start_path(0)
        if self._gate is not None:
            self._gate.start()
        self.telemetry.header["ready_ns"] = time.monotonic_ns()

    def inherit(self, ticket: int) -> list[dict[str, int]]:
        """Take the path over from the process that has it, between two of its windows; that one goes on to receive,
        and relays what this one publishes.

        Args:
            ticket: Larger than that of any path before.

        Returns:
            Of each patch: the first shot and round, and the window index, that are decoded here.

        Raises:
            FaultError: The other path does not let go.
        """
        gc.collect()
        gc.freeze()
        self._placement.lock_memory()
        self._open_engine()
        control = self._ring.control
        self._ring.hand_over(ticket)
        give_up = time.monotonic() + _HAND_OVER_S
        while control.item(PATH_LEFT) != ticket:
            if time.monotonic() > give_up:
                raise FaultError(f"the path did not let go within {_HAND_OVER_S} s.")
            time.sleep(_HAND_OVER_LOOK_S)
        self._step_in()
        places = [
            {
                "patch": int(patch["patch_id"]), "shot": int(state["shot_id"]), "round": int(state["start"]),
                "window_index": int(state["window_index"]),
            }
            for patch, state in zip(self._streams.patches, self._streams.states, strict=True)
        ]  # fmt: skip
        self._ticket = ticket
        self._start_path(ticket)
        return places

    @property
    def _relieved(self) -> bool:
        """Whether this was only the path, and another one has taken it over."""
        return self._ticket > 0 and self._ring.control.item(PATH_OWNER) > self._ticket

    def admit_only(self, rights: Rights) -> None:
        """Replace the allow-list; see `Gate.admit_only`."""
        self._rights = rights
        if self._gate is not None:
            self._gate.admit_only(rights)

    def accept_tags(self, tags: dict[int, int]) -> None:
        """Let messages in that name a new plan of the same rounds, besides the one that the controller names now.

        Args:
            tags: By patch id.
        """
        patches = self._intake.tables.patches
        for patch, heard in zip(patches, self.telemetry.heard_tags.tolist(), strict=True):
            if heard >= 0:
                patch["plan_tag"] = heard
            patch["other_tag"] = tags[int(patch["patch_id"])]

    @property
    def name(self) -> str:
        """What logs and files call it."""
        return self._config.lane_name

    @property
    def alive(self) -> bool:
        """Whether ingest and path still run."""
        return self._path is not None and self._path.is_alive() and (self.feed.alive or not self._sockets)

    @property
    def drained(self) -> bool:
        """Whether every shot has ended since `drain`."""
        return int(self._ring.control[OPEN_SHOTS]) == 1

    @property
    def rounds_received(self) -> int:
        """Rounds of all patches so far."""
        return int(self.telemetry.feed_counters[:, FeedCounter.ROUNDS].sum())

    def drain(self) -> None:
        """Take no further shots, and end those that would go on for ever."""
        self._ring.control[DRAIN] = 1

    def stop(self) -> None:
        """Stop receiving, end the shots that are open, carry what has closed, end the threads.

        Raises:
            FaultError: The path had stopped by itself on a broken invariant.
        """
        if not self._relieved:
            self._ring.stop()
        self.feed.join()
        if self._path is not None:
            self._path.join()
        if self._sockets:
            self._close()
        if self._listener is not None:
            self._listener.close()
        if self._fault is not None:
            raise FaultError(f"the path stopped on a broken invariant: {self._fault!r}") from self._fault

    @property
    def ring_fd(self) -> int:
        """The memory of the ring, for the lane that is to take the path over."""
        return self._ring.fd

    def describe(self) -> list[dict[str, object]]:
        """What others may know of each patch; see `service.state`."""
        patches = [
            describe_patch(self._config, index, plan) | {"budget_us": float(patch["budget_ns"]) / 1000}
            for index, (plan, patch) in enumerate(zip(self.plans, self._streams.patches, strict=True))
        ]
        if self._listener is not None:
            for patch_id, described in zip(self._patch_ids, patches, strict=True):
                described["cudaq_port"] = self._listener.ports[patch_id]
        return patches

    def _open_endpoints(self) -> None:
        """Bind the ZeroMQ sockets.

        Raises:
            ConfigError: An address is in use, or cannot be bound.
        """
        feed, publish = self._config.feed, self._config.publish
        self._context = make_context()
        self._placement.place_transport(self._context)
        self._gate = Gate(self._context, self._rights, self._server_key)
        rounds = self._bind(self._gate, zmq.PULL, "[feed] endpoint", feed.endpoint, feed.receive_queue, Right.FEED)
        corrections = self._bind(
            self._gate, zmq.PUSH, "[publish] endpoint", publish.endpoint, publish.send_queue, Right.READ
        )
        self.feed.open(rounds)
        self._publish.open(corrections)

    def _make_listener(self, waiting: NDArray[np.int64]) -> Listener | None:
        """What serves CUDA-Q programs, with its sockets, where they are to be served."""
        table = self._config.listen.cudaq
        if table is None:
            return None
        sessions, intake = Sessions(self.plans, self._patch_ids), self._intake
        scratch = (intake.events, intake.times)
        return Listener(table, sessions, intake.feed, self._ring, self.telemetry, waiting, scratch)

    def _close(self) -> None:
        assert self._gate is not None
        self._gate.stop(self._sockets)
        for socket in self._sockets:
            socket.close(linger=1000)
        self._context.term()
        for lock in self._locks:
            lock.close()
        self._log.info("lane_stopped", **{k: v for k, v in self.telemetry.totals().items() if v})

    def _open_engine(self) -> None:
        """Make the predecoder's engine, which may have threads."""
        if self._predecode is not None:
            open_engine(self._config, self._predecode, self._log)

    def _check_rounds(self, rounds_digests: list[str]) -> None:
        """Refuse plans that would read the rounds of the stream in another way."""
        for patch_id, plan, digest in zip(self._patch_ids, self.plans, rounds_digests, strict=True):
            if plan.rounds_digest != digest:
                raise ConfigError(
                    f"[plan] of patch {patch_id}", f"(tag {plan.tag:08x}) reads or cuts its rounds in another way than "
                    "the one that runs.", "A swap takes over in the middle of a stream: measurements per round, "
                    "detectors, windows and observables must be the same; only the errors may differ.",
                    "Give a plan of the same rounds, or restart the daemon with the new configuration.",
                )  # fmt: skip

    def _step_in(self) -> None:
        """Make the telemetry block this lane's own."""
        if self._aside:
            self._streams.step_in()
            self._aside = False
        self.telemetry.digests[:] = [list(bytes.fromhex(plan.digest)) for plan in self.plans]

    def _start_path(self, ticket: int) -> None:
        self._path = threading.Thread(target=self._run_path, args=(ticket,), name="path", daemon=True)
        self._path.start()

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

    def _run_path(self, ticket: int) -> None:
        self._placement.place_thread(PATH)
        precise_timers()
        control = self._ring.control
        try:
            if self._listener is not None:
                self._listener.run(self.pipeline.step)
            else:
                self.pipeline.run(ticket)
            if self._ring.stopping:
                while not control[FEED_ENDED]:
                    time.sleep(_HAND_OVER_LOOK_S)
                while self.pipeline.step():
                    pass  # What had closed, or was ended, when the stop came.
                control[PATH_ENDED] = 1
                wake(self._ring.outbox)
                return
            relayed = self.telemetry.written.copy()
            control[PATH_LEFT] = control[PATH_OWNER]
            if self._sockets:
                self._publish.relay(self._ring, relayed)
        except BaseException as error:
            self._fault = error
            self._log.exception("path_fault")
            self._ring.stop()

    def _bind(self, gate: Gate, kind: int, key: str, written: str, queue: int, right: Right) -> zmq.Socket[bytes]:
        """Bind one socket, or say why not."""
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.set_hwm(queue)
        socket.setsockopt(zmq.LINGER, 0)
        gate.guard(socket, key, expand_variables(key, written), right, self._patch_ids)
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
        "rounds_digest": plan.rounds_digest,
        "ladder": [step.name for step in ladder_steps(plan, config.ladder, hand_over_of(config))],
        "num_detectors": plan.layout.detectors_max,
        "detectors": plan.places_of_full_layer,
    }
