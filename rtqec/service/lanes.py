"""One lane as the supervisor keeps it: started, watched, and brought back when it dies or falls silent.

    starting -> ready -> restarting -> ready -> .. -> stopped

A lane beats also when it is idle (`INGEST_BEAT` and `PATH_BEAT` in its telemetry block). One whose beats stand still
for `[service] lane_timeout_ms` is killed. Either way its place is taken by a fork of the process that stands by, or,
without one, by a new process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rtqec.channel import Channel
from rtqec.config import Config
from rtqec.errors import ExitCode, FaultError, RtqecError
from rtqec.kernels.records import INGEST_BEAT, PATH_BEAT
from rtqec.log import get_logger
from rtqec.telemetry import TelemetryBlock, telemetry_path

LOOK_S = 0.1
"""How often beats are looked at: as often as an idle lane beats."""
RESTARTS_AT_ONCE = 10
RESTART_EVERY_S = 6.0
"""So many restarts are free, and one more each time: a lane that dies of every round does not eat the machine."""
_PREPARE_TIMEOUT_S = 600.0
"""The first start compiles the kernels, and a large endless plan many matchers."""
_START_TIMEOUT_S = 60.0
_KILL_TIMEOUT_S = 10.0


class LaneFailedError(RtqecError):
    """A lane could not start; its own words."""

    def __init__(self, code: int, message: str) -> None:
        self.exit_code = ExitCode(code)
        super().__init__(message)


class Inbox:
    """What comes over a channel, for asyncio."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(channel.fileno(), self._take)

    def _take(self) -> None:
        message, _ = self._channel.receive()
        if message is None:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._queue.put_nowait(message)

    async def next(self, timeout_s: float) -> dict[str, Any] | None:
        """The next message; None where the other end has gone.

        Raises:
            TimeoutError: Nothing came.
        """
        return await asyncio.wait_for(self._queue.get(), timeout_s)

    def close(self) -> None:
        """End the channel."""
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._channel.close()


