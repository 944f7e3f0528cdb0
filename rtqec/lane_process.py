"""The process of a lane, as the supervisor starts it: orders come, and events go, over the channel that it inherits.

| order | answer |
|---|---|
| the first: a configuration; a ring whose path it is to take over | `prepared`: `patches`, ring; or `failed` |
| `start`, or `inherit`: `ticket`; each with an end of a channel | `forked`; then `exited`: `pid`, `status` |
| on that channel: | `ready`, or `inherited`: `places`; or `failed` |
| `drain`; `stop`; `log_level`: `level`; `accept_tags`: `tags` | `drained`; `stopped` |

With `[service] standby` the process that prepared stays as it is, and every `start` is a fork of it: a lane that dies
is back as fast as a process forks, with its matchers warm. Without, the process itself becomes the lane.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import sys
import time
from typing import Any

from rtqec import log
from rtqec.channel import Channel
from rtqec.config import ClientTable, Config
from rtqec.errors import ExitCode, FaultError, RtqecError
from rtqec.lane import Inheritance, Lane
from rtqec.security import Rights

_PR_SET_NAME, _PR_SET_PDEATHSIG = 15, 1
_LOOK_S = 0.05
"""How often a draining lane looks whether its shots have ended."""
_SILENT_S = 1.0
"""A source that sends nothing for so long, while shots are to end, will not end them."""
_IDLE_S = 0.2
"""How often a running lane looks whether its threads still run."""


def main(fd: int) -> None:
    """Serve orders until the supervisor has gone."""
    channel = Channel.of_fd(fd)
    # What a terminal sends to the whole group is for the supervisor, which tells its lanes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    order, fds = channel.receive()
    if order is None:
        return
    log.configure(order["log_level"], order["log_format"])
    deployment = Config.model_validate(order["config"] | {"folder": order["folder"]})
    config = deployment.of_lane(order["lane_index"], order["patch_ids"])
    try:
        inheritance = Inheritance(fds[0], order["rounds_digests"]) if fds else None
        lane = Lane(config, order["goes_on"], inheritance)
    except RtqecError as error:
        _report(channel, error)
        sys.exit(error.exit_code)
    channel.send({"event": "prepared", "patches": lane.describe()}, [lane.ring_fd])
    if config.service.standby:
        gc.collect()
        gc.freeze()  # Else the collector would write to every object, and each copy would get pages of its own.
        _stand_by(channel, lane)
        return
    order, fds = channel.receive()
    channel.close()
    if order is not None:
        _run(lane, Channel.of_fd(fds[0]), order)


def _stand_by(channel: Channel, lane: Lane) -> None:
    """Fork a lane whenever one is ordered, and report how each of them ends."""
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    lanes: dict[int, int] = {}
    while True:
        for fd, _ in poller.poll():
            if fd in lanes:
                pid, status = os.waitpid(lanes.pop(fd), 0)
                poller.unregister(fd)
                os.close(fd)
                channel.send({"event": "exited", "pid": pid, "status": os.waitstatus_to_exitcode(status)})
                continue
            order, fds = channel.receive()
            if order is None:
                return
            pid = _fork(channel, lane, fds[0], order)
            watched = os.pidfd_open(pid)
            lanes[watched] = pid
            poller.register(watched, select.POLLIN)


def _fork(channel: Channel, lane: Lane, fd: int, order: dict[str, Any]) -> int:
    """Let a copy of this process become the lane; its process."""
    if (pid := os.fork()) == 0:
        channel.close()
        code = ExitCode.FAULT
        try:
            _run(lane, Channel.of_fd(fd), order)
            code = ExitCode.OK
        except SystemExit as error:
            code = ExitCode(int(error.code or 0))
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(fd)
    channel.send({"event": "forked", "pid": pid})
    return pid


def _run(lane: Lane, channel: Channel, order: dict[str, Any]) -> None:
    """Be the lane, or its path, until told to stop, or until nobody is there to tell."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, lane.name.encode())
    try:
        if order["do"] == "inherit":
            places = lane.inherit(order["ticket"])
            channel.send({"event": "inherited", "pid": os.getpid(), "places": places})
        else:
            _admit_only(lane, order["clients"])  # They may have changed since this process was prepared.
            lane.open()
            lane.start()
            channel.send({"event": "ready", "pid": os.getpid()})
        _serve(lane, channel)
        lane.stop()
    except RtqecError as error:
        _report(channel, error)
        sys.exit(error.exit_code)
    channel.send({"event": "stopped"})


def _serve(lane: Lane, channel: Channel) -> None:
    """Obey orders while the lane runs."""
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    draining = False
    rounds, silent_since = -1, 0.0
    while lane.alive:
        if draining:
            if lane.rounds_received != rounds:
                rounds, silent_since = lane.rounds_received, time.monotonic()
            if lane.drained or time.monotonic() - silent_since > _SILENT_S:
                draining = False
                channel.send({"event": "drained"})
        if not poller.poll(1000 * (_LOOK_S if draining else _IDLE_S)):
            continue
        order, _ = channel.receive()
        if order is None or order["do"] == "stop":
            return
        draining = draining or order["do"] == "drain"
        _obey(lane, order)


def _obey(lane: Lane, order: dict[str, Any]) -> None:
    match order["do"]:
        case "drain":
            lane.drain()
        case "log_level":
            log.set_level(order["level"])
        case "admit_only":
            _admit_only(lane, order["clients"])
        case "accept_tags":
            lane.accept_tags(dict(order["tags"]))
        case other:
            raise FaultError(f"the supervisor ordered {other!r}, which no lane of this version knows.")


def _admit_only(lane: Lane, clients: list[dict[str, Any]]) -> None:
    lane.admit_only(Rights(ClientTable.model_validate(client) for client in clients))


def _report(channel: Channel, error: RtqecError) -> None:
    channel.send({"event": "failed", "code": int(error.exit_code), "message": f"{type(error).__name__}: {error}"})