class LaneKeeper:
    """One lane.

    Args:
        config: Of the deployment, narrowed to the lane.
        on_change: Called after every change of `state`, with what happened.

    Attributes:
        state: See above.
        pid: Of the process that decodes; 0 where there is none.
        restarts: So far.
        patches: What the lane says of its patches; see `Lane.describe`.
        telemetry: Its block, writable; from the first `ready` on.
    """

    def __init__(self, config: Config, on_change: Callable[[LaneKeeper, str, dict[str, Any]], None]) -> None:
        self.config = config
        self.name = config.lane_name
        self.state = "starting"
        self.pid = 0
        self.restarts = 0
        self.patches: list[dict[str, Any]] = []
        self.telemetry: TelemetryBlock
        self.log_level: str = config.log.level
        self._on_change = on_change
        self._log = get_logger().bind(lane=self.name)
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: Channel
        self._reports: Inbox
        self._lane: Channel | None = None
        self._inbox: Inbox | None = None
        self._started: list[float] = []
        self._drained = asyncio.Event()
        self._stopping = False

    async def start(self) -> None:
        """Bring it up for the first time.

        Raises:
            LaneFailedError: It cannot work.
        """
        await self._prepare(goes_on=False)
        await self._begin()
        self.telemetry = TelemetryBlock.attach(telemetry_path(self.config), control=True)
        self._change("ready", "lane_ready", pid=self.pid)

    async def watch(self) -> None:
        """Bring it back whenever it dies, until `stop`."""
        while not self._stopping:
            reason = await self._until_death()
            self.pid = 0
            self._change("restarting", "lane_died", reason=reason, restarts=self.restarts)
            while not self._stopping:
                await self._wait_for_turn()
                try:
                    await self._bring_back()
                    break
                except (RtqecError, TimeoutError, OSError) as error:
                    self._log.error("lane_restart_failed", reason=str(error) or "no answer in time")

    def order(self, message: dict[str, Any]) -> None:
        """Tell the lane something; nothing where it is not there."""
        if self._lane is not None:
            self._lane.send(message)

    async def drain(self, timeout_s: float) -> bool:
        """Let its shots end; False where some had not by then."""
        self._stopping = True
        if self.state != "ready":
            return True
        self.order({"do": "drain"})
        with suppress(TimeoutError):
            while True:
                before = time.monotonic()
                message = await self._next(timeout_s)
                if message is None or message["event"] == "drained":
                    return message is not None
                timeout_s -= time.monotonic() - before
        return False

    async def stop(self) -> ExitCode:
        """End it: what has closed is carried, open shots end; then its processes."""
        self._stopping = True
        code = ExitCode.OK
        if self.state == "ready":
            self.order({"do": "stop"})
            try:
                message = await self._next(_KILL_TIMEOUT_S)
                while message is not None and message["event"] not in ("stopped", "failed"):
                    message = await self._next(_KILL_TIMEOUT_S)
                if message is None or message["event"] == "failed":
                    code = ExitCode.FAULT
                    self._log.error("lane_failed", reason=message["message"] if message else "it died")
            except TimeoutError:
                code = ExitCode.FAULT
                self._log.error("lane_killed", reason="it did not stop in time")
        self.kill()
        if self._process is not None:
            self._reports.close()
            self._process.kill()
            self._process.wait()
        self._change("stopped", "lane_gone")
        return code

    def kill(self) -> None:
        """End the process that decodes, whatever it does."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _change(self, state: str, event: str, **details: Any) -> None:
        self.state = state
        self._on_change(self, event, details)

    async def _prepare(self, goes_on: bool) -> None:
        """Start the process that stands by (or becomes the lane), and wait until it is warm."""
        if self._process is not None:
            self._reports.close()
        self._orders, theirs = Channel.pair()
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment.pop("NOTIFY_SOCKET", None)
        command = [sys.executable, "-m", "rtqec.cli", "lane", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self._reports = Inbox(self._orders)
        config = self.config
        self._orders.send(
            {
                "config": config.model_dump(mode="json"), "lane_index": config.lane_index, "folder": config.folder,
                "goes_on": goes_on, "log_level": self.log_level, "log_format": config.log.format,
            }
        )  # fmt: skip
        message = _or_fail(await self._reports.next(_PREPARE_TIMEOUT_S), self._process)
        self.patches = message["patches"]

    async def _begin(self) -> None:
        """Let a lane begin, and wait until it is ready."""
        self._lane, theirs = Channel.pair()
        self._inbox = Inbox(self._lane)
        self._orders.send({"do": "start"}, [theirs.fileno()])
        theirs.close()
        message = _or_fail(await self._inbox.next(_START_TIMEOUT_S), self._process)
        self.pid = message["pid"]
        self._started.append(time.monotonic())

    async def _bring_back(self) -> None:
        if self._process is None or self._process.poll() is not None or not self.config.service.standby:
            await self._prepare(goes_on=True)
        await self._begin()
        self.restarts += 1
        self._change("ready", "lane_back", pid=self.pid, restarts=self.restarts)

    async def _wait_for_turn(self) -> None:
        """Keep restarts below their rate."""
        recent = [at for at in self._started if time.monotonic() - at < RESTARTS_AT_ONCE * RESTART_EVERY_S]
        self._started = recent
        if len(recent) > RESTARTS_AT_ONCE:
            self._log.error("lane_restarts_too_often", restarts=len(recent), wait_s=RESTART_EVERY_S)
            await asyncio.sleep(RESTART_EVERY_S)

    async def _until_death(self) -> str:
        """Watch the channel and the beats; why it is dead."""
        seen, silent_looks = (-1, -1), 0
        while True:
            try:
                message = await self._next(LOOK_S)
            except TimeoutError:
                beats = int(self.telemetry.control[INGEST_BEAT]), int(self.telemetry.control[PATH_BEAT])
                silent_looks = silent_looks + 1 if beats[0] == seen[0] or beats[1] == seen[1] else 0
                seen = beats
                # Looks, not seconds: a supervisor that was itself held up must not blame its lanes.
                if 1000 * silent_looks * LOOK_S >= self.config.service.lane_timeout_ms and not self._stopping:
                    await self._end_silent()
                    return "silent"
                continue
            if message is None:
                return await self._how_it_died()
            if message["event"] == "failed":
                self._log.error("lane_failed", reason=message["message"])

    async def _end_silent(self) -> None:
        """Kill it, and wait until the kernel has freed what it held."""
        self.kill()
        with suppress(TimeoutError):
            while await self._next(_KILL_TIMEOUT_S) is not None:
                pass

    async def _how_it_died(self) -> str:
        """In words, from the process that forked it."""
        status: int | None = None
        if self.config.service.standby:
            with suppress(TimeoutError):
                while status is None:
                    message = await self._reports.next(1.0)
                    if message is None:
                        break
                    status = message["status"] if message["event"] == "exited" else None
        elif self._process is not None:
            status = self._process.wait()
        if status is None:
            return "died"
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    async def _next(self, timeout_s: float) -> dict[str, Any] | None:
        if self._inbox is None:
            return None
        message = await self._inbox.next(timeout_s)
        if message is None:
            self._inbox.close()
            self._inbox, self._lane = None, None
        return message


def _or_fail(message: dict[str, Any] | None, process: subprocess.Popen[bytes] | None) -> dict[str, Any]:
    """A message that is no failure.

    Raises:
        LaneFailedError: It says so.
        FaultError: There is none: the process died.
    """
    if message is None:
        status = process.wait() if process is not None else None
        raise FaultError(f"a lane ended with status {status} before it was ready; its own words are above.")
    if message["event"] == "failed":
        raise LaneFailedError(message["code"], message["message"])
    return message
